//! `cargo xtask bench`: how fast, side by side with the kernel in the same run.
//!
//! Rounds are interleaved: each asks every contestant everything once, so that what else the machine does meets all of
//! them alike. What is told are medians, their spread, and ratios.

mod ask;
mod report;
mod site;

use crate::interrupt::Interrupt;
use crate::lab;
use crate::packages;
use crate::program::is_root;
use anyhow::{Context, Result, bail, ensure};
use ask::Question;
use report::Samples;
use site::Site;
use std::fs;

/// Fewer tell more of the moment than of the contestants.
const LEAST_ROUNDS: usize = 3;
const ROUNDS: usize = 9;
/// Of one processor; a quiet machine is at a few hundredths.
const QUIET_LOAD: f64 = 0.5;

/// Programs that only benches run, and their packages.
const PROGRAMS: &[(&str, &str)] = &[("iperf3", "iperf3")];

/// `cargo xtask bench [overlay] [--rounds N]`
pub(crate) fn command(words: &[&str]) -> Result<()> {
    let (words, rounds) = match words {
        [words @ .., "--rounds", number] => (words, number.parse().context("--rounds takes a whole number")?),
        words => (words, ROUNDS),
    };
    ensure!(rounds >= LEAST_ROUNDS, "--rounds takes {LEAST_ROUNDS} or more");
    match words {
        [] | ["overlay"] => overlay(rounds),
        [other, ..] => bail!("there is no bench `{other}`: there is `overlay`"),
    }
}

/// Two containers on two hosts: the kernel's vxlan, and Skep's networks, plain and with each cipher.
fn overlay(rounds: usize) -> Result<()> {
    ensure!(is_root()?, "the bench makes network namespaces: run it as root (`sudo -E cargo xtask bench`)");
    packages::ensure()?;
    packages::ensure_others(PROGRAMS)?;
    lab::prepare()?;
    tell_of_load()?;
    let interrupt = Interrupt::watch()?;
    let mut site = Site::build()?;
    let result = ask_everybody(&mut site, rounds, &interrupt);
    site.tear_down()?;
    let samples = result?;
    samples.print();
    let directory = crate::program::root().join("target/bench");
    fs::create_dir_all(&directory)?;
    let file = directory.join("overlay.json");
    fs::write(&file, samples.json(rounds)?).with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nEvery sample is in {}", file.display());
    Ok(())
}

fn ask_everybody(site: &mut Site, rounds: usize, interrupt: &Interrupt) -> Result<Samples> {
    let mut samples = Samples::default();
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        for contestant in site.contestants() {
            for question in Question::ALL {
                interrupt.check()?;
                for (what, figure) in question.ask(site, contestant)? {
                    samples.add(contestant.name, what, figure);
                }
            }
        }
    }
    Ok(samples)
}

fn tell_of_load() -> Result<()> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let recent: f64 = load.split(' ').next().unwrap_or_default().parse().unwrap_or_default();
    if recent > QUIET_LOAD {
        println!("this machine is not quiet (load {recent}): what else runs is measured too");
    }
    Ok(())
}
