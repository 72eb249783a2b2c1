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

/// What there is more and more of, and the figure that tells what it costs.
const GROWING: [(&str, &str); 2] = [
    ("flows", "64 B of a random flow: ns per packet"),
    ("endpoints", "64 B to a random endpoint: ns per packet"),
];

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
    let curve = |(things, cost): (&str, &str)| {
        let points = samples.of(cost).into_iter().filter_map(|(contestant, [_, median, _])| {
            let (number, _) = contestant.split_once(' ')?;
            Some((number.parse().ok()?, median))
        });
        (things.to_owned(), points.collect())
    };
    let directory = root().join("target/bench");
    fs::create_dir_all(&directory)?;
    let title = ["What a packet costs among many flows and endpoints", "flows, endpoints", "ns per packet"];
    plot::curves(title, &GROWING.map(curve), &directory.join("engine-growth.png"))
}
