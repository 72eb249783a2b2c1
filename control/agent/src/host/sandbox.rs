//! A container's network: its namespace and what is in it.

use super::addresses::Lease;
use super::gwbridge::Veth;
use super::netlink::{Netlink, Route, default_route, lookup_rule, unreachable_route};
use super::netns::Netns;
use super::{SandboxError, sysctl};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::route::RouteHeader;
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage, RulePortRange};
use skep_dataplane::ids::{MacAddr, PortId};
use skep_dataplane::io::{Tap, TapOptions};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Frames an interface's queue holds while the packet thread is busy. The driver's own 500 overflows on
/// one burst of small frames within a scheduling round.
const TAP_QUEUE: u32 = 1000;
/// Where a container asks for names, as in Docker.
const DNS_ADDR: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
const LOOPBACK: &str = "lo";
/// Routing table of a task's answers to the mesh.
const INGRESS_TABLE: u8 = 100;
/// Highest number tried for an interface name.
const LAST_INTERFACE: u32 = 255;

#[derive(Debug)]
pub struct SandboxSpec {
    /// Names the sandbox in errors and logs: the task's id.
    pub id: String,
    pub netns: SandboxNetns,
    pub interfaces: Vec<InterfaceSpec>,
    /// Whether it gets a veth to the egress bridge and a default route. In an existing namespace that
    /// already has a default route, that one is kept and no veth is made.
    pub egress: bool,
    /// Whether sockets for DNS are bound to 127.0.0.11:53 in it; an error if somebody has.
    pub dns: bool,
}

#[derive(Debug)]
pub enum SandboxNetns {
    New,
    /// Somebody else's: it outlives the sandbox, and only what was added to it is removed.
    Existing(Netns),
}

/// One interface on an overlay network: a TAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// `eth0` and so on. Where an existing namespace has that name already, the next free number is used.
    pub name: String,
    pub port: PortId,
    pub addr: Ipv4Net,
    pub mac: MacAddr,
    pub mtu: u16,
    /// Whether the container may hand over super-frames and unfinished checksums.
    pub offloads: bool,
    /// Set on the interface to the ingress network.
    pub ingress: Option<IngressRouting>,
}

/// Answers to mesh clients leave by the interface the question came in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressRouting {
    pub gateway: Ipv4Addr,
    /// Published UDP *target* ports: servers bound to the wildcard address have to answer from the
    /// ingress address too.
    pub udp_target_ports: Vec<u16>,
}

/// A container's network. It lives until it is given to [`Host::remove_sandbox`](super::Host::remove_sandbox).
#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    pub netns: Netns,
    /// For the engine; take them out with [`std::mem::take`].
    pub taps: Vec<(PortId, Tap)>,
    /// The names the interfaces really got, in the order of the spec.
    pub interfaces: Vec<(PortId, String)>,
    /// Non-blocking sockets bound to 127.0.0.11:53 in the namespace.
    pub dns: Option<(UdpSocket, TcpListener)>,
    veth: Option<Veth>,
    /// Set for somebody else's namespace, which doesn't end with the sandbox.
    outlived: bool,
    /// Set where the loopback interface was down before.
    raised_loopback: bool,
    rules: Vec<RuleMessage>,
    /// Overlays whose packets go nowhere where they can't go to the overlay.
    shut: BTreeSet<Ipv4Net>,
}

/// The container's end of its veth to the egress bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressInterface {
    pub name: String,
    pub addr: Ipv4Net,
    pub gateway: Ipv4Addr,
}

/// What of the host a sandbox is connected to.
pub(super) struct Outside<'a> {
    pub(super) netns: &'a Netns,
    pub(super) netlink: &'a Netlink,
    /// An address on the egress bridge and the MTU there, if the sandbox wants egress.
    pub(super) egress: Option<(Lease, u32)>,
}

impl Sandbox {
    pub(super) fn new(id: String, netns: SandboxNetns) -> Result<Self, SandboxError> {
        let outlived = matches!(netns, SandboxNetns::Existing(_));
        let netns = match netns {
            SandboxNetns::Existing(netns) => netns,
            SandboxNetns::New => Netns::anonymous().map_err(step(&id, "make a network namespace"))?,
        };
        let (taps, interfaces, rules, shut) = Default::default();
        Ok(Self {
            id,
            netns,
            taps,
            interfaces,
            dns: None,
            veth: None,
            outlived,
            raised_loopback: false,
            rules,
            shut,
        })
    }

