//! The cluster's objects in memory: one immutable view per revision of the store.

use skep_model::cluster::{Cluster, Version};
use skep_model::network::Network;
use skep_model::node::Node;
use skep_model::service::Service;
use skep_model::task::Task;
use skep_model::{NetworkId, NodeId, ServiceId, TaskId};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct State {
    /// Revision of the last write; Docker's `Version.Index` of what it wrote.
    pub revision: u64,
    pub cluster: Option<Cluster>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub networks: BTreeMap<NetworkId, Network>,
    pub services: BTreeMap<ServiceId, Service>,
    pub tasks: BTreeMap<TaskId, Task>,
}

/// One write. A list of them is committed as one transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    PutCluster(Box<Cluster>),
    PutNode(Box<Node>),
    PutNetwork(Box<Network>),
    PutService(Box<Service>),
    PutTask(Box<Task>),
    DeleteNode(NodeId),
    DeleteNetwork(NetworkId),
    DeleteService(ServiceId),
    DeleteTask(TaskId),
}

impl State {
    /// Makes the changes of one transaction, which the store committed as `revision`.
    pub fn apply(&mut self, revision: u64, changes: impl IntoIterator<Item = Change>) {
        self.revision = revision;
        for change in changes {
            self.apply_one(change);
        }
    }

    fn apply_one(&mut self, change: Change) {
        let version = Version { index: self.revision };
        match change {
            Change::PutCluster(mut cluster) => {
                cluster.meta.version = version;
                self.cluster = Some(*cluster);
            }
            Change::PutNode(mut node) => {
                node.meta.version = version;
                self.nodes.insert(node.id.clone(), *node);
            }
            Change::PutNetwork(mut network) => {
                network.meta.version = version;
                self.networks.insert(network.id.clone(), *network);
            }
            Change::PutService(mut service) => {
                service.meta.version = version;
                self.services.insert(service.id.clone(), *service);
            }
            Change::PutTask(mut task) => {
                task.meta.version = version;
                self.tasks.insert(task.id.clone(), *task);
            }
            Change::DeleteNode(id) => {
                self.nodes.remove(&id);
            }
            Change::DeleteNetwork(id) => {
                self.networks.remove(&id);
            }
            Change::DeleteService(id) => {
                self.services.remove(&id);
            }
            Change::DeleteTask(id) => {
                self.tasks.remove(&id);
            }
        }
    }

    pub fn tasks_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Task> {
        self.tasks.values().filter(move |task| task.service_id == *service)
    }
}
