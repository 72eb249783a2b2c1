//! [`World`]: what the managers want, one revision of it, and what of it a node is told.

use crate::identity::public;
use ipnet::Ipv4Net;
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::snapshot::{
    Backend, BackendState, Endpoint, EndpointKind, L4, Location, Network, Peer, Policy, Service,
    ServicePorts, Snapshot,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Nodes are numbered from 1.
pub(crate) type Node = usize;

/// Of the underlay, in bytes.
pub(crate) const UNDERLAY_MTU: u16 = 1_500;

/// A network: fixed for a whole run. Two may have the same subnet.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) vni: u32,
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) ingress: bool,
    pub(crate) policy: Policy,
}

impl Net {
    pub(crate) fn is_sealed(&self) -> bool {
        self.policy == Policy::Sealed
    }

    /// Its largest IP packet, in bytes.
    pub(crate) fn mtu(&self) -> u16 {
        UNDERLAY_MTU - self.policy.overhead()
    }
}

/// An address of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) net: usize,
    pub(crate) ip: Ipv4Addr,
}

/// Where an address is. No port number is given twice, so this also tells one holder of an address from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    pub(crate) node: Node,
    pub(crate) port: u32,
    pub(crate) is_host: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Virtual {
    /// In their order, and whether each is draining.
    pub(crate) backends: Vec<(Ipv4Addr, bool)>,
    /// `None`: every port.
    pub(crate) open: Option<Vec<(L4, u16)>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) revision: u64,
    pub(crate) seats: BTreeMap<Name, Seat>,
    pub(crate) services: BTreeMap<Name, Virtual>,
    /// Nodes that are no members any more. Nobody tells them.
    pub(crate) gone: BTreeSet<Node>,
}

impl World {
    /// What a node makes of a revision while it hears nothing of some peers: their backends are out of use.
    pub(crate) fn without(&self, silent: &BTreeSet<Node>) -> Self {
        let mut world = self.clone();
        for (name, service) in &mut world.services {
            service.backends.retain(|(ip, _)| {
                let seat = self.seats.get(&Name { ip: *ip, ..*name });
                !seat.is_some_and(|seat| silent.contains(&seat.node))
            });
        }
        world
    }

    /// The other members, as a node knows them.
    pub(crate) fn peers(&self, node: Node, nodes: usize) -> BTreeSet<Node> {
        (1..=nodes).filter(|peer| *peer != node && !self.gone.contains(peer)).collect()
    }

    /// Whether a node has an endpoint on a network.
    pub(crate) fn is_on(&self, node: Node, net: usize) -> bool {
        self.seats.iter().any(|(name, seat)| name.net == net && seat.node == node)
    }

    /// The snapshot of a node: a network reaches it only while the node has an endpoint on it.
    pub(crate) fn project(&self, nets: &[Net], node: Node, nodes: usize, generation: u64) -> Snapshot {
        let is_there = |net: &usize| self.is_on(node, *net);
        let networks = (0..nets.len()).filter(is_there).map(|net| self.project_net(net, &nets[net], node));
        Snapshot {
            generation,
            networks: networks.collect(),
            reserved: nets.iter().map(|net| net.subnet).collect(),
            peers: self.peers(node, nodes).into_iter().map(peer).collect(),
            underlay_mtu: UNDERLAY_MTU,
        }
    }

    fn project_net(&self, at: usize, net: &Net, node: Node) -> Network {
        let endpoint = |(name, seat): (&Name, &Seat)| Endpoint {
            ip: name.ip,
            mac: MacAddr::for_ip(name.ip),
            location: match seat.node == node {
                true => Location::Local(PortId(seat.port)),
                false => Location::Remote(vtep(seat.node)),
            },
            kind: if seat.is_host { EndpointKind::Host } else { EndpointKind::Container },
        };
        let backend = |(ip, is_draining): &(Ipv4Addr, bool)| Backend {
            ip: *ip,
            state: if *is_draining { BackendState::Draining } else { BackendState::Active },
        };
        let service = |(name, service): (&Name, &Virtual)| Service {
            vip: name.ip,
            backends: service.backends.iter().map(backend).collect(),
            ports: service.open.clone().map_or(ServicePorts::All, ServicePorts::Only),
        };
        Network {
            vni: Vni::new(net.vni).expect("24 bits"),
            policy: net.policy,
            subnet: net.subnet,
            gateway: net.gateway,
            mtu: net.mtu(),
            endpoints: self.seats.iter().filter(|(name, _)| name.net == at).map(endpoint).collect(),
            services: self.services.iter().filter(|(name, _)| name.net == at).map(service).collect(),
            ingress: net.ingress,
        }
    }
}

fn peer(node: Node) -> Peer {
    Peer { vtep: vtep(node), key: public(node) }
}

pub(crate) fn vtep(node: Node) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, node as u8)
}

pub(crate) fn node_of(vtep: Ipv4Addr) -> Node {
    usize::from(vtep.octets()[3])
}
