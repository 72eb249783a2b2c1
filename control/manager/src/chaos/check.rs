//! What has to hold after every commit, after every death, and once there is peace.

use super::agent::Local;
use super::manager::Written;
use super::world::World;
use crate::control_loop::{plan_with, sim};
use crate::dispatch;
use crate::state::{Change, State};
use jiff::Timestamp;
use skep_model::assign::{Assignment, Desired, Key};
use skep_model::node::{Availability, NodeState};
use skep_model::service::{Mode, Service};
use skep_model::task::{Task, TaskState};
use skep_model::{NetworkId, NodeId, ServiceId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// After the last fault every agent has what the final state gives it within this long.
const AGREEMENT: u64 = 5_000;
/// Nodes that never come back are noticed, what failed waits out its delay, and everything is whole.
const WHOLENESS: u64 = 60_000;

/// What was acknowledged to whom.
#[derive(Default)]
pub(super) struct Ledger {
    last: Arc<State>,
    /// What the manager was writing when it died.
    pub(super) in_flight: Vec<Change>,
    forgotten: BTreeSet<TaskId>,
    services: BTreeMap<ServiceId, Known>,
    networks: BTreeMap<NetworkId, Known>,
    nodes: BTreeMap<NodeId, Known>,
}

#[derive(Debug)]
enum Known {
    Service(Mode),
    There,
    Gone,
    /// The manager died before it answered.
    Unsure,
}

impl Ledger {
    pub(super) fn put_service<E>(&mut self, id: &ServiceId, mode: Mode, written: Written<E>) {
        note(&mut self.services, id, Known::Service(mode), written);
    }

    pub(super) fn removed_service<E>(&mut self, id: &ServiceId, written: Written<E>) {
        note(&mut self.services, id, Known::Gone, written);
    }

    pub(super) fn created_network<E>(&mut self, id: &NetworkId, written: Written<E>) {
        note(&mut self.networks, id, Known::There, written);
    }

    pub(super) fn removed_network<E>(&mut self, id: &NetworkId, written: Written<E>) {
        note(&mut self.networks, id, Known::Gone, written);
    }

    pub(super) fn joined<E>(&mut self, id: &NodeId, written: Written<E>) {
        note(&mut self.nodes, id, Known::There, written);
    }

    pub(super) fn removed_node<E>(&mut self, id: &NodeId, written: Written<E>) {
        note(&mut self.nodes, id, Known::Gone, written);
    }

    fn check(&self, state: &State) {
        for (id, known) in &self.services {
            let service = state.services.get(id);
            match known {
                Known::Service(mode) => assert_eq!(service.map(|s| &s.spec.mode), Some(mode), "{id}"),
                known => is_as_known(known, service.is_some(), id.as_str()),
            }
        }
        self.networks
            .iter()
            .for_each(|(id, known)| is_as_known(known, state.networks.contains_key(id), id.as_str()));
        self.nodes
            .iter()
            .for_each(|(id, known)| is_as_known(known, state.nodes.contains_key(id), id.as_str()));
    }
}

fn note<K: Ord + Clone, E>(book: &mut BTreeMap<K, Known>, id: &K, known: Known, written: Written<E>) {
    match written {
        Written::Done => _ = book.insert(id.clone(), known),
        Written::Died => _ = book.insert(id.clone(), Known::Unsure),
        Written::Refused(_) => {}
    }
}

fn is_as_known(known: &Known, is_there: bool, id: &str) {
    match known {
        Known::There | Known::Service(_) => assert!(is_there, "{id} was acknowledged and is lost"),
        Known::Gone => assert!(!is_there, "{id} was removed and is back"),
        Known::Unsure => {}
    }
}

impl World {
    pub(super) fn check_commit(&mut self, state: &Arc<State>) {
        let last = std::mem::replace(&mut self.ledger.last, state.clone());
        assert_eq!(state.revision, last.revision + 1);
        for (id, before) in &last.tasks {
            match state.tasks.get(id) {
                Some(after) => moves_forward(before, after),
                None => _ = self.ledger.forgotten.insert(id.clone()),
            }
        }
        assert!(state.tasks.keys().all(|id| !self.ledger.forgotten.contains(id)), "a forgotten task is back");
        for (id, before) in &last.services {
            state.services.get(id).into_iter().for_each(|after| keeps_what_it_has(before, after));
        }
        nothing_twice(state);
    }

    /// The store was opened again: it holds the last acknowledged state, or that and what was being written.
    pub(super) fn recovered(&mut self, state: &Arc<State>) {
        let in_flight = std::mem::take(&mut self.ledger.in_flight);
        let mut expected = State::clone(&self.ledger.last);
        if state.revision != expected.revision {
            expected.apply(expected.revision + 1, in_flight);
        }
        assert_eq!(state.revision, expected.revision, "acknowledged writes are lost");
        assert_eq!(state.cluster, expected.cluster);
        assert_eq!(state.nodes, expected.nodes);
        assert_eq!(state.networks, expected.networks);
        assert_eq!(state.services, expected.services);
        assert_eq!(state.tasks, expected.tasks);
        if state.revision > self.ledger.last.revision {
            self.check_commit(state);
        }
        self.ledger.check(state);
    }

    /// What was planned is all there is to plan.
    pub(super) fn expect_settled(&self, now: Timestamp) {
        let Some(state) = self.state() else { return };
        let again = plan_with(&state, now, &mut || panic!("a second plan makes a task"));
        assert_eq!(again.changes, [], "the second plan is empty");
    }

    /// An agent has taken this set.
    pub(super) fn check_desired(&self, desired: &Desired) {
        let mut holders = BTreeSet::new();
        for assignment in desired.assignments.values() {
            if let Assignment::Endpoint(endpoint) = assignment {
                let held = (endpoint.network.clone(), endpoint.addr);
                assert!(holders.insert(held), "{} has two endpoints", endpoint.addr);
            }
        }
    }

    pub(super) fn expect_agreement(&mut self) {
        let limit = self.now + AGREEMENT;
        self.run_until(limit);
        let mut waiting: Vec<NodeId> =
            self.agents.keys().filter(|node| self.is_member(node)).cloned().collect();
        // What changed last may be on its way.
        for _ in 0..10 {
            let state = self.state().expect("nothing kills the manager any more");
            waiting.retain(|node| {
                let wanted = self.agents[node].wanted.as_ref();
                wanted.is_none_or(|wanted| without_drains(wanted) != dispatch::assignments(&state, node))
            });
            self.run_until(self.now + 50);
        }
        assert!(waiting.is_empty(), "{waiting:?} do not know the cluster's state");
    }

    pub(super) fn expect_whole(&mut self) {
        self.run_until(self.now + WHOLENESS);
        let state = self.state().expect("nothing kills the manager any more");
        self.ledger.check(&state);
        for service in state.services.values() {
            is_whole(&state, service);
        }
        let members: Vec<NodeId> = self.agents.keys().filter(|node| self.is_member(node)).cloned().collect();
        assert_eq!(self.ready_nodes(), members.len());
        for node in &members {
            let agent = &self.agents[node];
            let placed = TaskState::Assigned..=TaskState::Running;
            let own = |task: &&Task| task.node_id == *node && placed.contains(&task.status.state);
            let (attached, tasks): (Vec<&Task>, Vec<&Task>) =
                state.tasks.values().filter(own).partition(|task| task.is_attachment());
            let held: Vec<&TaskId> = agent.attachments.iter().collect();
            assert_eq!(
                attached.iter().map(|task| &task.id).collect::<Vec<_>>(),
                held,
                "attachments of {node}"
            );
            let runs = |(task, local): (&TaskId, &Local)| match local {
                Local::Ended => None,
                local => Some((task.clone(), *local)),
            };
            let running: Vec<_> = agent.tasks.iter().filter_map(runs).collect();
            let wanted: Vec<_> = tasks.iter().map(|task| (task.id.clone(), Local::Running)).collect();
            let tasks: Vec<_> = tasks.into_iter().map(brief).collect();
            assert_eq!(wanted, running, "tasks of {node}: {tasks:#?}");
        }
        assert!(
            state
                .tasks
                .values()
                .all(|task| task.is_attachment() || state.services.contains_key(&task.service_id))
        );
    }
}

fn moves_forward(before: &Task, after: &Task) {
    assert!(after.status.state >= before.status.state, "{} went back: {before:?} {after:?}", after.id);
    assert!(
        before.is_live() || after.status.state == before.status.state,
        "{} ended twice: {before:?} {after:?}",
        after.id
    );
    assert!(after.desired_state >= before.desired_state, "{before:?} {after:?}");
    assert!(before.node_id.as_str().is_empty() || after.node_id == before.node_id);
    assert!(before.attachments.is_empty() || after.attachments == before.attachments);
}

fn keeps_what_it_has(before: &Service, after: &Service) {
    let vips = &before.endpoint.virtual_ips;
    assert!(vips.is_empty() || after.endpoint.virtual_ips == *vips, "{} got other VIPs", after.id);
    let ports = &before.endpoint.ports;
    assert!(ports.is_empty() || after.endpoint.ports == *ports, "{} got other ports", after.id);
}

fn nothing_twice(state: &State) {
    sim::check_addresses(state);
    let (mut vnis, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let allocations: Vec<_> = state.networks.values().filter_map(|network| network.allocation).collect();
    assert!(allocations.iter().all(|allocation| vnis.insert(allocation.vni)), "a VNI is given twice");
    for (index, one) in allocations.iter().enumerate() {
        let overlaps = |other: &skep_model::network::NetworkAllocation| {
            one.subnet.contains(&other.subnet) || other.subnet.contains(&one.subnet)
        };
        assert!(!allocations[index + 1..].iter().any(overlaps), "{} overlaps", one.subnet);
    }
    let published = state.services.values().flat_map(|service| &service.endpoint.ports);
    for port in published.filter(|port| port.published_port != 0) {
        assert!(
            ports.insert((port.protocol, port.published_port)),
            "{} is published twice",
            port.published_port
        );
    }
}

/// As many tasks run as are wanted, unless a network is really full.
fn is_whole(state: &State, service: &Service) {
    let running = state
        .tasks_of(&service.id)
        .filter(|task| task.status.state == TaskState::Running && task.is_wanted());
    let running = running.count() as u64;
    let open = |node: &&skep_model::node::Node| {
        node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
    };
    let wanted = match service.spec.mode.is_global() {
        true => state.nodes.values().filter(open).count() as u64,
        false => service.spec.mode.replicas(),
    };
    assert!(running <= wanted, "{} has {running} of {wanted} tasks", service.id);
    if running < wanted {
        let networks =
            service.spec.task_template.networks.iter().map(|config| NetworkId(config.target.clone()));
        let full = networks.into_iter().any(|network| is_full(state, &network));
        let tasks: Vec<_> = state.tasks_of(&service.id).map(brief).collect();
        assert!(full, "{} has {running} of {wanted} tasks and room for more: {tasks:#?}", service.id);
    }
}

/// Drains are no part of the state.
fn without_drains(desired: &Desired) -> BTreeMap<Key, Assignment> {
    let mut assignments = desired.assignments.clone();
    for assignment in assignments.values_mut() {
        if let Assignment::Task(task) = assignment {
            task.drained = false;
        }
    }
    assignments
}

fn brief(task: &Task) -> String {
    let (id, node) = (&task.id, &task.node_id);
    let (state, desired, since) = (task.status.state, task.desired_state, task.status.timestamp);
    format!(
        "{id} on {node}: {state}, wanted {desired}, since {since}, not before {:?}, {}",
        task.not_before, task.status.err
    )
}

fn is_full(state: &State, network: &NetworkId) -> bool {
    let Some(allocation) = state.networks.get(network).and_then(|network| network.allocation) else {
        return false;
    };
    let vips = state.services.values().flat_map(|service| &service.endpoint.virtual_ips);
    let vips = vips.filter(|vip| vip.network_id == *network).count();
    let tasks = state.tasks.values().filter(|task| task.is_live()).flat_map(|task| &task.attachments);
    let tasks = tasks.filter(|attachment| attachment.network == *network).count();
    // All but the network's, the broadcast address and the gateway.
    vips + tasks + 1 >= allocation.subnet.hosts().count()
}
