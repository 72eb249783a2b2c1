//! Pure projections: from what the manager wants ([`Desired`]) and what this host holds ([`Local`]) to the
//! inputs of forwarding, names and the host's kernel.

mod dataplane;
mod dns;
#[cfg(test)]
pub(crate) mod example;
mod host;
mod mtu;

pub(crate) use dataplane::snapshot;
pub(crate) use dns::{records, view};
pub(crate) use host::{Place, Sandboxing, UnknownNetwork, mesh, place, sandboxing};
pub(crate) use mtu::container_mtu;

use ipnet::Ipv4Net;
use skep_dataplane::ids::PortId;
use skep_dataplane::snapshot::{Location, Policy};
use skep_model::assign::{
    Assignment, Desired, EndpointAssignment, NetworkAssignment, Peer, ServiceAssignment, TaskAssignment,
    ThisNode,
};
use skep_model::{NetworkId, NodeId, ServiceId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The switch port of `skep0`. Containers' ports are counted from 1.
pub(crate) const SKEP0_PORT: PortId = PortId(0);

/// What this host holds, as far as projections need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Local {
    /// Where this node's own endpoints are. One that is missing can't be reached (yet).
    pub(crate) ports: BTreeMap<(NetworkId, TaskId), PortId>,
    /// MTU in bytes of the interface that owns the VTEP's address.
    pub(crate) underlay_mtu: u32,
    /// Subnet of the egress bridge.
    pub(crate) gwbridge: Option<Ipv4Net>,
    /// VTEPs that do not answer on the data path.
    pub(crate) silent: BTreeSet<Ipv4Addr>,
}

impl Local {
    /// Largest IP packet of a network with this policy, in bytes.
    pub(crate) fn mtu(&self, policy: Policy) -> u16 {
        mtu::network_mtu(self.underlay_mtu, policy)
    }
}

/// How the network's frames travel between nodes.
pub(crate) fn policy(network: &NetworkAssignment) -> Policy {
    if network.encrypted { Policy::Sealed } else { Policy::Plain }
}

/// [`Desired`] by kind.
#[derive(Debug, Default)]
pub(crate) struct Cluster<'a> {
    pub(crate) this: Option<&'a ThisNode>,
    pub(crate) peers: BTreeMap<&'a NodeId, &'a Peer>,
    pub(crate) networks: BTreeMap<&'a NetworkId, &'a NetworkAssignment>,
    pub(crate) endpoints: Vec<&'a EndpointAssignment>,
    pub(crate) services: BTreeMap<&'a ServiceId, &'a ServiceAssignment>,
    pub(crate) tasks: BTreeMap<&'a TaskId, &'a TaskAssignment>,
}

impl<'a> Cluster<'a> {
    pub(crate) fn of(desired: &'a Desired) -> Self {
        let mut cluster = Self::default();
        for assignment in desired.assignments.values() {
            match assignment {
                Assignment::Node(this) => cluster.this = Some(this),
                Assignment::Peer(peer) => _ = cluster.peers.insert(&peer.id, peer),
                Assignment::Network(network) => _ = cluster.networks.insert(&network.id, network),
                Assignment::Endpoint(endpoint) => cluster.endpoints.push(endpoint),
                Assignment::Service(service) => _ = cluster.services.insert(&service.id, service),
                Assignment::Task(task) => _ = cluster.tasks.insert(&task.id, task),
            }
        }
        cluster
    }

    pub(crate) fn ingress(&self) -> Option<&'a NetworkAssignment> {
        self.networks.values().find(|network| network.ingress).copied()
    }

    /// Where an endpoint is; None while it can't be reached: its node has no VTEP yet, or this host no
    /// interface for it.
    fn location(&self, local: &Local, endpoint: &EndpointAssignment) -> Option<Location> {
        match self.this {
            Some(this) if this.id == endpoint.node => {
                let key = (endpoint.network.clone(), endpoint.task.clone());
                local.ports.get(&key).copied().map(Location::Local)
            }
            _ => self.peers.get(&endpoint.node).map(|peer| Location::Remote(peer.data_path_addr)),
        }
    }

    /// Whether the manager hears the node and this host's own probes do. The manager is the slower of the two.
    fn is_node_up(&self, local: &Local, node: &NodeId) -> bool {
        self.peers.get(node).is_none_or(|peer| peer.up && !local.silent.contains(&peer.data_path_addr))
    }

    /// The endpoints of one network that can be reached, in the order of their services' slots: what round
    /// robin follows, the same on every node.
    fn reachable<'b>(
        &'b self,
        local: &'b Local,
        network: &'b NetworkId,
    ) -> Vec<(&'a EndpointAssignment, Location)> {
        let on_network = self.endpoints.iter().filter(|endpoint| endpoint.network == *network);
        let mut reachable: Vec<_> =
            on_network.filter_map(|endpoint| Some((*endpoint, self.location(local, endpoint)?))).collect();
        reachable.sort_by(|(a, _), (b, _)| (a.slot, &a.task).cmp(&(b.slot, &b.task)));
        reachable
    }

    /// Whether names and new connections lead to an endpoint.
    fn is_serving(&self, local: &Local, endpoint: &EndpointAssignment) -> bool {
        endpoint.serving && self.is_node_up(local, &endpoint.node)
    }
}
