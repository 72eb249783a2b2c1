//! The packet engine alone, without sockets: what a packet costs on every path, and how that grows.
//!
//! The program is `dataplane/benches/engine`: it says what is measured, and how. Nobody else is asked, so ratios are to
//! the shortest path, local delivery, and where something grows to the least of it.

use super::report::Samples;
use super::{Asked, plot};
use crate::program::{cargo_command, root, run_in_reach};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;

/// Whom figures are compared with. No figure is of two of them.
const BASELINES: [&str; 3] = ["local", "1 flows", "10 endpoints"];

/// The figure that grows, and of what.
const COST: &str = "64 B to a random one: ns per packet";
const GROWING: [&str; 2] = ["flows", "endpoints"];

pub(super) fn run(asked: &Asked) -> Result<Samples> {
    let mut samples = Samples::against(&BASELINES);
    asked.each_round(|| {
        let program = ["bench", "--quiet", "--package", "skep-dataplane", "--bench", "engine"];
        let told = run_in_reach(&mut cargo_command(&program), "the engine's bench")?;
        told.lines().try_for_each(|line| note(&mut samples, line))
    })?;
    draw(&samples)?;
    Ok(samples)
}

fn note(samples: &mut Samples, line: &str) -> Result<()> {
    let told: Value =
        serde_json::from_str(line).with_context(|| format!("the engine's bench said {line}"))?;
    let text = |name| told[name].as_str().with_context(|| format!("no {name} in {line}"));
    let figure = told["figure"].as_f64().with_context(|| format!("no figure in {line}"))?;
    samples.add(text("contestant")?, text("what")?, figure);
    Ok(())
}

fn draw(samples: &Samples) -> Result<()> {
    let medians = samples.of(COST);
    let curve = |thing: &str| {
        let points = medians.iter().filter_map(|(contestant, [_, median, _])| {
            let (number, of) = contestant.split_once(' ')?;
            (of == thing).then_some((number.parse().ok()?, *median))
        });
        (thing.to_owned(), points.collect())
    };
    let directory = root().join("target/bench");
    fs::create_dir_all(&directory)?;
    let title = ["A packet to a random one of", "flows or endpoints", "ns per packet"];
    plot::curves(title, &GROWING.map(curve), &directory.join("engine-growth.png"))
}