    /// None if egress wasn't asked for, or the namespace has a default route of its own.
    pub fn egress(&self) -> Option<&EgressInterface> {
        self.veth.as_ref().map(|veth| &veth.inside)
    }

    /// Fills the namespace. On an error, what was made so far is in `self` to be removed.
    pub(super) async fn fill(
        &mut self,
        interfaces: &[InterfaceSpec],
        outside: Outside<'_>,
        dns: bool,
    ) -> Result<(), SandboxError> {
        let id = self.id.clone();
        let step = |what| step(&id, what);
        let inside = Netlink::in_netns(&self.netns).await.map_err(step("open netlink in the namespace"))?;
        let links = inside.links().await.map_err(step("list the namespace's interfaces"))?;
        let mut names: BTreeSet<String> = links.into_iter().map(|link| link.name).collect();
        self.raise_loopback(&inside).await.map_err(step("bring up the loopback interface"))?;

        for spec in interfaces {
            self.add_interface(spec, &inside, &mut names).await?;
        }
        let routes = inside.routes().await.map_err(step("list the namespace's routes"))?;
        let has_default = routes.iter().any(Route::is_default);
        if let Some((lease, mtu)) = outside.egress.filter(|_| !has_default) {
            let name = self.free_name("eth0", &names)?;
            let (host, container) = ((outside.netns, outside.netlink), (&self.netns, &inside));
            let veth = Veth::create(host, container, &name, lease, mtu).await;
            self.veth = Some(veth.map_err(step("connect the egress bridge"))?);
        }
        if dns {
            self.dns = Some(self.netns.run(bind_dns).await.map_err(step("bind 127.0.0.11:53 for DNS"))?);
        }
        Ok(())
    }

    /// Names are asked on it.
    async fn raise_loopback(&mut self, inside: &Netlink) -> io::Result<()> {
        if let Some(lo) = inside.link(LOOPBACK).await?.filter(|lo| !lo.up) {
            inside.set_up(lo.index).await?;
            self.raised_loopback = true;
        }
        Ok(())
    }

    async fn add_interface(
        &mut self,
        spec: &InterfaceSpec,
        inside: &Netlink,
        names: &mut BTreeSet<String>,
    ) -> Result<(), SandboxError> {
        let shut = self.shut_default_route(spec.addr.trunc(), inside).await;
        shut.map_err(step(&self.id, "keep an overlay's packets from the default route"))?;
        let name = self.free_name(&spec.name, names)?;
        let tap = open_tap(&self.netns, &name, spec.offloads).await.map_err(step(&self.id, "make a TAP"))?;
        self.taps.push((spec.port, tap));
        self.interfaces.push((spec.port, name.clone()));
        let made = configure_tap(inside, &name, spec).await;
        let index = made.map_err(step(&self.id, "configure an overlay interface"))?;
        if let Some(ingress) = &spec.ingress {
            let routed = self.route_ingress(inside, index, spec.addr.addr(), ingress).await;
            routed.map_err(step(&self.id, "route answers to the mesh"))?;
        }
        names.insert(name);
        Ok(())
    }

    /// An interface ends with its daemon, or where a container leaves the network. What is said to the overlay then must
    /// not leave by the default route, where nothing seals it.
    async fn shut_default_route(&mut self, subnet: Ipv4Net, inside: &Netlink) -> io::Result<()> {
        match inside.add_route(unreachable_route(subnet)).await {
            // Left by a daemon that was killed, or by a sandbox before.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => other?,
        }
        self.shut.insert(subnet);
        Ok(())
    }

