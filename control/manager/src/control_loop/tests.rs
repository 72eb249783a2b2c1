//! The whole loop against a small cluster whose nodes do what agents do: start, fail and stop tasks.

use super::*;
use crate::api;
use proptest::prelude::*;
use skep_model::cluster::{Cluster, ClusterSpec, DEFAULT_POOL, JoinTokens, Meta};
use skep_model::network::{FIRST_VNI, INGRESS, Network, NetworkSpec};
use skep_model::node::{
    Availability, Node, NodeDescription, NodeInternals, NodeSpec, NodeState, NodeStatus, Role,
};
use skep_model::service::{
    ContainerSpec, EndpointMode, EndpointSpec, Mode, NetworkAttachmentConfig, PortConfig, Replicated,
    Service, ServiceSpec, TaskSpec,
};
use skep_model::task::{Task, TaskState};
use skep_model::{ClusterId, NetworkId, NodeId, ServiceId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A manager's state with a clock and ids that count.
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
        self.now = self.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
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
        for task in told.iter().filter(|task| task.is_live() && task.status.state >= TaskState::Assigned) {
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
        let changes = api::tests_create(&self.state, &id, spec, self.now).unwrap();
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

    fn running_by_node(&self, service: &ServiceId) -> BTreeMap<String, usize> {
        let mut nodes = BTreeMap::new();
        for task in self.live(service) {
            assert_eq!(task.status.state, TaskState::Running);
            *nodes.entry(task.node_id.0.clone()).or_default() += 1;
        }
        nodes
    }

    /// No two objects hold one address, and nobody holds one that is not theirs to have.
    fn check_addresses(&self) {
        let mut holders: BTreeMap<(NetworkId, Ipv4Addr), String> = BTreeMap::new();
        let mut hold = |network: &NetworkId, addr: Ipv4Addr, holder: String| {
            if let Some(network) = self.state.networks.get(network) {
                let allocation = network.allocation.unwrap();
                assert!(allocation.subnet.hosts().any(|host| host == addr) && addr != allocation.gateway);
            }
            let before = holders.insert((network.clone(), addr), holder.clone());
            assert_eq!(before, None, "{addr} is given to {holder} too");
        };
        let ingress = api::lookup::network(&self.state, INGRESS).unwrap().id.clone();
        for node in self.state.nodes.values() {
            hold(&ingress, node.skep.ingress_addr.unwrap(), format!("node {}", node.id));
        }
        for service in self.state.services.values() {
            for vip in &service.endpoint.virtual_ips {
                hold(&vip.network_id, vip.addr.addr(), format!("service {}", service.id));
            }
        }
        for task in self.state.tasks.values().filter(|task| task.is_live()) {
            for attachment in &task.attachments {
                hold(&attachment.network, attachment.addr.addr(), format!("task {}", task.id));
            }
        }
    }
}

pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId(format!("node-{n}"))
}

fn cluster(now: Timestamp) -> Cluster {
    Cluster {
        id: ClusterId::from("cluster"),
        meta: Meta::new(now),
        spec: ClusterSpec::default(),
        default_addr_pool: vec![DEFAULT_POOL.parse().unwrap()],
        subnet_size: 24,
        data_path_port: 4789,
        last_vni: 0,
        root_ca: String::new(),
        join_tokens: JoinTokens::default(),
    }
}

fn network(name: &str, now: Timestamp) -> Network {
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

fn global(spec: &mut ServiceSpec) {
    spec.mode = Mode { global: Some(skep_model::service::Global {}), ..Mode::default() };
}

fn restart(policy: serde_json::Value) -> impl FnOnce(&mut ServiceSpec) {
    move |spec| {
        spec.task_template.extra.insert("RestartPolicy".to_owned(), policy);
    }
}

fn addresses(task: &Task) -> Vec<String> {
    task.attachments.iter().map(|attachment| attachment.addr.to_string()).collect()
}

#[test]
fn ingress_comes_first_and_every_node_has_an_address_there() {
    let mut sim = Sim::new(2);
    sim.network("backend", None);
    sim.settle();
    let of = |name: &str| api::lookup::network(&sim.state, name).unwrap().allocation.unwrap();
    assert_eq!((of(INGRESS).vni, of(INGRESS).subnet.to_string()), (FIRST_VNI, "10.0.0.0/24".to_owned()));
    assert_eq!(
        (of("backend").vni, of("backend").subnet.to_string()),
        (FIRST_VNI + 1, "10.0.1.0/24".to_owned())
    );
    assert_eq!(of("backend").gateway, Ipv4Addr::new(10, 0, 1, 1));
    let skep0 = |n| sim.state.nodes[&node_id(n)].skep.ingress_addr.unwrap();
    assert_eq!((skep0(1), skep0(2)), (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)));
}

