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
    step(
        "netns tests",
        &["test", "-p", "netns-tests", "--no-fail-fast", "--", "--test-threads", NETNS_TEST_THREADS],
    )?;
    println!("\nall tests passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, arguments: &[&str]) -> Result<()> {
    println!("\n== {name}: cargo {}", arguments.join(" "));
    cargo(arguments).with_context(|| format!("{name} failed"))
}
