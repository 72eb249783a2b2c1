//! `cargo xtask test`: everything CI runs, fast checks first.

use crate::packages;
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Instant;

/// Tests of real namespaces share two cores with what they start: more at a time only makes them wait.
const NETNS_TEST_THREADS: &str = "2";

pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    if !crate::is_root() {
        bail!("the namespace tests need root: run `sudo -E cargo xtask test`");
    }
    packages::ensure()?;
    step("format", &["fmt", "--all", "--check"])?;
    step("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    step("dataplane without I/O", &["check", "-p", "skep-dataplane", "--no-default-features"])?;
    step("unit, property and crate tests", &["test", "--workspace", "--exclude", "netns-tests"])?;
    step("release build", &crate::lab::RELEASE_BUILD)?;
    step("netns tests", &["test", "-p", "netns-tests", "--", "--test-threads", NETNS_TEST_THREADS])?;
    println!("\nall tests passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, cargo_args: &[&str]) -> Result<()> {
    println!("\n== {name}: cargo {}", cargo_args.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(cargo_args).status().context("starting cargo")?;
    if !status.success() {
        bail!("{name} failed: cargo {}", cargo_args.join(" "));
    }
    Ok(())
}