#[test]
fn a_service_gets_vips_ports_and_tasks_with_addresses() {
    let mut sim = Sim::new(1);
    sim.network("backend", None);
    sim.settle();
    let web = sim.service("web", |spec| {
        spec.mode = replicas(2);
        spec.task_template.networks = on(&["backend"]);
        spec.endpoint_spec = publish(4568, 80);
    });
    sim.settle();
    let endpoint = &sim.state.services[&web].endpoint;
    assert_eq!(endpoint.ports, publish(4568, 80).ports);
    let vips: Vec<_> = endpoint.virtual_ips.iter().map(|vip| vip.addr.to_string()).collect();
    assert_eq!(vips, ["10.0.0.3/24", "10.0.1.2/24"]);
    let tasks = sim.live(&web);
    assert_eq!(addresses(tasks[0]), ["10.0.1.3/24", "10.0.0.4/24"]);
    assert_eq!(addresses(tasks[1]), ["10.0.1.4/24", "10.0.0.5/24"]);
    assert_eq!(tasks[0].status.message, "scheduler assigned task to node");
}

#[test]
fn dnsrr_has_no_vip() {
    let mut sim = Sim::new(1);
    sim.network("backend", None);
    sim.settle();
    let db = sim.service("db", |spec| {
        spec.task_template.networks = on(&["backend"]);
        spec.endpoint_spec.mode = EndpointMode::Dnsrr;
    });
    sim.settle();
    assert_eq!(sim.state.services[&db].endpoint.virtual_ips, []);
    assert_eq!(addresses(sim.live(&db)[0]), ["10.0.1.2/24"]);
}

#[test]
fn subnets_keep_clear_of_what_hosts_route() {
    let mut sim = Sim::new(1);
    sim.node(1, |node| {
        node.skep.routed = vec!["10.0.1.0/24".parse().unwrap(), "0.0.0.0/0".parse().unwrap()];
    });
    sim.network("backend", None);
    sim.settle();
    let backend = api::lookup::network(&sim.state, "backend").unwrap();
    assert_eq!(backend.allocation.unwrap().subnet.to_string(), "10.0.2.0/24");
}

#[test]
fn open_ports_are_given_and_stay_across_updates() {
    let mut sim = Sim::new(1);
    let conflict = skep_model::node::PortConflict {
        protocol: skep_model::service::Protocol::Tcp,
        port: 30_000,
        holder: "nginx".to_owned(),
    };
    sim.node(1, |node| node.skep.port_conflicts = vec![conflict]);
    let first = sim.service("first", |spec| spec.endpoint_spec = publish(30_001, 80));
    let open = sim.service("open", |spec| spec.endpoint_spec = publish(0, 80));
    sim.settle();
    let port = |sim: &Sim| sim.state.services[&open].endpoint.ports[0].published_port;
    assert_eq!(port(&sim), 30_002);
    sim.put(Change::DeleteService(first));
    let mut service = sim.state.services[&open].clone();
    service.spec.endpoint_spec.ports.push(PortConfig { target_port: 81, ..PortConfig::default() });
    sim.put(Change::PutService(Box::new(service)));
    sim.settle();
    assert_eq!(port(&sim), 30_002);
    assert_eq!(sim.state.services[&open].endpoint.ports[1].published_port, 30_001);
}

