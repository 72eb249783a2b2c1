//! What people ask for, and what they were told.

use super::agent::Agent;
use super::manager::Written;
use super::world::World;
use crate::api::cluster::Rotate;
use crate::api::{cluster, cluster_spec, networks, nodes, services};
use crate::control_loop::sim;
use crate::server::join::new_node;
use crate::state::{Change, State};
use rand::RngExt;
use skep_model::cluster::{ClusterSpec, JoinTokens};
use skep_model::network::NetworkSpec;
use skep_model::node::{Availability, NodeSpec, Role};
use skep_model::service::{Mode, ServiceSpec};
use skep_model::{NetworkId, NodeId, ServiceId};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

/// Hosts a schedule may come to have, and how many of them stay.
const MAX_NODES: usize = 6;
const MIN_NODES: usize = 3;

impl World {
    /// A cluster of three with a small network and a service on it.
    pub(super) fn found(&mut self) {
        self.start_manager();
        let cluster = sim::cluster(self.manager_time());
        let ingress = sim::network(skep_model::network::INGRESS, self.manager_time());
        self.write(|_| {
            let objects = [
                Change::PutCluster(Box::new(cluster.clone())),
                Change::PutNetwork(Box::new(ingress.clone())),
            ];
            Ok::<_, Infallible>(objects.into())
        });
        (0..3).for_each(|_| self.join());
        self.create_network();
        self.create_service();
    }

    pub(super) fn operate(&mut self) {
        if self.manager.is_none() {
            return;
        }
        match self.rng.random_range(0..100) {
            0..12 => self.create_network(),
            12..20 => self.remove_network(),
            20..38 => self.create_service(),
            38..53 => self.scale(),
            53..61 => self.remove_service(),
            61..69 => self.set_availability(),
            69..73 => self.join(),
            73..77 => self.leave_or_remove_node(),
            77..87 => self.attach_somewhere(),
            87..91 => self.detach_somewhere(),
            91..93 => self.rotate_tokens(),
            _ => self.end_some_task(),
        }
    }

    fn join(&mut self) {
        let number = self.agents.len() as u8 + 1;
        if self.agents.len() == MAX_NODES {
            return;
        }
        let (id, now) = (NodeId(format!("node-{number}")), self.manager_time());
        let addr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let node = new_node(id.clone(), Role::Worker, &format!("n{number}"), Availability::Active, addr, now);
        let written = self.write(|_| Ok::<_, Infallible>(vec![Change::PutNode(Box::new(node.clone()))]));
        let mut agent = Agent::new(number);
        // Who was not told that it joined has no certificate.
        agent.is_gone = !matches!(written, Written::Done);
        self.ledger.joined(&id, written);
        self.agents.insert(id.clone(), agent);
        self.start_agent(&id);
    }

    fn leave_or_remove_node(&mut self) {
        let Some(state) = self.state() else { return };
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        let Some(node) = self.pick(nodes) else { return };
        if self.chance(50) && state.nodes.len() > MIN_NODES {
            return self.leave(&node);
        }
        let force = self.chance(30) && state.nodes.len() > MIN_NODES;
        self.tell(|| format!("{node} is to be removed, by force: {force}"));
        let written = self.write(|state| nodes::plan_remove(state, node.as_str(), force));
        if matches!(written, Written::Done) {
            self.agents.entry(node.clone()).and_modify(|agent| agent.is_gone = true);
        }
        self.ledger.removed_node(&node, written);
    }

    fn set_availability(&mut self) {
        let Some(state) = self.state() else { return };
        let Some(node) = self.pick(state.nodes.values().collect()).cloned() else { return };
        let all = vec![Availability::Active, Availability::Pause, Availability::Drain];
        let spec = NodeSpec { availability: self.pick(all).unwrap(), ..node.spec };
        self.tell(|| format!("{} is set to {:?}", node.id, spec.availability));
        let (id, version, now) = (node.id.as_str(), node.meta.version.index, self.manager_time());
        self.write(|state| nodes::plan_update(state, id, version, &spec, now));
    }

    fn rotate_tokens(&mut self) {
        let Some(version) = self.state().and_then(|state| Some(state.cluster.as_ref()?.meta.version.index))
        else {
            return;
        };
        let tokens = JoinTokens { worker: self.id().to_string(), manager: self.id().to_string() };
        let (rotate, now) = (Rotate { worker: true, manager: self.chance(50) }, self.manager_time());
        let settings = cluster_spec::read(&ClusterSpec::default()).expect("nothing is asked for");
        self.write(|state| cluster::plan_update(state, version, &settings, rotate, &tokens, now));
    }

