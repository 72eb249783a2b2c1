//! Published ports: a client outside asks host 1, and the server is on host 2. The routing mesh passes that on, or HAProxy
//! in TCP mode, or the kernel by an nftables map of destinations.
//!
//! All use the same client and the same server. From host to host the mesh seals what it carries, and the server sees the
//! client's own address; the others go by a plain kernel vxlan, and the server sees host 1. Each has hosts of its own: no
//! other's firewall rules are in its way, and HAProxy's host tracks no connections.
//!
//! Client and server alone would keep the machine busy: a fourth, with nobody in between, says how much of everybody's
//! processor time is theirs, and so how much is whose who passes connections on.
//!
//! HAProxy takes connections itself, before it has one to the server: its connect times are those of the first hop alone.
//! The times of whole exchanges say what a client waits for.

mod balancers;
mod site;

use super::Asked;
use super::ask::{agent_seconds, skepds};
use super::quiet::machine_seconds;
use super::report::Samples;
use crate::packages;
use anyhow::{Context, Result};
use serde_json::Value;
use site::{Contestant, Site};
use std::collections::BTreeMap;

/// In seconds, for each question.
const TIME: u64 = 3;
/// Connections at once.
const PARALLEL: u32 = 32;
/// As of a busy site.
const MANY: u32 = 256;
/// Connections a second, far from anybody's most.
const PACE: u32 = 1000;

const PROGRAMS: &[(&str, &str)] = &[("haproxy", "haproxy")];

const REQUESTS: &str = "requests a second, connections stay";
const REQUEST_99: &str = "request, connections stay, 99th of 100, µs";
const FAILED: &str = "connections that failed";

pub(super) fn run(asked: &Asked) -> Result<Samples> {
    packages::ensure_others(PROGRAMS)?;
    let mut site = Site::build(&asked.interrupt)?;
    let samples = ask_everybody(&site, asked);
    let removed = site.tear_down();
    let samples = samples?;
    removed.map(|()| samples)
}

fn ask_everybody(site: &Site, asked: &Asked) -> Result<Samples> {
    let haproxy = format!("HAProxy {}", balancers::haproxy_version()?);
    let nftables = "nftables DNAT";
    let mut samples = Samples::against(&[&haproxy, nftables]);
    asked.each_round(|| {
        let mut ends = BTreeMap::new();
        for contestant in Contestant::ALL {
            let name = match contestant {
                Contestant::HaProxy => &haproxy,
                Contestant::Nftables => nftables,
                Contestant::Skep => "Skep",
                Contestant::Nobody => "nobody",
            };
            let mut add = |what: &str, figure| samples.add(name, what, figure);
            let mut failed = 0.0;
            for parallel in [PARALLEL, MANY] {
                asked.interrupt.check()?;
                failed += connections(site, contestant, parallel, &mut ends, &mut add)?;
            }
            for ask in [paced, requests] {
                asked.interrupt.check()?;
                failed += ask(site, contestant, &mut add)?;
            }
            if failed > 0.0 {
                add(FAILED, failed);
            }
        }
        Ok(())
    })?;
    Ok(samples)
}

/// As many as there can be; returns how many failed, as the others do. `ends`: what client and server alone take of each,
/// by how many are made at once.
fn connections(
    site: &Site,
    whom: Contestant,
    parallel: u32,
    ends: &mut BTreeMap<u32, f64>,
    add: &mut dyn FnMut(&str, f64),
) -> Result<f64> {
    let agents = skepds(&site.agents(whom)?)?;
    let before = (agent_seconds(&agents)?, machine_seconds()?);
    let answer = site.load(whom, "connections", TIME, parallel)?;
    let (agents_used, all_used) = (agent_seconds(&agents)? - before.0, machine_seconds()? - before.1);
    add(&format!("new connections a second, {parallel} at once"), number(&answer, "/each_second")?);
    let done = number(&answer, "/done")?;
    // Client, server and whatever is in between: all of it is on this machine.
    add(&format!("everybody's CPU-s per 10,000 of them, {parallel} at once"), all_used / done * 1e4);
    match (whom, ends.get(&parallel)) {
        (Contestant::Nobody, _) => _ = ends.insert(parallel, all_used / done),
        (_, Some(ends)) => {
            add(
                &format!("of them a core-second of what is in between, {parallel} at once"),
                1.0 / (all_used / done - ends),
            );
        }
        _ => {}
    }
    if !agents.is_empty() {
        add(&format!("agents' CPU-s per 10,000 of them, {parallel} at once"), agents_used / done * 1e4);
    }
    number(&answer, "/failed")
}

fn paced(site: &Site, whom: Contestant, add: &mut dyn FnMut(&str, f64)) -> Result<f64> {
    let answer = site.load(whom, "paced", TIME, PACE)?;
    for (what, times) in [("connect()", "/connect_us"), ("connection with its answer", "/answer_us")] {
        for (part, at) in [("median", 0), ("99th of 100", 1)] {
            add(&format!("{what}, {part}, µs, at {PACE}/s"), number(&answer, &format!("{times}/{at}"))?);
        }
    }
    number(&answer, "/failed")
}

fn requests(site: &Site, whom: Contestant, add: &mut dyn FnMut(&str, f64)) -> Result<f64> {
    let answer = site.load(whom, "requests", TIME, PARALLEL)?;
    add(REQUESTS, number(&answer, "/each_second")?);
    add(REQUEST_99, number(&answer, "/answer_us/1")?);
    number(&answer, "/failed")
}

fn number(answer: &Value, at: &str) -> Result<f64> {
    answer.pointer(at).and_then(Value::as_f64).with_context(|| format!("`load` says no {at}: {answer}"))
}
