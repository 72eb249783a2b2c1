//! The routing mesh on this host: `skep0`, published ports, and who else wants them.

use super::guard::{self, Guards, Taken};
use super::netlink::Netlink;
use super::netns::Netns;
use super::rules::Rules;
use super::sysctl::{self, Sysctls};
use super::upkeep::{Interface, Seen};
use super::{MeshError, SKEP0, sandbox};
use ipnet::Ipv4Net;
use skep_dataplane::ids::{MacAddr, PortId};
use skep_dataplane::io::{Process, Tap};
use skep_model::service::Protocol;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How often what Skep made is compared with what is there, and a port another program holds is tried
/// again. Twice and a half fit into the ten seconds in which a host is to heal.
pub const RECHECK_PERIOD: Duration = Duration::from_secs(4);

/// Frames `skep0` holds while the packet thread is busy: all mesh traffic of the host comes by it.
const SKEP0_QUEUE: u32 = 4000;

/// All of the mesh this host should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPlan {
    pub skep0: Skep0,
    pub ports: Vec<PublishedPort>,
    /// Ranges no client may claim as its source: overlays, VIPs and gateways.
    pub reserved: Vec<Ipv4Net>,
    /// Where the VTEPs of the other nodes receive.
    pub peers: Vec<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skep0 {
    pub port: PortId,
    /// This node's ingress address with the ingress network's prefix length.
    pub addr: Ipv4Net,
    pub mac: MacAddr,
    pub mtu: u16,
}

/// Traffic to `published` of any local address goes to `vip:target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedPort {
    pub protocol: Protocol,
    pub published: u16,
    pub vip: Ipv4Addr,
    pub target: u16,
}

#[derive(Debug, Default)]
pub struct MeshReport {
    /// Set when `skep0` was made by this call (the first, or after its address or MTU changed): the
    /// engine has to take it as this port.
    pub new_tap: Option<(PortId, Tap)>,
    /// Published ports this node doesn't serve, because another program listens there.
    pub conflicts: Vec<PortConflict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConflict {
    pub protocol: Protocol,
    pub published: u16,
    /// None when no process of this host's process table holds the socket.
    pub holder: Option<Process>,
}

impl fmt::Display for PortConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, published, holder } = self;
        write!(f, "port {published}/{protocol} is in use on this node by ")?;
        match holder {
            Some(Process { name, pid }) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("another program"),
        }?;
        f.write_str("; the other nodes serve it, and this one will as soon as the port is free")
    }
}

/// The mesh as it was last applied.
#[derive(Debug, Default)]
pub(super) struct Mesh {
    /// With the number of its interface: another of that name is none of ours.
    skep0: Option<(Skep0, u32)>,
    /// Waits here for a report, should the step after its making fail.
    new_tap: Option<(PortId, Tap)>,
    ports: Vec<PublishedPort>,
    reserved: Vec<Ipv4Net>,
    peers: Vec<Ipv4Addr>,
    guards: Guards,
    taken: Taken,
}

impl Mesh {
    /// Everything up to the rules: they come next, then [`Self::finish`].
    pub(super) async fn prepare(
        &mut self,
        plan: MeshPlan,
        netns: &Netns,
        netlink: &Netlink,
        sysctls: &mut Sysctls,
    ) -> Result<(), MeshError> {
        if let Some(port) = plan.ports.iter().find(|port| port.protocol == Protocol::Sctp) {
            return Err(MeshError::Sctp { port: port.published });
        }
        let forward = sysctls.forward(netns).await;
        forward.map_err(step("let this host forward (net.ipv4.ip_forward)"))?;
        self.make_skep0(plan.skep0, netns, netlink).await?;
        self.ports = distinct(plan.ports);
        self.reserved = plan.reserved;
        self.peers = plan.peers;
        self.take_ports(netns).await
    }

    async fn make_skep0(&mut self, wanted: Skep0, netns: &Netns, netlink: &Netlink) -> Result<(), MeshError> {
        let link = netlink.link(SKEP0).await.map_err(step("look for skep0"))?;
        if link.is_some_and(|link| self.skep0 == Some((wanted, link.index))) {
            return Ok(());
        }
        self.skep0 = None;
        self.new_tap = None;
        netlink.delete_link_named(SKEP0).await.map_err(step("delete a former skep0"))?;
        let tap = sandbox::open_tap(netns, SKEP0, true).await.map_err(step("make skep0"))?;
        let index = configure(wanted, netns, netlink).await.map_err(step("configure skep0"))?;
        self.skep0 = Some((wanted, index));
        self.new_tap = Some((wanted.port, tap));
        Ok(())
    }

