//! A small cluster whose nodes do what agents do: start, fail and stop tasks.

use super::{Plan, plan_with};
use crate::api;
use crate::state::{Change, State};
use jiff::{SignedDuration, Timestamp};
use skep_model::cluster::{Cluster, ClusterSpec, DEFAULT_POOL, JoinTokens, Meta};
use skep_model::data_path::{DataCipher, DataPathKey};
use skep_model::network::{INGRESS, Network, NetworkAllocation, NetworkSpec};
use skep_model::node::{
    Availability, Node, NodeDescription, NodeInternals, NodeSpec, NodeState, NodeStatus, Role,
};
use skep_model::service::{
    ContainerSpec, EndpointSpec, Global, Mode, NetworkAttachmentConfig, PortConfig, Replicated, ServiceSpec,
    TaskSpec,
};
use skep_model::task::{Task, TaskState};
use skep_model::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A manager's state with a clock and ids that count.
#[derive(Clone)]
pub(crate) struct Sim {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    tasks_made: u64,
}

impl Sim {
    /// A cluster with an ingress network and `nodes` ready nodes `n1`, `n2`…
    pub(crate) fn new(nodes: u8) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut sim = Self { state: State::default(), now, tasks_made: 0 };
        sim.put(Change::PutCluster(Box::new(cluster(now))));
        sim.put(Change::PutNetwork(Box::new(network(INGRESS, now))));
        (1..=nodes).for_each(|n| sim.join(n));
        sim.settle();
        sim
    }

    pub(crate) fn put(&mut self, change: Change) {
        let revision = self.state.revision + 1;
        self.state.apply(revision, [change]);
    }

    pub(crate) fn join(&mut self, n: u8) {
        let node = node(n, self.now);
        self.put(Change::PutNode(Box::new(node)));
    }

    pub(crate) fn commit(&mut self, changes: Vec<Change>) {
        let revision = self.state.revision + 1;
        self.state.apply(revision, changes);
    }

    /// Runs the loop once and checks that it had nothing left to say.
    pub(crate) fn settle(&mut self) -> Plan {
        let plan = self.plan();
        self.commit(plan.changes.clone());
        let again = self.plan();
        assert_eq!(again.changes, [], "the plan of an applied plan is empty");
        assert_eq!(again.next_wakeup, plan.next_wakeup);
        assert_eq!(plan.problems, [""; 0]);
        plan
    }

    fn plan(&mut self) -> Plan {
        let made = &mut self.tasks_made;
        plan_with(&self.state, self.now, &mut || {
            *made += 1;
            TaskId(format!("t{made:06}"))
        })
    }

    pub(crate) fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    pub(crate) fn node(&mut self, n: u8, edit: impl FnOnce(&mut Node)) {
        let mut node = self.state.nodes[&node_id(n)].clone();
        node.meta.updated_at = self.now;
        edit(&mut node);
        self.put(Change::PutNode(Box::new(node)));
    }

    pub(crate) fn report(&mut self, task: &TaskId, state: TaskState) {
        let mut task = self.state.tasks[task].clone();
        assert!(task.status.state <= state, "{} cannot go back to {state}", task.id);
        task.status.state = state;
        task.status.timestamp = self.now;
        self.put(Change::PutTask(Box::new(task)));
    }

    /// Every ready node does what it is told: starts what is assigned, stops what is not wanted.
    pub(crate) fn agents(&mut self) {
        let ready = |task: &&Task| {
            self.state.nodes.get(&task.node_id).is_some_and(|node| node.status.state == NodeState::Ready)
        };
        let told: Vec<Task> = self.state.tasks.values().filter(ready).cloned().collect();
        for task in told.iter().filter(|task| {
            !task.is_attachment() && task.is_live() && task.status.state >= TaskState::Assigned
        }) {
            let next = if task.is_wanted() { TaskState::Running } else { TaskState::Shutdown };
            self.report(&task.id, next);
        }
    }

    /// Lets the cluster work until nothing is left to do.
    pub(crate) fn run(&mut self) {
        for _ in 0..6 {
            self.settle();
            self.agents();
            self.advance(10);
        }
        self.settle();
    }

    pub(crate) fn network(&mut self, name: &str, subnet: Option<&str>) -> NetworkId {
        let mut network = network(name, self.now);
        network.spec.subnet = subnet.map(|subnet| subnet.parse().unwrap());
        let id = network.id.clone();
        self.put(Change::PutNetwork(Box::new(network)));
        id
    }

    pub(crate) fn service(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        let mut spec = spec(name);
        edit(&mut spec);
        let id = ServiceId(format!("service-{name}"));
        let changes = api::services::plan_create(&self.state, &id, spec, self.now).unwrap();
        self.commit(changes);
        id
    }

    pub(crate) fn scale(&mut self, service: &ServiceId, replicas: u64) {
        let mut service = self.state.services[service].clone();
        service.spec.mode = self::replicas(replicas);
        self.put(Change::PutService(Box::new(service)));
    }

    pub(crate) fn live(&self, service: &ServiceId) -> Vec<&Task> {
        let own = |task: &&Task| task.service_id == *service && task.is_wanted() && task.is_live();
        self.state.tasks.values().filter(own).collect()
    }

    pub(crate) fn running_by_node(&self, service: &ServiceId) -> BTreeMap<String, usize> {
        let mut nodes = BTreeMap::new();
        for task in self.live(service) {
            assert_eq!(task.status.state, TaskState::Running);
            *nodes.entry(task.node_id.0.clone()).or_default() += 1;
        }
        nodes
    }

    pub(crate) fn check_addresses(&self) {
        assert!(self.state.nodes.values().all(|node| node.skep.ingress_addr.is_some()));
        check_addresses(&self.state);
    }
}

