//! Skep's networks between two hosts.

use super::site::Contestant;
use crate::bench::ask::{self, Pair};
use crate::interrupt::Interrupt;
use crate::lab::Lab;
use anyhow::Result;

/// A network of a lab's cluster.
pub(super) struct Network {
    pub(super) contestant: &'static str,
    /// Its containers' namespaces are called so as well.
    pub(super) name: &'static str,
    pub(super) is_sealed: bool,
    /// The first three bytes of its addresses.
    pub(super) subnet: &'static str,
}

pub(super) fn connect(lab: &Lab, network: &Network, interrupt: &Interrupt) -> Result<Contestant> {
    let Network { contestant, name, is_sealed, subnet } = network;
    let hosts = [lab.node(1), lab.node(2)];
    hosts[0].run(&format!(
        "skep network create --driver overlay --attachable --subnet {subnet}.0/24 --opt encrypted={is_sealed} {name}"
    ))?;
    for (host, address) in hosts.iter().zip(2..) {
        host.run(&format!("ip netns add {name}"))?;
        host.run(&format!("skep attach {name} --netns /run/netns/{name} --ip {subnet}.{address}"))?;
    }
    let (server, agents) = (format!("{subnet}.3"), ask::skepds(&hosts)?);
    ask::start_servers(&hosts[1], name, &server, interrupt)?;
    let pair = Pair { host: lab.node(1), netns: (*name).to_owned(), server, agents };
    Ok(Contestant { name: (*contestant).to_owned(), pair })
}
