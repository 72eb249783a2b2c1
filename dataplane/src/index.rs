//! [`Index`]: a snapshot's lookup tables, built once when it is applied.
//!
//! Where a snapshot contradicts itself (two endpoints with one address), the first one counts.

use crate::hash::{Map, Set};
use crate::ids::{MacAddr, PortId, Vni};
use crate::snapshot::{
    Backend, BackendState, Endpoint, EndpointKind, L4, Location, Network, Policy, Service, ServicePorts,
    Snapshot,
};
use crate::tunnel::Way;
use ipnet::Ipv4Net;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;
use std::sync::Arc;

#[derive(Default)]
pub(crate) struct Index {
    snapshot: Arc<Snapshot>,
    networks: Vec<NetworkIndex>,
    by_vni: Map<u32, usize>,
    seats: Map<u32, Seat>,
    ports: Vec<PortId>,
    reserved: Vec<Ipv4Net>,
}

/// Which endpoint of which network is on a port.
#[derive(Clone, Copy)]
pub(crate) struct Seat {
    /// The port's place among the ports.
    pub(crate) at: usize,
    network: usize,
    endpoint: usize,
}

/// What an address or a MAC of a network stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Endpoint(usize),
    Vip(usize),
    Gateway,
}

pub(crate) struct NetworkIndex {
    pub(crate) vni: Vni,
    pub(crate) policy: Policy,
    pub(crate) way: Way,
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) gateway_mac: MacAddr,
    /// Largest IP packet in bytes.
    pub(crate) mtu: usize,
    pub(crate) ingress: bool,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) services: Vec<ServiceIndex>,
    by_ip: Map<Ipv4Addr, Target>,
    by_mac: Map<MacAddr, Target>,
    vteps: Set<Ipv4Addr>,
    /// The services an address is a backend of.
    services_of: Map<Ipv4Addr, Vec<usize>>,
    /// This node's host endpoint.
    host: Option<usize>,
    /// The host endpoint of each VTEP.
    hosts: Map<Ipv4Addr, usize>,
}

pub(crate) struct ServiceIndex {
    pub(crate) vip: Ipv4Addr,
    /// Where the service's round-robin pointer is, over all networks.
    pub(crate) pointer: usize,
    /// Backends that take new flows, in the snapshot's order.
    pub(crate) active: Vec<Ipv4Addr>,
    ports: ServicePorts,
}

impl Index {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        let mut index =
            Self { reserved: snapshot.reserved.clone(), snapshot: snapshot.clone(), ..Self::default() };
        let mut pointers = 0;
        for network in &snapshot.networks {
            let at = index.networks.len();
            index.by_vni.entry(network.vni.as_u32()).or_insert(at);
            index.networks.push(NetworkIndex::new(network, &mut pointers));
            index.seat_ports(at, network);
        }
        index.ports.sort_unstable();
        for (at, port) in index.ports.iter().enumerate() {
            if let Some(seat) = index.seats.get_mut(&port.0) {
                seat.at = at;
            }
        }
        index
    }

    fn seat_ports(&mut self, at: usize, network: &Network) {
        for (endpoint, e) in network.endpoints.iter().enumerate() {
            let Location::Local(port) = e.location else { continue };
            if let Entry::Vacant(seat) = self.seats.entry(port.0) {
                seat.insert(Seat { at: 0, network: at, endpoint });
                self.ports.push(port);
            }
        }
    }

    pub(crate) fn seat(&self, port: PortId) -> Option<Seat> {
        self.seats.get(&port.0).copied()
    }

    pub(crate) fn seated(&self, seat: Seat) -> (&NetworkIndex, &Endpoint) {
        let network = &self.networks[seat.network];
        (network, &network.endpoints[seat.endpoint])
    }

    /// In the order of their ids.
    pub(crate) fn ports(&self) -> &[PortId] {
        &self.ports
    }

    pub(crate) fn network(&self, vni: u32) -> Option<&NetworkIndex> {
        self.by_vni.get(&vni).map(|at| &self.networks[*at])
    }

    /// What it was made of.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn vnis(&self) -> impl Iterator<Item = u32> {
        self.by_vni.keys().copied()
    }

    /// A network as the snapshot has it.
    pub(crate) fn specified(&self, vni: u32) -> Option<&Network> {
        self.by_vni.get(&vni).map(|at| &self.snapshot.networks[*at])
    }

    /// All services with their networks' VNIs, in the order of their pointers.
    pub(crate) fn services(&self) -> impl Iterator<Item = (u32, &ServiceIndex)> {
        let of = |network: &'_ NetworkIndex| network.vni.as_u32();
        self.networks.iter().flat_map(move |network| network.services.iter().map(move |s| (of(network), s)))
    }

    /// Whether an address of a network is an endpoint that was in the same place under `old`. In another place it is
    /// another container: ports are not reused, and containers do not move.
    pub(crate) fn is_where_it_was(&self, old: &Self, vni: u32, ip: Ipv4Addr) -> bool {
        let place = |index: &Self| Some(index.network(vni)?.endpoint(ip)?.location);
        place(self).is_some_and(|here| place(old) == Some(here))
    }

    pub(crate) fn is_reserved(&self, ip: Ipv4Addr) -> bool {
        self.reserved.iter().any(|range| range.contains(&ip))
    }
}

