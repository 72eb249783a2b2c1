//! `cargo xtask test`: everything CI runs, fast checks first.

use crate::lab;
use crate::packages;
use crate::planted;
use crate::program::{cargo, cargo_command, is_root};
use anyhow::{Context, Result, bail, ensure};
use std::time::Instant;

/// Tests of real namespaces share two cores with what they start: more at a time only makes them wait.
const NETNS_TEST_THREADS: &str = "2";

/// A link that leads nowhere fails, as the compiler's warnings do.
const STRICT_DOCS: &str = "build.rustdocflags = ['-D', 'warnings']";

/// Seeds of the packet engine's simulation in the nightly size; its usual number is its own.
const NIGHTLY_SEEDS: &str = "10000";

/// The ways for packets to cross in large pieces (`dataplane::io::FastPaths`): what passes with them has to pass without.
const FAST_PATHS: [&str; 4] = ["offloads", "segment", "gro", "merge"];
/// The netns tests that carry much, or oddly: those that a fast path could spoil.
const CARRYING: &[&str] = &["fast_paths", "hardship", "interop", "matrix", "mesh", "path_mtu", "tap"];

/// How much is tried of what is endless.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Usual,
    Nightly,
}

pub(crate) fn run(size: Size) -> Result<()> {
    let start = Instant::now();
    if !is_root()? {
        bail!("the namespace tests need root: run `sudo -E cargo xtask test`");
    }
    packages::ensure()?;
    step("format", &["fmt", "--all", "--check"])?;
    step("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    step("docs", &["doc", "--workspace", "--no-deps", "--document-private-items", "--config", STRICT_DOCS])?;
    step("dataplane without I/O", &["check", "-p", "skep-dataplane", "--no-default-features"])?;
    step("unit, property and crate tests", &["test", "--workspace", "--exclude", "netns-tests"])?;
    if size == Size::Nightly {
        println!("\n== simulation with {NIGHTLY_SEEDS} seeds");
        let simulation = ["test", "-p", "skep-dataplane", "--test", "simulation", "--", "--nocapture"];
        let status = cargo_command(&simulation)
            .env("SKEP_SEEDS", NIGHTLY_SEEDS)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "the simulation failed");
    }
    println!("\n== planted bugs");
    planted::run()?;
    println!("\n== release build");
    lab::prepare()?;
    netns_tests(&[], None)?;
    if size == Size::Nightly {
        FAST_PATHS.iter().try_for_each(|path| netns_tests(&[], Some(path)))?;
        netns_tests(&[], Some(&FAST_PATHS.join(",")))?;
    } else {
        netns_tests(CARRYING, Some(&FAST_PATHS.join(",")))?;
    }
    println!("\nall tests passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// All netns tests, or those named; on Linux's fast paths but those listed.
fn netns_tests(tests: &[&str], without: Option<&str>) -> Result<()> {
    let name = without.map_or("netns tests".to_owned(), |without| format!("netns tests without {without}"));
    println!("\n== {name}");
    let mut arguments = vec!["test", "-p", "netns-tests", "--no-fail-fast"];
    arguments.extend(tests.iter().flat_map(|test| ["--test", test]));
    arguments.extend(["--", "--test-threads", NETNS_TEST_THREADS]);
    let status = cargo_command(&arguments)
        .env("SKEP_TEST_WITHOUT", without.unwrap_or_default())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "{name} failed: cargo {}: {status}", arguments.join(" "));
    Ok(())
}

fn step(name: &str, arguments: &[&str]) -> Result<()> {
    println!("\n== {name}: cargo {}", arguments.join(" "));
    cargo(arguments).with_context(|| format!("{name} failed"))
}
