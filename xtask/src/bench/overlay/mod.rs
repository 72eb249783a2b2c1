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
use super::ask::{self, Question};
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
    let mut samples = Samples::default();
    asked.each_round(|| {
        for questions in [TCP.as_slice(), &TCP_BACK, &SMALL] {
            ask_all(&site.contestants, questions, "", asked, &mut samples)?;
        }
        for questions in [TCP.as_slice(), &SMALL] {
            ask_all(&site.peers, questions, "", asked, &mut samples)?;
        }
        site.lay(Underlay::WireLike)?;
        ask_all(&site.contestants, &TCP, "wire-like: ", asked, &mut samples)?;
        site.lay(Underlay::Veth)
    })?;
    weigh(&site, &mut samples)?;
    site.tear_down()?;
    Ok(samples)
}

fn ask_all(
    whom: &[Contestant],
    questions: &[Question],
    underlay: &str,
    asked: &Asked,
    samples: &mut Samples,
) -> Result<()> {
    for contestant in whom {
        for question in questions {
            asked.interrupt.check()?;
            for (what, figure) in question
                .ask(&contestant.pair)
                .with_context(|| format!("{}: {question:?}", contestant.name))?
            {
                samples.add(&contestant.name, &format!("{underlay}{what}"), figure);
            }
        }
    }
    Ok(())
}

/// At the end, when everything has grown that grows.
fn weigh(site: &Site, samples: &mut Samples) -> Result<()> {
    for contestant in site.contestants.iter().chain(&site.peers) {
        if let Some(mebibytes) = ask::agent_mebibytes(&contestant.pair.agents)? {
            samples.add(&contestant.name, "an agent's memory at the end, MiB", mebibytes);
        }
    }
    Ok(())
}
