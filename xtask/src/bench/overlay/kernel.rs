//! The kernel's vxlan: what Docker's overlay is made of, without its service mesh.

use super::contestant::{Contestant, End};
use crate::lab::Lab;
use anyhow::Result;

const NETNS: &str = "kernel";

/// On each host a veth pair from a container into a bridge that a vxlan device is in.
pub(super) fn connect(lab: &Lab) -> Result<Contestant> {
    for (number, peer) in [(1, 2), (2, 1)] {
        let (host, peer) = (lab.node(number), lab.node(peer));
        let (own, other) = (host.address(), peer.address());
        for line in [
            // VXLAN's own port is Skep's in this lab.
            format!("ip link add vx0 type vxlan id 42 dstport 14789 local {own} remote {other} dev eth0"),
            "ip link add br0 type bridge".to_owned(),
            "ip link set vx0 master br0 up".to_owned(),
            "ip link set br0 up".to_owned(),
            format!("ip netns add {NETNS}"),
            format!("ip link add kv0 type veth peer name eth0 netns {NETNS}"),
            "ip link set kv0 master br0 mtu 1450 up".to_owned(),
            format!("ip -n {NETNS} link set eth0 mtu 1450 up"),
            format!("ip -n {NETNS} addr add 10.77.0.{number}/24 dev eth0"),
        ] {
            host.run(&line)?;
        }
    }
    let ends = [1, 2].map(|number| End { host: lab.node(number), netns: Some(NETNS) });
    Contestant::new("kernel vxlan".to_owned(), ends, "10.77.0.2".to_owned(), Vec::new())
}
