//! The kernel's vxlan between two hosts.

use super::site::Contestant;
use crate::bench::ask::{self, Pair};
use crate::bench::kernel;
use crate::interrupt::Interrupt;
use crate::lab::Lab;
use anyhow::Result;

const NETNS: &str = "kernel";

/// Whom all others are compared with.
pub(super) const NAME: &str = "kernel vxlan";

pub(super) fn connect(lab: &Lab, interrupt: &Interrupt) -> Result<Contestant> {
    for (number, peer) in [(1, 2), (2, 1)] {
        let (host, peer) = (lab.node(number), lab.node(peer));
        kernel::bridge(&host)?;
        kernel::vxlan(&host, &peer)?;
        kernel::container(&host, NETNS, &format!("10.77.0.{number}"), kernel::VXLAN_MTU)?;
    }
    let server = "10.77.0.2".to_owned();
    ask::start_servers(&lab.node(2), NETNS, &server, interrupt)?;
    let pair = Pair { host: lab.node(1), netns: NETNS.to_owned(), server, agents: Vec::new() };
    Ok(Contestant { name: NAME.to_owned(), pair })
}
