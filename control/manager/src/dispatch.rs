//! The state as one node has to know it. Pure: State in, assignments out.
//!
//! A node *carries* a network while a task of its own has an endpoint there; every node carries
//! ingress. It learns the endpoints and services of the networks it carries, and nothing of others.

pub(crate) mod coverage;
pub(crate) mod drain;
#[cfg(test)]
mod tests;

use crate::state::State;
use ipnet::Ipv4Net;
use skep_model::assign::{
    Assignment, EndpointAssignment, Key, NetworkAssignment, Peer, ServiceAssignment, ServiceNetwork,
    TaskAssignment, ThisNode,
};
use skep_model::network::Network;
use skep_model::node::{Node, NodeState};
use skep_model::service::{EndpointMode, NetworkAttachmentConfig, PortConfig, PublishMode, Service};
use skep_model::task::{Task, TaskState};
use skep_model::{NetworkId, NodeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

/// Everything `node` has to make true. Empty for a node that is not a member.
pub fn assignments(state: &State, node: &NodeId) -> BTreeMap<Key, Assignment> {
    let Some(this) = state.nodes.get(node) else { return BTreeMap::new() };
    let carried = Carried::of(state, node);
    let all = [Assignment::Node(this_node(this, carried.ingress))]
        .into_iter()
        .chain(peers(state, node))
        .chain(networks(state, &carried))
        .chain(endpoints(state, &carried))
        .chain(services(state, &carried))
        .chain(tasks(state, node));
    all.map(|assignment| (assignment.key(), assignment)).collect()
}

/// The networks a node has a foot on.
struct Carried<'a> {
    networks: BTreeSet<&'a NetworkId>,
    ingress: Option<&'a Network>,
}

impl<'a> Carried<'a> {
    fn of(state: &'a State, node: &NodeId) -> Self {
        let ingress = state.networks.values().find(|network| network.spec.ingress);
        let own = state.tasks.values().filter(|task| task.node_id == *node && is_placed(task));
        let mut networks: BTreeSet<_> = own.flat_map(|task| &task.attachments).map(|a| &a.network).collect();
        networks.extend(ingress.map(|ingress| &ingress.id));
        Self { networks, ingress }
    }
}

/// Whether the task has a node and all its addresses, and has not ended: it may use its endpoints.
fn is_placed(task: &Task) -> bool {
    task.is_live()
        && task.status.state >= TaskState::Assigned
        && task.attachments.len() >= task.spec.networks.len()
}

fn this_node(node: &Node, ingress: Option<&Network>) -> ThisNode {
    let prefix = ingress.and_then(|network| network.allocation).map(|a| a.subnet.prefix_len());
    let ingress_addr = node.skep.ingress_addr.zip(prefix);
    ThisNode {
        id: node.id.clone(),
        availability: node.spec.availability,
        ingress_addr: ingress_addr.and_then(|(addr, prefix)| Ipv4Net::new(addr, prefix).ok()),
    }
}

/// All other nodes: they share ingress. One that never connected has no VTEP to send to, and a VTEP is one node's.
fn peers<'a>(state: &'a State, node: &'a NodeId) -> impl Iterator<Item = Assignment> + 'a {
    let owners = vtep_owners(state);
    let others = state.nodes.values().filter(move |other| other.id != *node);
    let owns = move |other: &&Node| {
        other.skep.data_path_addr.is_some_and(|addr| owners.get(&addr).is_some_and(|id| **id == other.id))
    };
    others.filter(owns).filter_map(|other| {
        let peer = Peer {
            id: other.id.clone(),
            hostname: other.description.hostname.clone(),
            data_path_addr: other.skep.data_path_addr?,
            data_path_key: other.skep.data_path_key?,
            ingress_addr: other.skep.ingress_addr,
            up: is_up(other),
        };
        Some(Assignment::Peer(peer))
    })
}

/// Whose key is to be expected at a VTEP. Where a host has left and joined again, its nodes that are down give way to
/// the one that is up, and else to the youngest. Of several that are up the eldest stays: nobody takes over the
/// address of a live node by naming it.
fn vtep_owners(state: &State) -> HashMap<Ipv4Addr, &NodeId> {
    let mut owners: HashMap<Ipv4Addr, &Node> = HashMap::new();
    for node in state.nodes.values() {
        let Some(addr) = node.skep.data_path_addr else { continue };
        let owner = owners.entry(addr).or_insert(node);
        let is_younger = node.meta.created_at > owner.meta.created_at;
        let gives_way = match (is_up(owner), is_up(node)) {
            (false, up) => up || is_younger,
            (true, true) => node.meta.created_at < owner.meta.created_at,
            (true, false) => false,
        };
        if gives_way {
            *owner = node;
        }
    }
    owners.into_iter().map(|(addr, node)| (addr, &node.id)).collect()
}

