//! A container's network: its namespace and what is in it.

use super::netns::Netns;
use super::tap::Tap;
use ipnet::Ipv4Net;
use skep_dataplane::ids::{MacAddr, PortId};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

#[derive(Debug)]
pub struct SandboxSpec {
    /// Names the sandbox in errors and logs: the task's id.
    pub id: String,
    pub netns: SandboxNetns,
    pub interfaces: Vec<InterfaceSpec>,
    /// Whether it gets a veth to the egress bridge and a default route. In an existing namespace that
    /// already has a default route, that one is kept and no veth is made.
    pub egress: bool,
    /// Whether sockets for DNS are bound to 127.0.0.11:53 in it.
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
    pub egress: Option<EgressInterface>,
}

/// The container's end of its veth to the egress bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressInterface {
    pub name: String,
    pub addr: Ipv4Net,
    pub gateway: Ipv4Addr,
}
