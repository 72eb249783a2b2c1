//! A million flows that are silent for too long at the same moment: how long packets wait for one turn of forgetting.

use crate::clock::{micros, timed, undisturbed};
use crate::crowd::Crowd;
use crate::tell;
use crate::world::Counted;
use std::time::Duration;

const FLOWS: u32 = 1_000_000;
const CAPACITY: usize = 1 << 20;
/// Longer than any UDP flow lives.
const SILENCE: Duration = Duration::from_secs(200);
const RUNS: usize = 3;

pub(crate) fn tell_all() {
    let turns = undisturbed((0..RUNS).map(|_| expire()).collect());
    let longest = turns.iter().max().copied().unwrap_or_default();
    tell("a million flows expire", "µs of the longest turn", micros(longest));
    tell("a million flows expire", "µs in all", micros(turns.iter().sum()));
}

/// How long each turn takes.
fn expire() -> Vec<Duration> {
    let Crowd { mut engine, now } = Crowd::new(CAPACITY, FLOWS);
    let (later, mut out, mut turns) = (now + SILENCE, Counted::default(), Vec::new());
    while engine.poll_timeout().is_some_and(|due| due <= later) {
        turns.push(timed(|| engine.handle_timeout(later, &mut out)));
    }
    assert_eq!(engine.stats().flows, 0);
    turns
}
