//! `cargo xtask bench`: how fast, side by side with others in the same run.
//!
//! Rounds are interleaved: each asks every contestant everything once, so that what else the machine does meets all of
//! them alike. What is told are medians, their spread, and ratios.

mod ask;
mod dns;
mod engine;
mod kernel;
mod local;
mod mesh;
mod overlay;
mod plot;
mod quiet;
mod report;
mod serve;

use crate::interrupt::Interrupt;
use crate::lab;
use crate::packages;
use crate::program::{is_root, root};
use anyhow::{Context, Result, bail, ensure};
use report::Samples;
use std::fs;

/// Fewer tell more of the moment than of the contestants.
const LEAST_ROUNDS: usize = 3;
const ROUNDS: usize = 9;

/// Programs that every bench runs, and their packages.
const PROGRAMS: &[(&str, &str)] =
    &[("iperf3", "iperf3"), ("sockperf", "sockperf"), ("gnuplot", "gnuplot-nox")];

/// What the user asked for.
pub(super) struct Asked {
    rounds: usize,
    /// Other userspace tunnels as well.
    peers: bool,
    interrupt: Interrupt,
}

impl Asked {
    /// `ask` once a round, as often as there are rounds.
    fn each_round(&self, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
        for round in 1..=self.rounds {
            println!("round {round} of {}", self.rounds);
            self.interrupt.check()?;
            ask()?;
        }
        Ok(())
    }
}

struct Bench {
    name: &'static str,
    /// Asks everybody everything, and clears up.
    run: fn(&Asked) -> Result<Samples>,
}

const BENCHES: &[Bench] = &[
    Bench { name: "overlay", run: overlay::run },
    Bench { name: "local", run: local::run },
    Bench { name: "mesh", run: mesh::run },
    Bench { name: "dns", run: dns::run },
    Bench { name: "engine", run: engine::run },
];

/// `cargo xtask bench [NAME|all] [--rounds N] [--peers]`
pub(crate) fn command(words: &[&str]) -> Result<()> {
    let (benches, rounds, peers) = parse(words)?;
    ensure!(is_root()?, "the bench makes network namespaces: run it as root (`sudo -E cargo xtask bench`)");
    packages::ensure()?;
    packages::ensure_others(PROGRAMS)?;
    lab::prepare()?;
    quiet::tell()?;
    let asked = Asked { rounds, peers, interrupt: Interrupt::watch()? };
    for bench in benches {
        println!("\n== {}", bench.name);
        let samples = (bench.run)(&asked);
        // What Ctrl-C did to a program that ran is not worth telling.
        asked.interrupt.check()?;
        let samples = samples.with_context(|| format!("the bench `{}` failed", bench.name))?;
        samples.print();
        keep(bench.name, rounds, &samples)?;
    }
    Ok(())
}

fn parse(words: &[&str]) -> Result<(Vec<&'static Bench>, usize, bool)> {
    let (mut benches, mut rounds, mut peers) = (Vec::new(), ROUNDS, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--rounds" => {
                let number = words.next().and_then(|number| number.parse().ok());
                rounds = number.context("--rounds takes a whole number")?;
            }
            "--peers" => peers = true,
            "all" => benches.extend(BENCHES),
            name => {
                let bench = BENCHES.iter().find(|bench| bench.name == name);
                benches.push(bench.with_context(|| unknown(name))?);
            }
        }
    }
    ensure!(rounds >= LEAST_ROUNDS, "--rounds takes {LEAST_ROUNDS} or more");
    if benches.is_empty() {
        bail!("say which: {}", names());
    }
    Ok((benches, rounds, peers))
}

fn unknown(name: &str) -> String {
    format!("there is no bench `{name}`; there are {}", names())
}

fn names() -> String {
    let names: Vec<_> = BENCHES.iter().map(|bench| format!("`{}`", bench.name)).collect();
    format!("{} and `all`", names.join(", "))
}

/// Every sample, and a picture of the medians.
fn keep(name: &str, rounds: usize, samples: &Samples) -> Result<()> {
    let directory = root().join("target/bench");
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{name}.json"));
    fs::write(&file, samples.json(name, rounds)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let picture = directory.join(format!("{name}.png"));
    plot::bars(name, samples, &picture)?;
    println!("\nEvery sample is in {}, the medians are drawn in {}", file.display(), picture.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_with_what_there_is() {
        let refused = |words: &[&str]| format!("{:#}", parse(words).err().unwrap());
        assert!(refused(&["overlai"]).contains("there are `overlay`, "));
        assert!(refused(&[]).contains("`all`"));
        assert!(refused(&["overlay", "--rounds"]).contains("whole number"));
        assert!(refused(&["overlay", "--rounds", "2"]).contains("3 or more"));
        let (benches, rounds, peers) = parse(&["overlay", "--peers"]).unwrap();
        assert_eq!((benches[0].name, rounds, peers), ("overlay", ROUNDS, true));
    }
}
