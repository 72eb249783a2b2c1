//! What Docker's networks are made of: a bridge on each host, a veth for each container, and between hosts a vxlan device.

use crate::lab::Host;
use anyhow::Result;

pub(super) const ETHERNET_MTU: u32 = 1500;
/// What is left of that between hosts.
pub(super) const VXLAN_MTU: u32 = 1450;

/// `br0` on a host.
pub(super) fn bridge(host: &Host) -> Result<()> {
    host.run("ip link add br0 type bridge")?;
    host.run("ip link set br0 up")?;
    Ok(())
}

/// Joins a host's bridge with another's. To be called on both.
pub(super) fn vxlan(host: &Host, peer: &Host) -> Result<()> {
    let (own, other) = (host.address(), peer.address());
    host.run(&format!("ip link add vx0 type vxlan id 42 dstport 14789 local {own} remote {other} dev eth0"))?;
    host.run("ip link set vx0 master br0 up")?;
    Ok(())
}

/// A namespace with an address on the host's bridge.
pub(super) fn container(host: &Host, netns: &str, address: &str, mtu: u32) -> Result<()> {
    for line in [
        format!("ip netns add {netns}"),
        format!("ip link add veth-{netns} type veth peer name eth0 netns {netns}"),
        format!("ip link set veth-{netns} master br0 mtu {mtu} up"),
        format!("ip -n {netns} link set eth0 mtu {mtu} up"),
        format!("ip -n {netns} addr add {address}/24 dev eth0"),
    ] {
        host.run(&line)?;
    }
    Ok(())
}