#[test]
fn a_full_subnet_is_said_and_retried() {
    let mut sim = Sim::new(1);
    sim.network("small", Some("10.9.0.0/29"));
    sim.settle();
    let web = sim.service("web", |spec| {
        spec.mode = replicas(5);
        spec.task_template.networks = on(&["small"]);
    });
    sim.settle();
    let waiting: Vec<_> =
        sim.state.tasks_of(&web).filter(|t| t.status.state == TaskState::New).cloned().collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        waiting[0].status.err,
        "could not find an available IP: no available addresses on this pool: network small (10.9.0.0/29) is full"
    );
    let late = sim.service("late", |spec| spec.task_template.networks = on(&["small"]));
    sim.settle();
    let reason = &sim.state.services[&late].pending_reason;
    assert!(reason.starts_with("could not find an available IP while allocating VIP: "), "{reason}");
    assert_eq!(sim.live(&late)[0].status.err, *reason);
    sim.scale(&web, 2);
    sim.run();
    assert_eq!(sim.state.services[&late].pending_reason, "");
    assert_eq!(sim.live(&late)[0].status.state, TaskState::Running);
    sim.check_addresses();
}

#[test]
fn freed_addresses_and_vnis_are_not_given_again_at_once() {
    let mut sim = Sim::new(1);
    sim.network("backend", None);
    sim.settle();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let web = sim.service("web", |spec| spec.task_template.networks = on(&["backend"]));
        sim.run();
        let addrs = addresses(sim.live(&web)[0]);
        assert!(addrs.into_iter().all(|addr| seen.insert(addr)));
        sim.put(Change::DeleteService(web));
        sim.run();
        assert_eq!(sim.state.tasks.len(), 0);
    }
    sim.put(Change::DeleteNetwork(NetworkId::from("net-backend")));
    sim.network("other", None);
    sim.settle();
    let other = api::lookup::network(&sim.state, "other").unwrap().allocation.unwrap();
    assert_eq!((other.vni, other.subnet.to_string()), (FIRST_VNI + 2, "10.0.1.0/24".to_owned()));
}

#[test]
fn tasks_spread_over_nodes_and_first_services_over_different_ones() {
    let mut sim = Sim::new(3);
    let web = sim.service("web", |spec| spec.mode = replicas(7));
    sim.run();
    let by_node: Vec<usize> = sim.running_by_node(&web).into_values().collect();
    assert_eq!(by_node, [3, 2, 2]);
    let mut sim = Sim::new(3);
    let singles: Vec<ServiceId> = ["a", "b", "c"].iter().map(|name| sim.service(name, |_| {})).collect();
    sim.run();
    let nodes: BTreeSet<_> = singles.iter().map(|id| sim.live(id)[0].node_id.clone()).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn scaling_down_leaves_the_fullest_nodes_first() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    sim.node(2, |node| node.spec.availability = Availability::Pause);
    sim.scale(&web, 5);
    sim.run();
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [4, 1]);
    sim.scale(&web, 2);
    sim.run();
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [1, 1]);
    assert_eq!(sim.state.tasks_of(&web).count(), 2);
}

#[test]
fn a_failed_task_is_kept_and_replaced_after_the_delay_counted_from_its_end() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |_| {});
    sim.run();
    let failed = sim.live(&web)[0].id.clone();
    sim.report(&failed, TaskState::Failed);
    let end = sim.now;
    let plan = sim.settle();
    assert_eq!(plan.next_wakeup, Some(end.checked_add(jiff::SignedDuration::from_secs(5)).unwrap()));
    let next = sim.live(&web)[0].clone();
    assert_eq!((next.slot, next.desired_state, next.status.state), (1, TaskState::Ready, TaskState::Pending));
    assert_eq!(sim.state.tasks[&failed].desired_state, TaskState::Shutdown);
    sim.advance(4);
    sim.settle();
    assert_eq!(sim.state.tasks[&next.id].status.state, TaskState::Pending);
    sim.advance(1);
    sim.settle();
    let started = &sim.state.tasks[&next.id];
    assert_eq!((started.desired_state, started.status.state), (TaskState::Running, TaskState::Assigned));
}

#[test]
fn a_node_with_a_wrong_clock_does_not_shorten_the_delay() {
    let mut sim = Sim::new(1);
    let web = sim.service("web", |_| {});
    sim.run();
    let mut failed = sim.live(&web)[0].clone();
    failed.status.state = TaskState::Failed;
    failed.status.timestamp = Timestamp::UNIX_EPOCH;
    sim.put(Change::PutTask(Box::new(failed)));
    let wakeup = sim.settle().next_wakeup.unwrap();
    assert_eq!(wakeup.duration_since(sim.now).as_secs(), 4);
}

