//! A large cluster as one of its nodes sees it.

use crate::world::*;
use skep_dataplane::ids::PortId;
use skep_dataplane::snapshot::*;
use std::net::Ipv4Addr;

/// Other nodes.
pub(crate) const NODES: usize = 200;
/// One endpoint in so many is of this node, the first of each network among them.
const SHARE: usize = 200;
/// Endpoints begin here in each network's range; VIPs are below.
const FIRST_ENDPOINT: u32 = 0x1000;
/// Of each service.
const BACKENDS: usize = 4;

/// Everything is spread evenly over the networks; places are counted network by network.
#[derive(Clone, Copy)]
pub(crate) struct Estate {
    pub(crate) networks: usize,
    /// Of one network.
    pub(crate) endpoints: usize,
    pub(crate) services: usize,
}

/// Which of how many networks, and which place in it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) network: usize,
    pub(crate) nth: usize,
}

impl Estate {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let networks = (0..self.networks).map(|network| self.network(network)).collect();
        let peers = (1..=NODES).map(|node| peer(HERE + node)).collect();
        Snapshot { generation: 1, networks, reserved: Vec::new(), peers, underlay_mtu: UNDERLAY_MTU }
    }

    fn network(&self, at: usize) -> Network {
        let mut network = network(5000 + at as u32, &format!("10.{}.0.0/16", 16 + at), Policy::Plain);
        let place = |nth| Place { network: at, nth };
        let container =
            |nth| endpoint(place(nth).endpoint(), self.location(place(nth)), EndpointKind::Container);
        network.endpoints = (0..self.endpoints).map(container).collect();
        let backends = |nth| (0..BACKENDS).map(move |backend| (nth * BACKENDS + backend) % self.endpoints);
        let balanced = |nth| service(place(nth).vip(), backends(nth).map(|nth| place(nth).endpoint()));
        network.services = (0..self.services).map(balanced).collect();
        network
    }

    fn location(&self, place: Place) -> Location {
        match place.is_local() {
            true => Location::Local(self.port(place)),
            false => Location::Remote(vtep(HERE + 1 + place.nth % NODES)),
        }
    }

    /// Of a local endpoint.
    pub(crate) fn port(&self, place: Place) -> PortId {
        PortId((place.network * self.endpoints + place.nth) as u32)
    }

    /// The endpoints of this node.
    pub(crate) fn locals(&self) -> impl Iterator<Item = Place> {
        let places =
            (0..self.networks).flat_map(|network| (0..self.endpoints).map(move |nth| Place { network, nth }));
        places.filter(|place| place.is_local())
    }
}

impl Place {
    fn is_local(self) -> bool {
        self.nth.is_multiple_of(SHARE)
    }

    /// The address of the endpoint here.
    pub(crate) fn endpoint(self) -> Ipv4Addr {
        self.address(FIRST_ENDPOINT)
    }

    /// The address of the service here.
    pub(crate) fn vip(self) -> Ipv4Addr {
        self.address(2)
    }

    fn address(self, first: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(
            Ipv4Addr::new(10, 16 + self.network as u8, 0, 0).to_bits() + first + self.nth as u32,
        )
    }
}
