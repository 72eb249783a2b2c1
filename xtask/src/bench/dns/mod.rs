//! Local names: Skep's resolver in containers, against daemons that serve the same names from files of theirs.
//!
//! What makes it comparable: all run on one host, each is asked at 127.0.0.11 port 53 over a namespace's own loopback,
//! by the same program, the same questions, and none has anybody to forward to or a log to write. What does not favour
//! Skep: the others get all questions at one socket, Skep at one in each container, as it limits each container to
//! 20,000 questions a second; and what `skepd` does besides DNS counts as its.
//! aardvark-dns of Debian 12 answers no reverse look-ups and is asked none.

mod ask;
mod names;
mod others;
mod site;

use super::Asked;
use super::report::Samples;
use crate::interrupt::Interrupt;
use crate::packages;
use anyhow::{Context, Result};
use site::Site;

const PROGRAMS: &[(&str, &str)] = &[
    ("dnsperf", "dnsperf"),
    ("dnsmasq", "dnsmasq-base"),
    ("unbound", "unbound"),
    (others::AARDVARK, "aardvark-dns"),
];

pub(super) fn run(asked: &Asked) -> Result<Samples> {
    packages::ensure_others(PROGRAMS)?;
    let mut site = Site::new()?;
    let samples = measure(&mut site, asked);
    let cleared = site.tear_down();
    // The first error says more than one of clearing up.
    let samples = samples?;
    cleared?;
    Ok(samples)
}

fn measure(site: &mut Site, asked: &Asked) -> Result<Samples> {
    site.build(&asked.interrupt)?;
    check(site, &asked.interrupt)?;
    let baselines: Vec<_> = ["dnsmasq", "unbound"].iter().filter_map(|&kind| site.name_of(kind)).collect();
    let mut samples = Samples::against(&baselines);
    asked.each_round(|| {
        for contestant in site.contestants() {
            for question in [ask::at_ease, ask::flood, ask::flood_from_many] {
                asked.interrupt.check()?;
                let figures = question(site, contestant)
                    .with_context(|| format!("{} did not do as it should", contestant.name))?;
                for (what, figure) in figures {
                    samples.add(&contestant.name, what, figure);
                }
            }
        }
        Ok(())
    })?;
    Ok(samples)
}

/// Each must give the right answers, before it matters how fast.
fn check(site: &Site, interrupt: &Interrupt) -> Result<()> {
    for contestant in site.contestants() {
        interrupt.check()?;
        ask::check(site, contestant).with_context(|| format!("{} answers wrongly", contestant.name))?;
    }
    Ok(())
}
