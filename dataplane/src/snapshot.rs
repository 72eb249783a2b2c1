//! What should be true of forwarding: the engine's whole input besides packets. Immutable, swapped whole.
//!
//! A caller fills in [`Snapshot`]'s plain parts and the engine indexes them when it is applied.

use crate::ids::{MacAddr, PortId, Vni};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rises with every published snapshot.
    pub generation: u64,
    pub networks: Vec<Network>,
    /// Ranges no client of the ingress network may claim as its source: overlays, VIPs and gateways.
    pub reserved: Vec<Ipv4Net>,
    /// The peers to watch: each is sent path probes, may send them, and is told of by
    /// [`Output::reachability`](crate::Output::reachability). They need not be part of any network.
    pub vteps: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub vni: Vni,
    pub policy: Policy,
    pub subnet: Ipv4Net,
    /// Answers ARP and ping; routes nowhere.
    pub gateway: Ipv4Addr,
    /// Largest IP packet, in bytes, that fits the underlay once encapsulated.
    pub mtu: u16,
    pub endpoints: Vec<Endpoint>,
    pub services: Vec<Service>,
    /// The network published ports live on: its host ports may carry foreign source addresses.
    pub ingress: bool,
}

/// How frames of a network travel between nodes. A sealed network has no way to be sent plain: the
/// encapsulation a frame gets is chosen by its network's policy alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// RFC 7348, readable by a kernel vxlan device.
    Plain,
}

/// An address of a network and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub mac: MacAddr,
    pub location: Location,
    pub kind: EndpointKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    Local(PortId),
    /// The address of the VTEP that owns it; it receives on the same UDP port as we do.
    Remote(Ipv4Addr),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    Container,
    /// `skep0` of a node: the way between the host's kernel and the ingress network.
    Host,
}

/// A virtual IP and who answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub vip: Ipv4Addr,
    /// In a stable order; round robin follows it.
    pub backends: Vec<Backend>,
    pub ports: ServicePorts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub ip: Ipv4Addr,
    pub state: BackendState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    Active,
    /// Keeps its flows, gets no new ones.
    Draining,
}

/// Which ports of a VIP (and, on the ingress network, of its backends) are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePorts {
    /// Every port, as on Swarm's overlays.
    All,
    /// Published targets only.
    Only(Vec<(L4, u16)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4 {
    Tcp,
    Udp,
}