#[test]
fn history_is_five_tasks_per_slot() {
    let mut sim = Sim::new(1);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    for _ in 0..9 {
        let id = sim.live(&web)[0].id.clone();
        sim.report(&id, TaskState::Failed);
        sim.run();
    }
    let mut per_slot: BTreeMap<u64, usize> = BTreeMap::new();
    sim.state.tasks_of(&web).for_each(|task| *per_slot.entry(task.slot).or_default() += 1);
    assert!(per_slot.values().all(|count| *count <= 5), "{per_slot:?}");
    assert_eq!(sim.live(&web).len(), 2);
}

#[test]
fn restart_policies_are_kept() {
    let ended = |policy: serde_json::Value, ends: &[TaskState]| {
        let mut sim = Sim::new(1);
        let job = sim.service("job", restart(policy));
        sim.run();
        for end in ends {
            let Some(id) = sim.live(&job).first().map(|task| task.id.clone()) else { break };
            sim.report(&id, *end);
            sim.run();
        }
        (sim.live(&job).len(), sim.state.tasks_of(&job).count())
    };
    let failed = TaskState::Failed;
    assert_eq!(ended(serde_json::json!({"Condition": "none"}), &[failed]), (0, 1));
    assert_eq!(ended(serde_json::json!({"Condition": "on-failure"}), &[TaskState::Complete]), (0, 1));
    assert_eq!(ended(serde_json::json!({"Condition": "on-failure"}), &[failed]), (1, 2));
    assert_eq!(ended(serde_json::json!({"MaxAttempts": 2}), &[failed; 9]), (0, 3));
    assert_eq!(ended(serde_json::json!({"MaxAttempts": 7}), &[failed; 20]), (0, 8));
    // Ten seconds pass between two failures: only one of them lies in the window of the last.
    let window = serde_json::json!({"MaxAttempts": 1, "Window": 1_000_000_000_i64});
    assert_eq!(ended(window, &[failed; 4]), (1, 5));
}

#[test]
fn a_node_that_goes_down_loses_its_tasks_at_once_and_stops_them_when_it_returns() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    let orphan = sim.live(&web).into_iter().find(|task| task.node_id == node_id(2)).unwrap().id.clone();
    sim.node(2, |node| node.status.state = NodeState::Down);
    sim.settle();
    let task = &sim.state.tasks[&orphan];
    assert_eq!((task.desired_state, task.status.state), (TaskState::Shutdown, TaskState::Running));
    let replaced: Vec<_> =
        sim.live(&web).into_iter().filter(|t| t.desired_state == TaskState::Running).collect();
    assert!(replaced.iter().all(|task| task.node_id == node_id(1)) && replaced.len() == 2);
    sim.run();
    sim.node(2, |node| node.status.state = NodeState::Ready);
    sim.run();
    assert_eq!(sim.state.tasks[&orphan].status.state, TaskState::Shutdown);
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [2]);
    sim.check_addresses();
}

#[test]
fn tasks_of_a_node_that_never_returns_are_orphaned_after_a_day() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    let orphan = sim.live(&web).into_iter().find(|task| task.node_id == node_id(2)).unwrap().id.clone();
    sim.node(2, |node| node.status.state = NodeState::Down);
    let down_at = sim.now;
    let wakeup = sim.settle().next_wakeup.unwrap();
    assert_eq!(wakeup.duration_since(down_at).as_hours(), 24);
    sim.now = wakeup;
    sim.settle();
    assert_eq!(sim.state.tasks[&orphan].status.state, TaskState::Orphaned);
}

#[test]
fn a_drained_node_is_left_and_a_paused_one_gets_nothing_new() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(4));
    sim.run();
    sim.node(1, |node| node.spec.availability = Availability::Drain);
    sim.run();
    assert_eq!(sim.running_by_node(&web), BTreeMap::from([("node-2".to_owned(), 4)]));
    sim.node(1, |node| node.spec.availability = Availability::Active);
    sim.node(2, |node| node.spec.availability = Availability::Pause);
    sim.scale(&web, 6);
    sim.run();
    let expected = BTreeMap::from([("node-1".to_owned(), 2), ("node-2".to_owned(), 4)]);
    assert_eq!(sim.running_by_node(&web), expected);
}

