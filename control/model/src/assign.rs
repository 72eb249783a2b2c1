//! What one node has to make true: a keyed set of assignments, sent COMPLETE once and then as
//! INCREMENTAL changes. Each change says which revision it applies to and which it results in, so that
//! a receiver notices a gap and asks for the complete set (Swarm's dispatcher protocol does the same).

use crate::data_path::DataPathKey;
use crate::node::Availability;
use crate::service::{ContainerSpec, EndpointMode, PortConfig};
use crate::task::TaskState;
use crate::{NetworkId, NodeId, ServiceId, TaskId};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Everything the manager wants of one node, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub revision: u64,
    pub assignments: BTreeMap<Key, Assignment>,
}

/// Names an assignment within a node's set; printed as `kind/id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    Node(ThisNode),
    Peer(Peer),
    Network(NetworkAssignment),
    Endpoint(EndpointAssignment),
    Service(ServiceAssignment),
    Task(TaskAssignment),
}

/// Facts about the receiving node itself. There is exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThisNode {
    pub id: NodeId,
    pub availability: Availability,
    /// Address of `skep0`, with the ingress network's prefix length.
    pub ingress_addr: Option<Ipv4Net>,
}

/// Another node that shares a network with this one (every node shares ingress).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub id: NodeId,
    pub hostname: String,
    /// Where its VTEP receives.
    pub data_path_addr: Ipv4Addr,
    /// Whom it proves to be there.
    pub data_path_key: DataPathKey,
    /// Address of its `skep0`.
    pub ingress_addr: Option<Ipv4Addr>,
    /// False while the manager holds the node for down: its endpoints are not backends.
    pub up: bool,
}

/// A network this node has an endpoint on, or the ingress network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkAssignment {
    pub id: NetworkId,
    pub name: String,
    pub vni: u32,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    pub internal: bool,
    pub ingress: bool,
    /// Every frame between nodes is sealed.
    pub encrypted: bool,
}

/// One address of one task on one network, on whichever node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointAssignment {
    pub task: TaskId,
    pub task_name: String,
    pub network: NetworkId,
    pub addr: Ipv4Addr,
    pub node: NodeId,
    /// Empty for attachments.
    pub service: Option<ServiceId>,
    pub slot: u64,
    pub aliases: Vec<String>,
    /// Only serving endpoints are backends and in DNS; the others are reachable by address alone.
    pub serving: bool,
}

/// A service with a foot on one of this node's networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceAssignment {
    pub id: ServiceId,
    pub name: String,
    pub mode: EndpointMode,
    /// The service's networks that this node carries.
    pub networks: Vec<ServiceNetwork>,
    /// Ports published through the mesh. Every node has these.
    pub ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceNetwork {
    pub network: NetworkId,
    /// None for dnsrr.
    pub vip: Option<Ipv4Addr>,
    pub aliases: Vec<String>,
}

/// A task this node runs (or, for an attachment, holds).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskAssignment {
    pub id: TaskId,
    pub name: String,
    pub service: Option<ServiceId>,
    pub service_name: String,
    pub slot: u64,
    /// `Running`, or a terminal state: stop it.
    pub desired_state: TaskState,
    /// No node sends it new connections any more. A task that is not wanted is stopped from then on; until then
    /// it runs on.
    #[serde(default)]
    pub drained: bool,
    /// None for attachments: the node brings the process itself.
    pub container: Option<Box<ContainerSpec>>,
    pub attachments: Vec<crate::task::Attachment>,
}

impl Assignment {
    pub fn key(&self) -> Key {
        Key(match self {
            Self::Node(_) => "node/self".to_owned(),
            Self::Peer(peer) => format!("peer/{}", peer.id),
            Self::Network(network) => format!("network/{}", network.id),
            Self::Endpoint(endpoint) => format!("endpoint/{}/{}", endpoint.network, endpoint.task),
            Self::Service(service) => format!("service/{}", service.id),
            Self::Task(task) => format!("task/{}", task.id),
        })
    }
}

/// One message of the assignment stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    pub kind: AssignmentKind,
    pub applies_to: u64,
    pub results_in: u64,
    pub set: Vec<Assignment>,
    /// Always empty in a COMPLETE message.
    pub remove: Vec<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AssignmentKind {
    Complete,
    Incremental,
}

/// An incremental message that does not continue what the receiver has: ask for the complete set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("assignments apply to revision {applies_to}, this node is at {have}")]
pub struct Gap {
    pub have: u64,
    pub applies_to: u64,
}

impl Desired {
    pub fn new(revision: u64, assignments: impl IntoIterator<Item = Assignment>) -> Self {
        Self { revision, assignments: assignments.into_iter().map(|a| (a.key(), a)).collect() }
    }

    /// The message that brings a node from nothing (or anything) to `self`.
    pub fn complete(&self) -> Assignments {
        Assignments {
            kind: AssignmentKind::Complete,
            applies_to: 0,
            results_in: self.revision,
            set: self.assignments.values().cloned().collect(),
            remove: Vec::new(),
        }
    }

    /// The message that brings a node from `from` to `self`; None if they hold the same assignments.
    pub fn since(&self, from: &Self) -> Option<Assignments> {
        let changed = |(key, assignment): &(&Key, &Assignment)| from.assignments.get(key) != Some(assignment);
        let set: Vec<_> = self.assignments.iter().filter(changed).map(|(_, a)| a.clone()).collect();
        let gone = |key: &&Key| !self.assignments.contains_key(key);
        let remove: Vec<_> = from.assignments.keys().filter(gone).cloned().collect();
        if set.is_empty() && remove.is_empty() {
            return None;
        }
        let kind = AssignmentKind::Incremental;
        Some(Assignments { kind, applies_to: from.revision, results_in: self.revision, set, remove })
    }

    /// Takes a message in. On a gap nothing is changed.
    pub fn apply(&mut self, message: Assignments) -> Result<(), Gap> {
        match message.kind {
            AssignmentKind::Complete => self.assignments.clear(),
            AssignmentKind::Incremental if message.applies_to != self.revision => {
                return Err(Gap { have: self.revision, applies_to: message.applies_to });
            }
            AssignmentKind::Incremental => {}
        }
        for key in &message.remove {
            self.assignments.remove(key);
        }
        self.assignments.extend(message.set.into_iter().map(|a| (a.key(), a)));
        self.revision = message.results_in;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
