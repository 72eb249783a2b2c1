//! Published ports.

use crate::state::State;
use skep_model::ServiceId;
use skep_model::service::{PortConfig, Protocol, PublishMode, Service};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Swarm's range for ports the user left open (`portallocator.go`).
pub(crate) const DYNAMIC_PORTS: RangeInclusive<u16> = 30_000..=32_767;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free {protocol} port from {} to {} to publish target port {target}",
    DYNAMIC_PORTS.start(), DYNAMIC_PORTS.end()
)]
pub(crate) struct PortsExhausted {
    protocol: Protocol,
    target: u16,
}

/// Ports published through the mesh, given or only asked for, and by which service.
pub(crate) fn ingress_ports(state: &State) -> BTreeMap<(Protocol, u16), ServiceId> {
    let services = state.services.values();
    services.flat_map(|service| ports_of(service).map(|port| (port, service.id.clone()))).collect()
}

fn ports_of(service: &Service) -> impl Iterator<Item = (Protocol, u16)> {
    let both = service.endpoint.ports.iter().chain(&service.spec.endpoint_spec.ports);
    let published = both.filter(|port| port.publish_mode == PublishMode::Ingress && port.published_port != 0);
    published.map(|port| (port.protocol, port.published_port))
}

/// The service's ports with every open one filled in; a port given before stays.
pub(crate) fn fill(
    service: &Service,
    state: &State,
    taken: &mut BTreeMap<(Protocol, u16), ServiceId>,
) -> Result<Vec<PortConfig>, PortsExhausted> {
    let mut given: Vec<PortConfig> = service.endpoint.ports.clone();
    let mut filled = Vec::with_capacity(service.spec.endpoint_spec.ports.len());
    for port in &service.spec.endpoint_spec.ports {
        let mut port = port.clone();
        if port.published_port == 0 && port.publish_mode == PublishMode::Ingress {
            port.published_port = match given.iter().position(|old| is_answer(old, &port)) {
                Some(index) => given.swap_remove(index).published_port,
                None => next_free(port.protocol, state, taken)
                    .ok_or(PortsExhausted { protocol: port.protocol, target: port.target_port })?,
            };
            taken.insert((port.protocol, port.published_port), service.id.clone());
        }
        filled.push(port);
    }
    Ok(filled)
}

/// Whether `old` is what `open`, whose published port is 0, was given before.
fn is_answer(old: &PortConfig, open: &PortConfig) -> bool {
    let same = PortConfig { published_port: 0, ..old.clone() } == *open;
    same && DYNAMIC_PORTS.contains(&old.published_port)
}

/// Lowest free port that no node's other programs hold.
fn next_free(protocol: Protocol, state: &State, taken: &BTreeMap<(Protocol, u16), ServiceId>) -> Option<u16> {
    let foreign = |port: u16| {
        let mut conflicts = state.nodes.values().flat_map(|node| &node.skep.port_conflicts);
        conflicts.any(|conflict| (conflict.protocol, conflict.port) == (protocol, port))
    };
    DYNAMIC_PORTS.into_iter().find(|port| !taken.contains_key(&(protocol, *port)) && !foreign(*port))
}