impl NetworkIndex {
    fn new(network: &Network, pointers: &mut usize) -> Self {
        let mut index = Self {
            vni: network.vni,
            policy: network.policy,
            way: Way::of(network.vni, network.policy),
            subnet: network.subnet,
            gateway: network.gateway,
            gateway_mac: MacAddr::for_ip(network.gateway),
            mtu: usize::from(network.mtu),
            ingress: network.ingress,
            endpoints: network.endpoints.clone(),
            services: Vec::new(),
            by_ip: Map::default(),
            by_mac: Map::default(),
            vteps: Set::default(),
            services_of: Map::default(),
            host: None,
            hosts: Map::default(),
        };
        index.enter(network.gateway, index.gateway_mac, Target::Gateway);
        for (at, endpoint) in network.endpoints.iter().enumerate() {
            index.add_endpoint(at, endpoint);
        }
        for service in &network.services {
            index.add_service(service, *pointers);
            *pointers += 1;
        }
        index
    }

    fn enter(&mut self, ip: Ipv4Addr, mac: MacAddr, target: Target) {
        self.by_ip.entry(ip).or_insert(target);
        self.by_mac.entry(mac).or_insert(target);
    }

    fn add_endpoint(&mut self, at: usize, endpoint: &Endpoint) {
        self.enter(endpoint.ip, endpoint.mac, Target::Endpoint(at));
        let is_host = endpoint.kind == EndpointKind::Host;
        match endpoint.location {
            Location::Local(_) if is_host => {
                self.host.get_or_insert(at);
            }
            Location::Local(_) => {}
            Location::Remote(vtep) => {
                self.vteps.insert(vtep);
                if is_host {
                    self.hosts.entry(vtep).or_insert(at);
                }
            }
        }
    }

    fn add_service(&mut self, service: &Service, pointer: usize) {
        let at = self.services.len();
        self.enter(service.vip, MacAddr::for_ip(service.vip), Target::Vip(at));
        for backend in &service.backends {
            let services = self.services_of.entry(backend.ip).or_default();
            if services.last() != Some(&at) {
                services.push(at);
            }
        }
        // A backend that is nowhere yet would swallow the flows it is given.
        let is_ready = |b: &&Backend| b.state == BackendState::Active && self.endpoint(b.ip).is_some();
        let active = service.backends.iter().filter(is_ready).map(|b| b.ip).collect();
        self.services.push(ServiceIndex { vip: service.vip, pointer, active, ports: service.ports.clone() });
    }

    pub(crate) fn by_ip(&self, ip: Ipv4Addr) -> Option<Target> {
        self.by_ip.get(&ip).copied()
    }

    pub(crate) fn by_mac(&self, mac: MacAddr) -> Option<Target> {
        self.by_mac.get(&mac).copied()
    }

    pub(crate) fn endpoint(&self, ip: Ipv4Addr) -> Option<&Endpoint> {
        match self.by_ip(ip)? {
            Target::Endpoint(at) => Some(&self.endpoints[at]),
            Target::Vip(_) | Target::Gateway => None,
        }
    }

    pub(crate) fn service(&self, vip: Ipv4Addr) -> Option<&ServiceIndex> {
        match self.by_ip(vip)? {
            Target::Vip(at) => Some(&self.services[at]),
            Target::Endpoint(_) | Target::Gateway => None,
        }
    }

    pub(crate) fn has_vtep(&self, vtep: Ipv4Addr) -> bool {
        self.vteps.contains(&vtep)
    }

    pub(crate) fn is_backend(&self, ip: Ipv4Addr) -> bool {
        self.services_of.contains_key(&ip)
    }

    /// The services `ip` is a backend of, active or draining.
    pub(crate) fn services_of(&self, ip: Ipv4Addr) -> impl Iterator<Item = &ServiceIndex> {
        self.services_of.get(&ip).into_iter().flatten().map(|at| &self.services[*at])
    }

    /// The host endpoint that foreign addresses are behind: this node's, or the one of the VTEP `via`.
    pub(crate) fn host(&self, via: Option<Ipv4Addr>) -> Option<&Endpoint> {
        let at = match via {
            None => self.host?,
            Some(vtep) => *self.hosts.get(&vtep)?,
        };
        Some(&self.endpoints[at])
    }
}

impl ServiceIndex {
    pub(crate) fn is_open(&self, port: Option<(L4, u16)>) -> bool {
        match &self.ports {
            ServicePorts::All => true,
            ServicePorts::Only(open) => port.is_none_or(|port| open.contains(&port)),
        }
    }

    /// Whether the service names its ports: then a ping is no part of what it publishes.
    pub(crate) fn names_ports(&self) -> bool {
        matches!(self.ports, ServicePorts::Only(_))
    }
}