/// No two objects hold one address, and nobody holds one that is not theirs to have.
pub(crate) fn check_addresses(state: &State) {
    let mut holders: BTreeMap<(NetworkId, Ipv4Addr), String> = BTreeMap::new();
    let mut hold = |network: &NetworkId, addr: Ipv4Addr, holder: String| {
        if let Some(network) = state.networks.get(network) {
            let NetworkAllocation { subnet, gateway, .. } = network.allocation.unwrap();
            let inside = subnet.contains(&addr) && addr != subnet.network() && addr != subnet.broadcast();
            assert!(inside && addr != gateway, "{holder} holds {addr} of {subnet}");
        }
        let before = holders.insert((network.clone(), addr), holder.clone());
        assert_eq!(before, None, "{addr} is given to {holder} too");
    };
    if let Ok(ingress) = api::lookup::network(state, INGRESS) {
        let given = state.nodes.values().filter_map(|node| Some((node, node.skep.ingress_addr?)));
        given.for_each(|(node, addr)| hold(&ingress.id, addr, format!("node {}", node.id)));
    }
    for service in state.services.values() {
        for vip in &service.endpoint.virtual_ips {
            hold(&vip.network_id, vip.addr.addr(), format!("service {}", service.id));
        }
    }
    for task in state.tasks.values().filter(|task| task.is_live()) {
        for attachment in &task.attachments {
            hold(&attachment.network, attachment.addr.addr(), format!("task {}", task.id));
        }
    }
}

pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId(format!("node-{n}"))
}

pub(crate) fn cluster(now: Timestamp) -> Cluster {
    Cluster {
        id: ClusterId::from("cluster"),
        meta: Meta::new(now),
        spec: ClusterSpec::default(),
        default_addr_pool: vec![DEFAULT_POOL.parse().unwrap()],
        subnet_size: 24,
        data_path_port: 4789,
        data_cipher: DataCipher::default(),
        last_vni: 0,
        root_ca: String::new(),
        join_tokens: JoinTokens::default(),
    }
}

pub(crate) fn network(name: &str, now: Timestamp) -> Network {
    let spec = NetworkSpec {
        name: name.to_owned(),
        ingress: name == INGRESS,
        attachable: name != INGRESS,
        ..NetworkSpec::default()
    };
    Network { id: NetworkId(format!("net-{name}")), meta: Meta::new(now), spec, allocation: None }
}

fn node(n: u8, now: Timestamp) -> Node {
    Node {
        id: node_id(n),
        meta: Meta::new(now),
        spec: NodeSpec {
            name: None,
            labels: BTreeMap::new(),
            role: Role::Worker,
            availability: Availability::Active,
            extra: serde_json::Map::new(),
        },
        description: NodeDescription { hostname: format!("n{n}"), ..NodeDescription::default() },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: format!("192.168.77.{n}"),
        },
        manager_status: None,
        skep: NodeInternals {
            data_path_addr: Some(Ipv4Addr::new(192, 168, 77, n)),
            data_path_key: Some(DataPathKey([n; 32])),
            routed: vec!["192.168.77.0/24".parse().unwrap()],
            ..NodeInternals::default()
        },
    }
}

pub(crate) fn spec(name: &str) -> ServiceSpec {
    let container = ContainerSpec {
        image: "host".to_owned(),
        args: vec!["sleep".to_owned(), "1d".to_owned()],
        ..ContainerSpec::default()
    };
    ServiceSpec {
        name: name.to_owned(),
        task_template: TaskSpec { container_spec: Some(container), ..TaskSpec::default() },
        ..ServiceSpec::default()
    }
}

pub(crate) fn replicas(replicas: u64) -> Mode {
    Mode { replicated: Some(Replicated { replicas: Some(replicas) }), ..Mode::default() }
}

pub(crate) fn on(networks: &[&str]) -> Vec<NetworkAttachmentConfig> {
    let config = |name: &&str| NetworkAttachmentConfig {
        target: (*name).to_owned(),
        ..NetworkAttachmentConfig::default()
    };
    networks.iter().map(config).collect()
}

pub(crate) fn publish(published: u16, target: u16) -> EndpointSpec {
    let port = PortConfig { target_port: target, published_port: published, ..PortConfig::default() };
    EndpointSpec { ports: vec![port], ..EndpointSpec::default() }
}

pub(crate) fn global(spec: &mut ServiceSpec) {
    spec.mode = Mode { global: Some(Global {}), ..Mode::default() };
}
