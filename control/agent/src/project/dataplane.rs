//! Forwarding's input.

use super::{Cluster, Local, SKEP0_PORT, policy};
use skep_dataplane::ids::{MacAddr, Vni};
use skep_dataplane::seal::PublicKey;
use skep_dataplane::snapshot::{
    Backend, BackendState, Endpoint, EndpointKind, L4, Location, Network, Peer, Service, ServicePorts,
    Snapshot,
};
use skep_model::assign::{EndpointAssignment, NetworkAssignment, ServiceAssignment};
use skep_model::service::{PortConfig, Protocol};
use std::net::Ipv4Addr;

#[cfg(test)]
mod tests;

/// The generation is the publisher's to set.
pub(crate) fn snapshot(cluster: &Cluster<'_>, local: &Local) -> Snapshot {
    let networks = cluster.networks.values().filter_map(|network| project(cluster, local, network)).collect();
    let underlay_mtu = u16::try_from(local.underlay_mtu).unwrap_or(u16::MAX);
    Snapshot {
        generation: 0,
        networks,
        reserved: reserved(cluster, local),
        peers: peers(cluster),
        underlay_mtu,
    }
}

/// Every peer has a session and is probed, also one that the manager takes for down: it says when it is back.
fn peers(cluster: &Cluster<'_>) -> Vec<Peer> {
    let known = cluster.peers.values();
    let mut peers: Vec<_> =
        known.map(|peer| Peer { vtep: peer.data_path_addr, key: PublicKey(peer.data_path_key.0) }).collect();
    peers.sort_by_key(|peer| peer.vtep);
    peers
}

/// Overlays (their VIPs and gateways lie within) and the egress bridge, sorted.
fn reserved(cluster: &Cluster<'_>, local: &Local) -> Vec<ipnet::Ipv4Net> {
    let mut reserved: Vec<_> = cluster.networks.values().map(|network| network.subnet).collect();
    reserved.extend(local.gwbridge);
    reserved.sort();
    reserved
}

/// None for a VNI that doesn't fit its 24 bits: no packet could carry it.
fn project(cluster: &Cluster<'_>, local: &Local, network: &NetworkAssignment) -> Option<Network> {
    let reachable = cluster.reachable(local, &network.id);
    let mut endpoints: Vec<_> = reachable
        .iter()
        .map(|(endpoint, location)| located(endpoint.addr, *location, EndpointKind::Container))
        .collect();
    if network.ingress {
        endpoints.extend(hosts(cluster));
    }
    endpoints.sort_by_key(|endpoint| endpoint.ip);
    Some(Network {
        vni: Vni::new(network.vni)?,
        policy: policy(network),
        subnet: network.subnet,
        gateway: network.gateway,
        mtu: local.mtu(policy(network)),
        endpoints,
        services: services(cluster, local, network, &reachable),
        ingress: network.ingress,
    })
}

fn located(ip: Ipv4Addr, location: Location, kind: EndpointKind) -> Endpoint {
    Endpoint { ip, mac: MacAddr::for_ip(ip), location, kind }
}

/// Every node's `skep0`.
fn hosts<'a>(cluster: &'a Cluster<'_>) -> impl Iterator<Item = Endpoint> + 'a {
    let own = cluster.this.and_then(|this| this.ingress_addr);
    let own = own.map(|addr| located(addr.addr(), Location::Local(SKEP0_PORT), EndpointKind::Host));
    let peers = cluster.peers.values().filter_map(|peer| {
        let location = Location::Remote(peer.data_path_addr);
        Some(located(peer.ingress_addr?, location, EndpointKind::Host))
    });
    own.into_iter().chain(peers)
}

fn services(
    cluster: &Cluster<'_>,
    local: &Local,
    network: &NetworkAssignment,
    reachable: &[(&EndpointAssignment, Location)],
) -> Vec<Service> {
    let service = |service: &&ServiceAssignment| {
        let foot = service.networks.iter().find(|foot| foot.network == network.id)?;
        Some(Service {
            vip: foot.vip?,
            backends: backends(cluster, local, service, reachable),
            ports: ports(network, service),
        })
    };
    cluster.services.values().filter_map(service).collect()
}

/// An endpoint that doesn't serve (any more) keeps the connections it has, unless its node is down or silent.
fn backends(
    cluster: &Cluster<'_>,
    local: &Local,
    service: &ServiceAssignment,
    reachable: &[(&EndpointAssignment, Location)],
) -> Vec<Backend> {
    let own =
        reachable.iter().map(|(endpoint, _)| endpoint).filter(|e| e.service.as_ref() == Some(&service.id));
    own.filter(|endpoint| cluster.is_node_up(local, &endpoint.node))
        .map(|endpoint| {
            let state = if endpoint.serving { BackendState::Active } else { BackendState::Draining };
            Backend { ip: endpoint.addr, state }
        })
        .collect()
}

fn ports(network: &NetworkAssignment, service: &ServiceAssignment) -> ServicePorts {
    if !network.ingress {
        return ServicePorts::All;
    }
    let mut targets: Vec<_> =
        service.ports.iter().filter_map(|port| Some((l4(port)?, port.target_port))).collect();
    targets.sort();
    targets.dedup();
    ServicePorts::Only(targets)
}

/// None for SCTP, which the engine doesn't translate; publishing it is refused by the API.
fn l4(port: &PortConfig) -> Option<L4> {
    match port.protocol {
        Protocol::Tcp => Some(L4::Tcp),
        Protocol::Udp => Some(L4::Udp),
        Protocol::Sctp => None,
    }
}
