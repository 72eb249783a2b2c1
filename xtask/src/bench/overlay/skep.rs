//! Skep's networks, each with a container on either host.

use super::contestant::{Contestant, End};
use crate::lab::Lab;
use anyhow::{Context, Result};

/// A network of a lab's cluster.
pub(super) struct Network {
    pub(super) contestant: &'static str,
    /// Its containers' namespaces are called so as well.
    pub(super) name: &'static str,
    pub(super) is_sealed: bool,
    /// The first three bytes of its addresses.
    pub(super) subnet: &'static str,
}

pub(super) fn connect(lab: &Lab, network: &Network) -> Result<Contestant> {
    let Network { contestant, name, is_sealed, subnet } = network;
    lab.node(1).run(&format!(
        "skep network create --driver overlay --attachable --subnet {subnet}.0/24 --opt encrypted={is_sealed} {name}"
    ))?;
    let mut agents = Vec::new();
    for number in [1, 2] {
        let host = lab.node(number);
        host.run(&format!("ip netns add {name}"))?;
        host.run(&format!("skep attach {name} --netns /run/netns/{name} --ip {subnet}.{}", number + 1))?;
        agents.push(host.daemon_pid()?.context("no skepd runs")?);
    }
    let ends = [1, 2].map(|number| End { host: lab.node(number), netns: Some(*name) });
    Contestant::new((*contestant).to_owned(), ends, format!("{subnet}.3"), agents)
}
