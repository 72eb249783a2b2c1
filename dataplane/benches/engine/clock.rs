//! What a lane costs.

use crate::lane::Lane;
use std::time::{Duration, Instant};

/// Handled before anything counts: tables and caches are as they stay.
const WARM_UP: usize = 32;
/// Handled at least, and for so long at least.
const BATCHES: usize = 64;
const TIME: Duration = Duration::from_millis(50);

/// Of one packet.
pub(crate) struct Cost {
    /// The median over batches.
    pub(crate) nanoseconds: f64,
    /// The mean: none is overlooked.
    pub(crate) allocations: f64,
}

pub(crate) fn measure(lane: &mut Lane) -> Cost {
    measure_for(lane, TIME)
}

/// For at least so long.
pub(crate) fn measure_for(lane: &mut Lane, least: Duration) -> Cost {
    let mut packets = 0;
    for _ in 0..WARM_UP {
        packets += lane.run_batch().packets;
    }
    let (mut times, mut allocations, mut time) = (Vec::new(), 0, Duration::ZERO);
    let mut counted = 0;
    while times.len() < BATCHES || time < least {
        let took = lane.run_batch();
        counted += took.packets;
        times.push(took.time.as_nanos() as f64 / took.packets as f64);
        allocations += took.allocations;
        time += took.time;
    }
    lane.assert_lossless((packets + counted) as u64);
    Cost { nanoseconds: median(times), allocations: allocations as f64 / counted as f64 }
}

/// Of the same steps, timed in several runs: the least of each. What a run was kept from doing for a while is in none of
/// them then, and what a step takes by itself is.
pub(crate) fn undisturbed(runs: Vec<Vec<Duration>>) -> Vec<Duration> {
    let shorter = |a: Vec<Duration>, b: Vec<Duration>| {
        assert_eq!(a.len(), b.len(), "the runs take the same steps");
        a.into_iter().zip(b).map(|(a, b)| a.min(b)).collect()
    };
    runs.into_iter().reduce(shorter).unwrap_or_default()
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