    pub(super) fn activate_all(&mut self) {
        let all = |state: &State| {
            state
                .nodes
                .values()
                .cloned()
                .map(|mut node| {
                    node.spec.availability = Availability::Active;
                    Change::PutNode(Box::new(node))
                })
                .collect()
        };
        self.write(|state| Ok::<_, Infallible>(all(state)));
    }

    fn create_network(&mut self) {
        let number = self.id();
        let id = NetworkId(format!("net{number}"));
        let subnet = self.chance(70).then(|| format!("10.{}.0.0/28", number % 200 + 20).parse().unwrap());
        let spec = NetworkSpec {
            name: format!("network{number}"),
            subnet,
            attachable: true,
            ..NetworkSpec::default()
        };
        let now = self.manager_time();
        let written = self.write(|state| networks::plan_create(state, &id, &spec, now));
        self.ledger.created_network(&id, written);
    }

    fn some_network(&mut self) -> Option<NetworkId> {
        let state = self.state()?;
        self.pick(
            state.networks.values().filter(|network| !network.spec.ingress).map(|n| n.id.clone()).collect(),
        )
    }

    fn remove_network(&mut self) {
        let Some(id) = self.some_network() else { return };
        let written = self.write(|state| networks::plan_remove(state, id.as_str()));
        self.ledger.removed_network(&id, written);
    }

    fn create_service(&mut self) {
        let number = self.id();
        let id = ServiceId(format!("service{number}"));
        let mut spec = sim::spec(&format!("s{number}"));
        let count = self.rng.random_range(0..3);
        let mut networks: Vec<NetworkId> = (0..count).filter_map(|_| self.some_network()).collect();
        networks.dedup();
        let names: Vec<&str> = networks.iter().map(NetworkId::as_str).collect();
        spec.task_template.networks = sim::on(&names);
        spec.mode = sim::replicas(self.rng.random_range(0..6));
        if self.chance(20) {
            sim::global(&mut spec);
        }
        if self.chance(40) {
            let port = if self.chance(50) { 0 } else { self.rng.random_range(8_000..8_004) };
            spec.endpoint_spec = sim::publish(port, 80);
        }
        let delay = serde_json::json!({"Delay": self.rng.random_range(0..6_000_000_000_i64)});
        spec.task_template.extra.insert("RestartPolicy".to_owned(), delay);
        let now = self.manager_time();
        let written = self.write(|state| services::plan_create(state, &id, spec.clone(), now));
        self.tell(|| format!("{id} is created, {:?}", spec.mode));
        self.ledger.put_service(&id, spec.mode, written);
    }

    fn some_service(&mut self) -> Option<(ServiceId, ServiceSpec, u64)> {
        let state = self.state()?;
        let service = self.pick(state.services.values().collect())?;
        Some((service.id.clone(), service.spec.clone(), service.meta.version.index))
    }

    fn scale(&mut self) {
        let Some((id, mut spec, version)) = self.some_service() else { return };
        if spec.mode.is_global() {
            return;
        }
        spec.mode = sim::replicas(self.rng.random_range(0..8));
        let (mode, now): (Mode, _) = (spec.mode.clone(), self.manager_time());
        self.tell(|| format!("{id} is scaled to {mode:?}"));
        let written =
            self.write(|state| services::plan_update(state, id.as_str(), version, spec.clone(), now));
        self.ledger.put_service(&id, mode, written);
    }

    fn remove_service(&mut self) {
        let Some((id, ..)) = self.some_service() else { return };
        let written = self.write(|_| Ok::<_, Infallible>(vec![Change::DeleteService(id.clone())]));
        self.tell(|| format!("{id} is removed"));
        self.ledger.removed_service(&id, written);
    }

    fn attach_somewhere(&mut self) {
        let Some(network) = self.some_network() else { return };
        let nodes = self.agents.keys().cloned().collect();
        if let Some(node) = self.pick(nodes) {
            self.ask_to_attach(&node, network.as_str());
        }
    }

    fn detach_somewhere(&mut self) {
        let nodes = self.agents.keys().cloned().collect();
        if let Some(node) = self.pick(nodes) {
            self.detach(&node);
        }
    }

    fn end_some_task(&mut self) {
        let running = |(node, agent): (&NodeId, &Agent)| {
            let node = node.clone();
            let tasks = agent.tasks.iter().filter(|(_, local)| **local == super::agent::Local::Running);
            tasks.map(|(task, _)| (node.clone(), task.clone())).collect::<Vec<_>>()
        };
        let all = self.agents.iter().flat_map(running).collect();
        if let Some((node, task)) = self.pick(all) {
            let state = if self.chance(70) {
                skep_model::task::TaskState::Failed
            } else {
                skep_model::task::TaskState::Complete
            };
            self.end_task(&node, &task, state);
        }
    }
}