#[test]
fn a_task_without_a_node_says_why() {
    let mut sim = Sim::new(2);
    for n in 1..=2 {
        sim.node(n, |node| node.status.state = NodeState::Down);
    }
    let web = sim.service("web", |_| {});
    sim.settle();
    let task = sim.live(&web)[0];
    assert_eq!(task.status.message, "pending task scheduling");
    assert_eq!(task.status.err, "no suitable node (2 nodes not available for new tasks)");
    sim.node(1, |node| node.status.state = NodeState::Ready);
    sim.settle();
    assert_eq!(
        (sim.live(&web)[0].status.state, sim.live(&web)[0].status.err.as_str()),
        (TaskState::Assigned, "")
    );
}

#[test]
fn a_global_service_has_one_task_on_every_node_that_takes_tasks() {
    let mut sim = Sim::new(2);
    let agent = sim.service("agent", global);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_values().collect::<Vec<_>>(), [1, 1]);
    sim.join(3);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_values().collect::<Vec<_>>(), [1, 1, 1]);
    sim.node(1, |node| node.status.state = NodeState::Down);
    sim.node(2, |node| node.spec.availability = Availability::Drain);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_keys().collect::<Vec<_>>(), ["node-3"]);
    sim.node(1, |node| node.status.state = NodeState::Ready);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_keys().collect::<Vec<_>>(), ["node-1", "node-3"]);
    let failed = sim.live(&agent)[0].clone();
    sim.report(&failed.id, TaskState::Failed);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_keys().collect::<Vec<_>>(), ["node-1", "node-3"]);
    assert!(sim.live(&agent).iter().all(|task| task.slot == 0 && task.id != failed.id));
}

#[test]
fn tasks_of_a_removed_service_go_once_they_stopped_or_their_node_is_down() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(4));
    sim.run();
    sim.node(2, |node| node.status.state = NodeState::Down);
    sim.settle();
    sim.put(Change::DeleteService(web.clone()));
    sim.settle();
    let left: Vec<_> = sim.state.tasks_of(&web).collect();
    assert!(left.iter().all(|t| t.desired_state == TaskState::Remove && t.node_id == node_id(1)));
    assert_eq!(left.iter().filter(|task| task.status.state == TaskState::Running).count(), 2);
    sim.run();
    assert_eq!(sim.state.tasks_of(&web).count(), 0);
}

#[test]
fn a_node_where_a_service_keeps_failing_comes_last() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", restart(serde_json::json!({"Delay": 0})));
    let mut nodes = Vec::new();
    for _ in 0..6 {
        sim.settle();
        let task = sim.live(&web)[0].clone();
        nodes.push(task.node_id.0.clone());
        if task.node_id == node_id(1) {
            sim.report(&task.id, TaskState::Failed);
        }
        sim.settle();
    }
    assert_eq!(nodes.last().map(String::as_str), Some("node-2"), "{nodes:?}");
}

#[derive(Clone, Debug)]
enum Event {
    Scale(u8, u8),
    Fail(u8),
    Complete(u8),
    Node(u8, NodeState),
    Availability(u8, Availability),
    RemoveService(u8),
    CreateService(u8, u8),
    Agents,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop::sample::select(vec![
        NodeState::Ready,
        NodeState::Down,
        NodeState::Unknown,
        NodeState::Disconnected,
    ]);
    let availability =
        prop::sample::select(vec![Availability::Active, Availability::Pause, Availability::Drain]);
    prop_oneof![
        2 => (0u8..3, 0u8..9).prop_map(|(service, n)| Event::Scale(service, n)),
        3 => any::<u8>().prop_map(Event::Fail),
        1 => any::<u8>().prop_map(Event::Complete),
        3 => (1u8..=3, state).prop_map(|(n, state)| Event::Node(n, state)),
        2 => (1u8..=3, availability).prop_map(|(n, a)| Event::Availability(n, a)),
        1 => (0u8..3).prop_map(Event::RemoveService),
        1 => (0u8..3, 0u8..9).prop_map(|(service, n)| Event::CreateService(service, n)),
        3 => Just(Event::Agents),
        2 => (0u8..20).prop_map(Event::Wait),
    ]
}

