//! The network between the hosts: one bridge in a namespace of its own, so that the machine's own is left alone.

use super::host::Host;
use super::layout::{FAR, Lab, OUTSIDE};
use crate::program::run_line;
use anyhow::Result;

pub(super) fn create(lab: &Lab) -> Result<()> {
    let net = lab.underlay_netns();
    run_line(&format!("ip netns add {net}"))?;
    run_line(&format!("ip -n {net} link add underlay type bridge"))?;
    run_line(&format!("ip -n {net} link set underlay up"))?;
    // A switch looks at no packet. Known where br_netfilter is loaded, and then on.
    let settings = "net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0";
    run_line(&format!("ip netns exec {net} sysctl --ignore --quiet --write {settings}"))?;
    Ok(())
}

/// Gives a host its network namespace, its interface and its addresses.
pub(super) fn connect(lab: &Lab, host: &Host) -> Result<()> {
    let (netns, net, port) = (host.netns(), lab.underlay_netns(), host.name());
    run_line(&format!("ip netns add {netns}"))?;
    run_line(&format!("ip -n {netns} link set lo up"))?;
    run_line(&format!("ip -n {netns} link add eth0 type veth peer name {port} netns {net}"))?;
    run_line(&format!("ip -n {net} link set {port} master underlay up"))?;
    run_line(&format!("ip -n {netns} link set eth0 up"))?;
    for address in host.addresses() {
        run_line(&format!("ip -n {netns} addr add {address}/24 dev eth0"))?;
    }
    if host.is_node() {
        run_line(&format!("ip -n {netns} route add default via {OUTSIDE}"))?;
    } else {
        run_line(&format!("ip -n {netns} addr add {FAR}/32 dev lo"))?;
    }
    Ok(())
}

/// Takes the host's end away, and with it the pair.
pub(super) fn disconnect(host: &Host) -> Result<()> {
    let netns = host.netns();
    run_line(&format!("ip -n {netns} link del eth0"))?;
    run_line(&format!("ip netns del {netns}"))?;
    Ok(())
}
