//! The packet engine without sockets: what a packet costs, and how that grows.
//!
//! Prints JSON lines, one a figure; `cargo xtask bench engine` runs it once a round and tells medians. Packets are made
//! before the clock starts and handed in by the batch, as the packet thread does; what comes out is counted and let go,
//! so that no copy to a TAP or a socket is measured. A figure is the median over batches: whatever else the machine does
//! falls into few of them.
//!
//! The crate is built with `audit` here, as for every test: its hooks do nothing unless they are overridden.

#![allow(clippy::unwrap_used, reason = "a bench may panic like a test")]

mod clock;
mod crowd;
mod estate;
mod expiry;
mod frames;
mod growth;
mod lane;
mod memory;
mod paths;
mod swap;
mod world;

const SECTIONS: &[(&str, fn())] = &[
    ("paths", paths),
    ("growth", growth::tell_all),
    ("swap", swap::tell_all),
    ("expiry", expiry::tell_all),
    ("memory", memory::tell_all),
];

/// Those that are named, or all.
fn main() {
    let named: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for (name, section) in SECTIONS {
        if named.is_empty() || named.iter().any(|word| word == name) {
            section();
        }
    }
}

/// One figure, as `xtask` reads it. No name has a quote in it.
fn tell(contestant: &str, what: &str, figure: f64) {
    println!(r#"{{"contestant": "{contestant}", "what": "{what}", "figure": {figure}}}"#);
}

fn paths() {
    for path in paths::all() {
        for (size, name) in [(frames::Size::Small, "64 B"), (frames::Size::Large, "64 KiB")] {
            let Some(mut lane) = path.lane(size) else { continue };
            let cost = clock::measure(&mut lane);
            tell(path.name, &format!("{name}: ns per packet"), cost.nanoseconds);
            tell(path.name, &format!("{name}: allocations per packet"), cost.allocations);
        }
    }
}