fn name(service: u8) -> String {
    format!("s{service}")
}

fn create(sim: &mut Sim, service: u8, n: u8) {
    if api::lookup::service(&sim.state, &name(service)).is_ok() {
        return;
    }
    sim.service(&name(service), |spec| {
        spec.mode = replicas(u64::from(n));
        spec.task_template.networks = on(if service == 0 { &["a"] } else { &["a", "b"] });
        if service == 1 {
            spec.endpoint_spec = publish(0, 80);
        }
        if service == 2 {
            global(spec);
        }
    });
}

fn apply(sim: &mut Sim, event: &Event) {
    let nth_live = |sim: &Sim, n: u8| {
        let running: Vec<TaskId> = sim
            .state
            .tasks
            .values()
            .filter(|t| t.status.state == TaskState::Running)
            .map(|t| t.id.clone())
            .collect();
        (!running.is_empty()).then(|| running[usize::from(n) % running.len()].clone())
    };
    match event {
        Event::Scale(service, n) => {
            if let Ok(found) = api::lookup::service(&sim.state, &name(*service)).cloned()
                && !found.spec.mode.is_global()
            {
                sim.scale(&found.id, u64::from(*n));
            }
        }
        Event::Fail(n) => {
            if let Some(task) = nth_live(sim, *n) {
                sim.report(&task, TaskState::Failed);
            }
        }
        Event::Complete(n) => {
            if let Some(task) = nth_live(sim, *n) {
                sim.report(&task, TaskState::Complete);
            }
        }
        Event::Node(n, state) => sim.node(*n, |node| node.status.state = *state),
        Event::Availability(n, availability) => sim.node(*n, |node| node.spec.availability = *availability),
        Event::RemoveService(service) => {
            sim.put(Change::DeleteService(ServiceId(format!("service-{}", name(*service)))));
        }
        Event::CreateService(service, n) => create(sim, *service, *n),
        Event::Agents => sim.agents(),
        Event::Wait(seconds) => sim.advance(i64::from(*seconds)),
    }
}

fn vips(sim: &Sim) -> BTreeMap<ServiceId, Vec<String>> {
    let of =
        |service: &Service| service.endpoint.virtual_ips.iter().map(|vip| vip.addr.to_string()).collect();
    sim.state.services.iter().map(|(id, service)| (id.clone(), of(service))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens: plans are idempotent (`settle`), no address is held twice, VIPs stay, each slot
    /// and node has one wanted task; and once everything is well again, every service is whole.
    #[test]
    fn services_become_whole_again_after_anything(events in prop::collection::vec(event(), 0..40)) {
        let mut sim = Sim::new(3);
        sim.network("a", Some("10.9.0.0/25"));
        sim.network("b", None);
        sim.settle();
        (0..3).for_each(|service| create(&mut sim, service, 3));
        sim.run();
        for event in &events {
            let before = vips(&sim);
            apply(&mut sim, event);
            sim.settle();
            sim.check_addresses();
            for (service, vips) in vips(&sim) {
                prop_assert!(before.get(&service).is_none_or(|old| old.is_empty() || *old == vips));
            }
            let mut places = BTreeSet::new();
            for task in sim.state.tasks.values().filter(|task| task.is_wanted()) {
                let node = (task.slot == 0).then(|| task.node_id.clone());
                prop_assert!(places.insert((task.service_id.clone(), task.slot, node)));
            }
        }
        for n in 1..=3 {
            sim.node(n, |node| {
                node.status.state = NodeState::Ready;
                node.spec.availability = Availability::Active;
            });
        }
        sim.run();
        sim.run();
        for service in sim.state.services.values() {
            let running: usize = sim.running_by_node(&service.id).into_values().sum();
            let wanted = if service.spec.mode.is_global() { 3 } else { service.spec.mode.replicas() as usize };
            prop_assert_eq!(running, wanted);
        }
        prop_assert!(sim.state.tasks.values().all(|task| sim.state.services.contains_key(&task.service_id)));
        sim.check_addresses();
    }
}
