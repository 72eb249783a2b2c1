//! Whole clusters of engines in virtual time, judged by a model that shares nothing with them.
//!
//! A run follows from its seed alone: three to five nodes, networks that may use the same addresses, containers that
//! come, go and take over each other's addresses on other nodes, services that grow, drain and shrink, snapshots that
//! reach the nodes late, an underlay that loses, repeats, reorders and parts, engines that begin anew, nodes that are
//! expelled and come back, clients of all kinds and neighbours who forge. Some or all of the networks of most runs are
//! sealed; then somebody on the underlay must read nothing, and somebody else change nothing. Every packet is numbered. At every engine it passes, exactly what [`model`] says comes
//! out; what reaches a receiver is what was sent; and once the world stands still everybody reaches whom they may.
//!
//! `SKEP_SEEDS=10000` runs that many seeds, `SKEP_SEED=17` runs that one and tells each step.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test may panic like the test itself"
)]

mod churn;
mod clients;
mod eavesdropper;
mod figures;
mod hostile;
#[path = "../identity/mod.rs"]
mod identity;
mod injector;
mod judge;
mod model;
mod packet;
mod probe;
mod receivers;
mod rng;
mod run;
mod sessions;
mod speech;
mod station;
mod underlay;
mod wire;
mod world;

use figures::Figures;
use run::Run;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `cargo xtask test` runs each time.
const SEEDS: u64 = 300;

/// How to see a seed's run again.
const REPLAY: &str = "cargo test -p skep-dataplane --test simulation";

#[test]
fn exactly_the_predicted_packets_arrive() {
    if let Some(seed) = number("SKEP_SEED") {
        println!("seed {seed}: {}", Run::new(seed, true).play());
        return;
    }
    let seeds = number("SKEP_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let total = Mutex::new(Figures::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == u64::MAX {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| Run::new(seed, false).play())) {
                        Ok(figures) => total.lock().unwrap().add(&figures),
                        Err(_) => {
                            eprintln!("seed {seed} failed; to see it again: SKEP_SEED={seed} {REPLAY}");
                            failed.fetch_min(seed, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "seed {failed} failed; to see it again: SKEP_SEED={failed} {REPLAY}");
    let total = total.into_inner().unwrap();
    println!("{seeds} seeds: {total}");
    assert!(seeds < SEEDS || total.has_everything(), "something is never tried: {total}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