fn is_up(node: &Node) -> bool {
    node.status.state != NodeState::Down
}

fn networks<'a>(state: &'a State, carried: &'a Carried<'_>) -> impl Iterator<Item = Assignment> + 'a {
    let networks = carried.networks.iter().filter_map(|id| state.networks.get(*id));
    networks.filter_map(|network| {
        let allocation = network.allocation?;
        Some(Assignment::Network(NetworkAssignment {
            id: network.id.clone(),
            name: network.spec.name.clone(),
            vni: allocation.vni,
            subnet: allocation.subnet,
            gateway: allocation.gateway,
            internal: network.spec.internal,
            ingress: network.spec.ingress,
            encrypted: !network.spec.plain,
        }))
    })
}

/// Those of a node that was removed are nobody's any more, whatever its tasks are still taken for.
fn endpoints<'a>(state: &'a State, carried: &'a Carried<'_>) -> impl Iterator<Item = Assignment> + 'a {
    let of_members = |task: &&Task| is_placed(task) && state.nodes.contains_key(&task.node_id);
    state.tasks.values().filter(of_members).flat_map(move |task| {
        let on_carried = task.attachments.iter().filter(|a| carried.networks.contains(&a.network));
        on_carried.map(move |attachment| {
            Assignment::Endpoint(EndpointAssignment {
                task: task.id.clone(),
                task_name: task.name(),
                network: attachment.network.clone(),
                addr: attachment.addr.addr(),
                node: task.node_id.clone(),
                service: service_of(task),
                slot: task.slot,
                aliases: attachment.aliases.clone(),
                serving: is_serving(state, task),
            })
        })
    })
}

fn service_of(task: &Task) -> Option<skep_model::ServiceId> {
    Some(task.service_id.clone()).filter(|id| !id.as_str().is_empty())
}

/// A backend and in DNS: running, meant to run, and on a node that is not known to be down.
fn is_serving(state: &State, task: &Task) -> bool {
    let running = task.status.state == TaskState::Running && task.is_wanted();
    running && state.nodes.get(&task.node_id).is_some_and(is_up)
}

fn services<'a>(state: &'a State, carried: &'a Carried<'_>) -> impl Iterator<Item = Assignment> + 'a {
    state.services.values().filter_map(move |service| {
        let networks: Vec<_> = service_networks(service, carried).collect();
        let ports: Vec<_> = ingress_ports(service).cloned().collect();
        (!networks.is_empty() || !ports.is_empty()).then(|| {
            Assignment::Service(ServiceAssignment {
                id: service.id.clone(),
                name: service.spec.name.clone(),
                mode: service.spec.endpoint_spec.mode,
                networks,
                ports,
            })
        })
    })
}

/// The service's networks that the node carries. Behind a VIP one without its VIP waits for the allocator.
fn service_networks<'a>(
    service: &'a Service,
    carried: &'a Carried<'_>,
) -> impl Iterator<Item = ServiceNetwork> + 'a {
    let vip_of = |network: &NetworkId| {
        let vip = service.endpoint.virtual_ips.iter().find(|vip| vip.network_id == *network);
        vip.map(|vip| vip.addr.addr())
    };
    let vip_mode = service.spec.endpoint_spec.mode == EndpointMode::Vip;
    carried.networks.iter().filter_map(move |network| {
        let config = network_config(service, network);
        let vip = vip_of(network).filter(|_| vip_mode);
        let present = if vip_mode { vip.is_some() } else { config.is_some() };
        present.then(|| ServiceNetwork {
            network: (*network).clone(),
            vip,
            aliases: config.map(|config| config.aliases.clone()).unwrap_or_default(),
        })
    })
}

fn network_config<'a>(service: &'a Service, network: &NetworkId) -> Option<&'a NetworkAttachmentConfig> {
    let configs = service.spec.task_template.networks.iter().chain(&service.spec.networks);
    configs.into_iter().find(|config| config.target == network.as_str())
}

fn ingress_ports(service: &Service) -> impl Iterator<Item = &PortConfig> {
    let ports = service.endpoint.ports.iter();
    ports.filter(|port| port.publish_mode == PublishMode::Ingress && port.published_port != 0)
}

/// The node's own tasks, until they have ended: also those it has to stop.
fn tasks<'a>(state: &'a State, node: &'a NodeId) -> impl Iterator<Item = Assignment> + 'a {
    let own = state.tasks.values().filter(move |task| task.node_id == *node && is_placed(task));
    own.map(|task| {
        Assignment::Task(TaskAssignment {
            id: task.id.clone(),
            name: task.name(),
            service: service_of(task),
            service_name: task.service_name.clone(),
            slot: task.slot,
            desired_state: task.desired_state,
            drained: false,
            container: task.spec.container_spec.clone().filter(|_| !task.is_attachment()).map(Box::new),
            attachments: task.attachments.clone(),
        })
    })
}
