//! A whole control plane in one process and on virtual time: the store on a disk that dies, the plan, the
//! projections, the reports and the assignments are the real ones; hosts, wires and clocks are played.
//!
//! A schedule is a seed. `SKEP_CHAOS_SEED=17 cargo test -p skep-manager chaos -- --nocapture` plays one again and
//! tells its story, `SKEP_CHAOS_SCHEDULES=100000` plays more of them.

mod agent;
mod check;
mod faults;
mod manager;
mod operator;
mod world;

use std::time::Instant;
use world::World;

/// What `cargo xtask test` plays.
const SCHEDULES: u64 = 1_000;
/// Schedules are independent; this many are played side by side.
const THREADS: u64 = 2;

#[test]
fn whatever_dies_nothing_is_given_twice_nothing_acknowledged_is_lost_and_all_agree_again() {
    if let Some(seed) = number("SKEP_CHAOS_SEED") {
        World::new(seed, true).play();
        return;
    }
    let schedules = number("SKEP_CHAOS_SCHEDULES").unwrap_or(SCHEDULES);
    let began = Instant::now();
    let played = std::thread::scope(|scope| {
        let thread = |first| {
            scope.spawn(move || (first..schedules).step_by(THREADS as usize).map(play).sum::<Figures>())
        };
        let threads: Vec<_> = (0..THREADS).map(thread).collect();
        threads.into_iter().map(|thread| thread.join().expect("the seed is printed above")).sum::<Figures>()
    });
    println!("{schedules} schedules, {played:?}, {:.1?}", began.elapsed());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn play(seed: u64) -> Figures {
    let played = std::panic::catch_unwind(|| World::new(seed, false).play());
    played.unwrap_or_else(|panic| {
        eprintln!(
            "seed {seed} failed: SKEP_CHAOS_SEED={seed} cargo test -p skep-manager chaos -- --nocapture"
        );
        std::panic::resume_unwind(panic)
    })
}

/// How much was played.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    events: u64,
    commits: u64,
    manager_deaths: u64,
    agent_deaths: u64,
    cuts: u64,
    virtual_seconds: u64,
}

impl std::iter::Sum for Figures {
    fn sum<I: Iterator<Item = Self>>(figures: I) -> Self {
        figures.fold(Self::default(), |sum, one| Self {
            events: sum.events + one.events,
            commits: sum.commits + one.commits,
            manager_deaths: sum.manager_deaths + one.manager_deaths,
            agent_deaths: sum.agent_deaths + one.agent_deaths,
            cuts: sum.cuts + one.cuts,
            virtual_seconds: sum.virtual_seconds + one.virtual_seconds,
        })
    }
}
