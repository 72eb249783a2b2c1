//! Two ends on two hosts: the kernel's vxlan, and Skep's networks, plain and with each cipher.
//!
//! The kernel's and Skep's ends are containers: network namespaces with an interface of their own. All of them share
//! the same two processors, and so do the programs that ask and answer.
//!
//! Everybody is asked on two underlays. Skep sends segments that the underlay cuts, as the kernel does; a veth cuts
//! nothing, so both get for nothing what a wire makes somebody do. The second underlay has the kernel do it. Nobody is
//! restarted in between: an engine has to find out by itself.
//!
//! With `--peers`, [others' tunnels](peers) are asked what makes sense there, on the first underlay.

mod ask;
mod contestant;
mod kernel;
mod peers;
mod site;
mod skep;
mod underlay;

use super::Asked;
use super::report::Samples;
use anyhow::Result;
use ask::Question;
use contestant::Contestant;
use site::Site;
use underlay::Underlay;

pub(super) fn run(asked: &Asked) -> Result<Samples> {
    if asked.peers {
        peers::prepare()?;
    }
    let site = Site::build(asked)?;
    let mut samples = Samples::default();
    asked.each_round(|| {
        ask(&site.contestants, &Question::ALL, "", asked, &mut samples)?;
        ask(&site.peers, &Question::OF_PEERS, "", asked, &mut samples)?;
        site.lay(Underlay::WireLike)?;
        ask(&site.contestants, &Question::TCP, "wire-like: ", asked, &mut samples)?;
        site.lay(Underlay::Veth)
    })?;
    weigh(&site, &mut samples)?;
    site.tear_down()?;
    Ok(samples)
}

fn ask(
    whom: &[Contestant],
    questions: &[Question],
    underlay: &str,
    asked: &Asked,
    samples: &mut Samples,
) -> Result<()> {
    for contestant in whom {
        for question in questions {
            asked.interrupt.check()?;
            for (what, figure) in question.ask(contestant)? {
                samples.add(&contestant.name, &format!("{underlay}{what}"), figure);
            }
        }
    }
    Ok(())
}

/// At the end, when everything has grown that grows.
fn weigh(site: &Site, samples: &mut Samples) -> Result<()> {
    for contestant in site.contestants.iter().chain(&site.peers) {
        if let Some(mebibytes) = contestant.agent_mebibytes()? {
            samples.add(&contestant.name, "an agent's memory at the end, MiB", mebibytes);
        }
    }
    Ok(())
}
