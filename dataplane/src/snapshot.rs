//! What should be true of forwarding: the engine's whole input besides packets. Immutable, swapped whole.
//!
//! A caller fills in [`Snapshot`]'s plain parts and the engine indexes them when it is applied.

use crate::ids::{MacAddr, PortId, Vni};
use crate::seal::PublicKey;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rises with every published snapshot.
    pub generation: u64,
    pub networks: Vec<Network>,
    /// Ranges no client of the ingress network may claim as its source: overlays, VIPs and gateways.
    pub reserved: Vec<Ipv4Net>,
    /// The nodes to hold a session with: each is sent path probes in it, and is told of by
    /// [`Output::reachability`](crate::Output::reachability). They need not be part of any network. Who is missing
    /// here has no session, and gets none.
    pub peers: Vec<Peer>,
    /// The MTU in bytes of the interface that has the VTEP's address: no path carries more. Zero: unknown, 1500.
    pub underlay_mtu: u16,
}

/// Another node, as its sessions need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it sends from and receives; it receives on the same UDP port as we do.
    pub vtep: Ipv4Addr,
    /// Who it proves to be.
    pub key: PublicKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub vni: Vni,
    pub policy: Policy,
    pub subnet: Ipv4Net,
    /// Answers ARP and ping; routes nowhere.
    pub gateway: Ipv4Addr,
    /// Largest IP packet, in bytes, that fits the underlay's interface once encapsulated. Paths may carry less.
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
    /// Each frame sealed for one peer, in a session with it.
    Sealed,
}

impl Policy {
    /// What a frame takes on the underlay besides its IP packet, in bytes: outer IPv4 (20), UDP (8) and VXLAN (8)
    /// headers, its Ethernet header (14), and where it is sealed session index and counter (12), shim (4) and tag (16).
    pub const fn overhead(self) -> u16 {
        match self {
            Self::Plain => 20 + 8 + 8 + 14,
            Self::Sealed => Self::Plain.overhead() + 12 + 4 + 16,
        }
    }
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
