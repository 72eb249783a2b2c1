//! Two containers on two hosts: the kernel's vxlan, and Skep's networks, plain and with each cipher.
//!
//! Everybody is asked on two underlays. Skep sends segments that the underlay cuts, as the kernel does; a veth cuts
//! nothing, so both get for nothing what a wire makes somebody do. The second underlay has the kernel do it. Nobody is
//! restarted in between: an engine has to find out by itself.
//!
//! With `--peers`, [others' tunnels](peers) are asked what makes sense there, on the first underlay.

mod kernel;
mod peers;
mod site;
mod skep;
mod underlay;

use super::Asked;
use super::ask::{Question, agent_mebibytes};
use super::report::Samples;
use anyhow::{Context, Result};
use site::{Contestant, Site};
use underlay::Underlay;

const TCP: [Question; 2] = [Question::Tcp { streams: 1 }, Question::Tcp { streams: 4 }];
const TCP_BACK: [Question; 2] = [Question::TcpBack { streams: 1 }, Question::TcpBack { streams: 4 }];
const SMALL: [Question; 3] = [Question::SmallDatagrams, Question::PingPong, Question::Ping];

pub(super) fn run(asked: &Asked) -> Result<Samples> {
    if asked.peers {
        peers::prepare()?;
    }
    let site = Site::build(asked)?;
    let mut samples = Samples::against(&[kernel::NAME]);
    weigh(&site, "an agent's memory, idle, MiB", &mut samples);
    asked.each_round(|| {
        for (contestant, question) in each(&site.contestants, &[&TCP, &TCP_BACK, &SMALL]) {
            asked.interrupt.check()?;
            ask(contestant, question, "", &mut samples)?;
        }
        for (peer, question) in each(&site.peers, &[&TCP, &SMALL]) {
            asked.interrupt.check()?;
            // What others' programs can't do costs nobody else's figures.
            if let Err(error) = ask(peer, question, "", &mut samples) {
                eprintln!("no figure: {error:#}");
            }
        }
        site.lay(Underlay::WireLike)?;
        for (contestant, question) in each(&site.contestants, &[&TCP]) {
            asked.interrupt.check()?;
            ask(contestant, question, "wire-like: ", &mut samples)?;
        }
        site.lay(Underlay::Veth)
    })?;
    weigh(&site, "an agent's memory at the end, MiB", &mut samples);
    site.tear_down()?;
    Ok(samples)
}

/// Everybody with every question.
fn each<'a>(
    whom: &'a [Contestant],
    questions: &'a [&[Question]],
) -> impl Iterator<Item = (&'a Contestant, Question)> {
    let questions = || questions.iter().copied().flatten().copied();
    whom.iter().flat_map(move |contestant| questions().map(move |question| (contestant, question)))
}

fn ask(whom: &Contestant, question: Question, underlay: &str, samples: &mut Samples) -> Result<()> {
    let figures = question.ask(&whom.pair).with_context(|| format!("{} to {question:?}", whom.name))?;
    for (what, figure) in figures {
        samples.add(&whom.name, &format!("{underlay}{what}"), figure);
    }
    Ok(())
}

/// The larger of each contestant's: a manager's, of Skep's. At the end everything has grown that grows.
fn weigh(site: &Site, what: &str, samples: &mut Samples) {
    for contestant in site.contestants.iter().chain(&site.peers) {
        if let Some(mebibytes) = agent_mebibytes(&contestant.pair.agents) {
            samples.add(&contestant.name, what, mebibytes);
        }
    }
}