    /// Answers to mesh clients leave by the ingress interface, everything else as without it:
    /// ```text
    /// 97: from ADDR lookup 100            answers of TCP, and of UDP servers bound to the address
    /// 98: lookup main, no default route   between tasks on connected subnets directly
    /// 99: udp sport PORT lookup 100       UDP servers bound to the wildcard address
    /// ```
    /// 97 has to come before 98, or a client in a connected subnet is answered past the mesh. 99 works
    /// because the route look-up of an unbound UDP socket carries its port, and the route its source.
    async fn route_ingress(
        &mut self,
        inside: &Netlink,
        index: u32,
        addr: Ipv4Addr,
        ingress: &IngressRouting,
    ) -> io::Result<()> {
        inside.add_route(default_route(ingress.gateway, index, Some(addr), INGRESS_TABLE.into())).await?;
        let main_without_default = vec![RuleAttribute::SuppressPrefixLen(0)];
        let mut rules = vec![
            lookup_rule(97, INGRESS_TABLE, vec![RuleAttribute::Source(addr.into())]),
            lookup_rule(98, RouteHeader::RT_TABLE_MAIN, main_without_default),
        ];
        rules.extend(ingress.udp_target_ports.iter().map(|&port| {
            let from_port = RuleAttribute::SourcePortRange(RulePortRange { start: port, end: port });
            lookup_rule(99, INGRESS_TABLE, vec![RuleAttribute::IpProtocol(IpProtocol::Udp), from_port])
        }));
        for rule in rules {
            inside.add_rule(rule.clone()).await?;
            self.rules.push(rule);
        }
        Ok(())
    }

    /// What the namespace as a whole was given stays in it as long as another sandbox, `heir`, does.
    pub fn bequeath(&mut self, heir: &mut Self) {
        heir.veth = heir.veth.take().or_else(|| self.veth.take());
        heir.raised_loopback |= std::mem::take(&mut self.raised_loopback);
        heir.shut.append(&mut self.shut);
    }

    /// `wanted` or the next number after it that is free.
    fn free_name(&self, wanted: &str, taken: &BTreeSet<String>) -> Result<String, SandboxError> {
        let stem = wanted.trim_end_matches(|c: char| c.is_ascii_digit());
        let first: u32 = wanted[stem.len()..].parse().unwrap_or(0);
        let candidates = std::iter::once(wanted.to_owned())
            .chain((first..=LAST_INTERFACE).map(|number| format!("{stem}{number}")));
        let free = candidates.into_iter().find(|name| !taken.contains(name));
        free.ok_or_else(|| SandboxError::NoInterfaceName { id: self.id.clone() })
    }

    /// Takes down what outlives the handles. Collects errors.
    pub(super) async fn remove(mut self, host: &Netlink) -> Vec<String> {
        let mut errors = Vec::new();
        if let Some(veth) = self.veth.take()
            && let Err(error) = host.delete_link_named(&veth.host_side).await
        {
            errors.push(format!("cannot delete the interface {} of {}: {error}", veth.host_side, self.id));
        }
        self.taps.clear();
        if self.outlived
            && let Err(error) = self.clear_namespace().await
        {
            errors.push(format!("cannot clear the namespace of {}: {error}", self.id));
        }
        errors
    }

    async fn clear_namespace(&mut self) -> io::Result<()> {
        let inside = Netlink::in_netns(&self.netns).await?;
        for rule in self.rules.drain(..) {
            inside.delete_rule(rule).await?;
        }
        for (_, name) in self.interfaces.drain(..) {
            inside.delete_link_named(&name).await?;
        }
        for subnet in std::mem::take(&mut self.shut) {
            match inside.delete_route(unreachable_route(subnet)).await {
                // Somebody has deleted it already.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        if self.raised_loopback {
            inside.set_down(inside.index_of(LOOPBACK).await?).await?;
        }
        Ok(())
    }
}

/// A TAP of that name in `netns`, without IPv6, which the overlays don't carry.
pub(super) async fn open_tap(netns: &Netns, name: &str, offloads: bool) -> io::Result<Tap> {
    let options = TapOptions { name: name.to_owned(), offloads };
    let open = move || {
        let tap = Tap::open(&options).map_err(io::Error::other)?;
        sysctl::disable_ipv6(&options.name)?;
        Ok(tap)
    };
    netns.run(open).await
}

async fn configure_tap(inside: &Netlink, name: &str, spec: &InterfaceSpec) -> io::Result<u32> {
    let index = inside.index_of(name).await?;
    inside.add_address(index, spec.addr).await?;
    inside.set_up_ethernet(index, spec.mac, spec.mtu.into(), TAP_QUEUE).await?;
    Ok(index)
}

fn bind_dns() -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind(DNS_ADDR)?;
    let tcp = TcpListener::bind(DNS_ADDR)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

fn step(id: &str, what: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Step { id: id.to_owned(), step: what.to_owned(), source }
}