    /// Makes `skep0` what it should be; returns what was changed back.
    pub(super) async fn put_right(
        &mut self,
        seen: &Seen,
        netns: &Netns,
        netlink: &Netlink,
    ) -> Result<Vec<String>, MeshError> {
        let Some((skep0, index)) = self.skep0 else { return Ok(Vec::new()) };
        if seen.link(SKEP0).is_none_or(|link| link.index != index) {
            self.make_skep0(skep0, netns, netlink).await?;
            return Ok(vec![format!("the interface {SKEP0}")]);
        }
        skep0.interface().put_right(seen, netns, netlink).await.map_err(step("put skep0 right"))
    }

    pub(super) fn is_on(&self) -> bool {
        self.skep0.is_some()
    }

    /// Guards what can be had and notes who has the rest.
    pub(super) async fn take_ports(&mut self, netns: &Netns) -> Result<(), MeshError> {
        let taken = self.guards.take(netns, &self.ports).await.map_err(step("hold the published ports"))?;
        let before = std::mem::replace(&mut self.taken, taken);
        for conflict in self.conflicts() {
            if before.get(&(conflict.protocol, conflict.published)) != Some(&conflict.holder) {
                tracing::warn!("{conflict}");
            }
        }
        let wanted = |key: &_| self.ports.iter().any(|port| guard::key(port) == *key);
        for (protocol, port) in before.keys().filter(|key| wanted(key) && !self.taken.contains_key(key)) {
            tracing::info!("port {port}/{protocol} is free again: this node serves it");
        }
        Ok(())
    }

    /// Once the rules are loaded: ports no longer published are given up.
    pub(super) fn finish(&mut self) -> MeshReport {
        self.guards.release_others(&self.ports);
        MeshReport { new_tap: self.new_tap.take(), conflicts: self.conflicts() }
    }

    pub(super) fn conflicts(&self) -> Vec<PortConflict> {
        let conflict = |(&(protocol, published), holder): (&_, &Option<Process>)| PortConflict {
            protocol,
            published,
            holder: holder.clone(),
        };
        self.taken.iter().map(conflict).collect()
    }

    /// What the mesh adds to `rules`.
    pub(super) fn rules(&self, rules: Rules) -> Rules {
        let served = self.ports.iter().filter(|port| !self.taken.contains_key(&guard::key(port)));
        let (ports, reserved, peers) = (served.copied().collect(), self.reserved.clone(), self.peers.clone());
        Rules { ports, reserved, peers, ..rules }
    }
}

/// nft refuses a map with one key twice. The manager gives a port to one service only, but the former and
/// the next owner may both be in what a node desires for a moment.
fn distinct(ports: Vec<PublishedPort>) -> Vec<PublishedPort> {
    let mut owners = BTreeMap::new();
    for port in ports {
        let owner = *owners.entry(guard::key(&port)).or_insert(port);
        if owner != port {
            let PublishedPort { protocol, published, vip, .. } = port;
            tracing::warn!("port {published}/{protocol} goes to {}, so not to {vip} as well", owner.vip);
        }
    }
    owners.into_values().collect()
}

impl Skep0 {
    fn interface(&self) -> Interface {
        let Self { addr, mac, mtu, .. } = *self;
        Interface { name: SKEP0, mac, mtu: mtu.into(), addr, settings: &SKEP0_SETTINGS }
    }
}

/// Answers to loopback clients come in here with a loopback destination. Only on skep0, where nobody but
/// the packet engine sends: elsewhere route_localnet would open 127/8 to the network.
const SKEP0_SETTINGS: [(&str, &str); 2] = [("forwarding", "1"), ("route_localnet", "1")];

async fn configure(skep0: Skep0, netns: &Netns, netlink: &Netlink) -> io::Result<u32> {
    let index = netlink.index_of(SKEP0).await?;
    let settings = || {
        let set =
            |(setting, value): &(&str, &str)| sysctl::write(&format!("ipv4/conf/{SKEP0}/{setting}"), value);
        SKEP0_SETTINGS.iter().try_for_each(set)
    };
    netns.run(settings).await?;
    netlink.add_address(index, skep0.addr).await?;
    netlink.set_up_ethernet(index, skep0.mac, skep0.mtu.into(), SKEP0_QUEUE).await?;
    Ok(index)
}

fn step(what: &'static str) -> impl FnOnce(io::Error) -> MeshError {
    move |source| MeshError::Step { step: what.to_owned(), source }
}
