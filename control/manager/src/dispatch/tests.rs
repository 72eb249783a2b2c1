mod property;

use super::*;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use skep_model::ServiceId;
use skep_model::TaskId;
use skep_model::cluster::Meta;
use skep_model::data_path::DataPathKey;
use skep_model::network::{NetworkAllocation, NetworkSpec};
use skep_model::node::{Availability, NodeDescription, NodeInternals, NodeSpec, NodeStatus, Role};
use skep_model::service::{
    ContainerSpec, Endpoint, EndpointSpec, NetworkAttachmentSpec, ServiceSpec, TaskSpec, VirtualIp,
};
use skep_model::task::{Attachment, TaskStatus};
use std::net::Ipv4Addr;

fn meta() -> Meta {
    Meta::new(Timestamp::UNIX_EPOCH)
}

pub(super) fn node(index: u8, status: NodeState) -> Node {
    Node {
        id: NodeId(format!("n{index}")),
        meta: meta(),
        spec: NodeSpec {
            name: None,
            labels: BTreeMap::new(),
            role: Role::Worker,
            availability: Availability::Active,
            extra: serde_json::Map::new(),
        },
        description: NodeDescription { hostname: format!("host{index}"), ..NodeDescription::default() },
        status: NodeStatus { state: status, message: String::new(), addr: String::new() },
        manager_status: None,
        skep: NodeInternals {
            data_path_addr: Some(Ipv4Addr::new(192, 0, 2, index)),
            data_path_key: Some(DataPathKey([index; 32])),
            ingress_addr: Some(Ipv4Addr::new(10, 0, 0, index)),
            ..NodeInternals::default()
        },
    }
}

/// Number 0 is ingress.
fn network(index: u8) -> Network {
    Network {
        id: NetworkId(format!("net{index}")),
        meta: meta(),
        spec: NetworkSpec { name: format!("network{index}"), ingress: index == 0, ..NetworkSpec::default() },
        allocation: Some(NetworkAllocation {
            vni: 4096 + u32::from(index),
            subnet: Ipv4Net::new(Ipv4Addr::new(10, 0, index, 0), 24).unwrap(),
            gateway: Ipv4Addr::new(10, 0, index, 1),
            last_addr: None,
        }),
    }
}

fn addr(network: u8, host: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(10, 0, network, host), 24).unwrap()
}

/// A service on `networks`, with a VIP on each; publishing a port gives it one on ingress too.
fn service(index: u8, networks: &[u8], published: bool) -> Service {
    let config = |network: &u8| NetworkAttachmentConfig {
        target: format!("net{network}"),
        aliases: vec![format!("alias{index}")],
        ..NetworkAttachmentConfig::default()
    };
    let mut spec = ServiceSpec { name: format!("service{index}"), ..ServiceSpec::default() };
    spec.task_template.networks = networks.iter().map(config).collect();
    let ingress: &[u8] = if published { &[0] } else { &[] };
    let vip = |network: &u8| VirtualIp {
        network_id: NetworkId(format!("net{network}")),
        addr: addr(*network, 100 + index),
    };
    let port =
        PortConfig { target_port: 80, published_port: 8000 + u16::from(index), ..PortConfig::default() };
    let ports = if published { vec![port] } else { Vec::new() };
    Service {
        id: ServiceId(format!("s{index}")),
        meta: meta(),
        spec,
        previous_spec: None,
        endpoint: Endpoint {
            spec: EndpointSpec::default(),
            ports,
            virtual_ips: networks.iter().chain(ingress).map(vip).collect(),
        },
        pending_reason: String::new(),
    }
}

/// A running task of service 1 with an address on each of `networks`.
pub(super) fn task(index: u8, node: u8, networks: &[u8]) -> Task {
    let attachment = |network: &u8| Attachment {
        network: NetworkId(format!("net{network}")),
        addr: addr(*network, 10 + index),
        aliases: Vec::new(),
    };
    Task {
        id: TaskId(format!("t{index}")),
        meta: meta(),
        spec: TaskSpec { container_spec: Some(ContainerSpec::default()), ..TaskSpec::default() },
        service_id: ServiceId::from("s1"),
        service_name: "service1".to_owned(),
        slot: u64::from(index),
        node_id: NodeId(format!("n{node}")),
        status: TaskStatus {
            timestamp: Timestamp::UNIX_EPOCH,
            state: TaskState::Running,
            message: String::new(),
            err: String::new(),
            container_status: None,
        },
        desired_state: TaskState::Running,
        not_before: None,
        attachments: networks.iter().map(attachment).collect(),
    }
}

pub(super) fn state(
    nodes: impl IntoIterator<Item = Node>,
    services: impl IntoIterator<Item = Service>,
    tasks: impl IntoIterator<Item = Task>,
) -> State {
    State {
        revision: 1,
        cluster: None,
        nodes: nodes.into_iter().map(|node| (node.id.clone(), node)).collect(),
        networks: [0, 1, 2].map(network).into_iter().map(|network| (network.id.clone(), network)).collect(),
        services: services.into_iter().map(|service| (service.id.clone(), service)).collect(),
        tasks: tasks.into_iter().map(|task| (task.id.clone(), task)).collect(),
    }
}

pub(super) fn ready(index: u8) -> Node {
    node(index, NodeState::Ready)
}

/// The keys of what node `index` is assigned.
fn keys(state: &State, index: u8) -> Vec<String> {
    assignments(state, &NodeId(format!("n{index}"))).into_keys().map(|key| key.0).collect()
}

fn get(state: &State, index: u8, key: &str) -> Assignment {
    assignments(state, &NodeId(format!("n{index}"))).remove(&Key(key.to_owned())).expect("assigned")
}

fn endpoint(state: &State, index: u8, key: &str) -> EndpointAssignment {
    let Assignment::Endpoint(endpoint) = get(state, index, key) else { panic!("{key} is no endpoint") };
    endpoint
}

fn service_assignment(state: &State, index: u8, key: &str) -> ServiceAssignment {
    let Assignment::Service(service) = get(state, index, key) else { panic!("{key} is no service") };
    service
}

#[test]
fn a_node_learns_of_the_networks_it_has_a_foot_on_and_of_no_other() {
    let state = state(
        [ready(1), ready(2)],
        [service(1, &[1], false), service(2, &[2], false)],
        [task(1, 1, &[1]), task(2, 2, &[1]), task(3, 2, &[2])],
    );
    let of_first = [
        "endpoint/net1/t1",
        "endpoint/net1/t2",
        "network/net0",
        "network/net1",
        "node/self",
        "peer/n2",
        "service/s1",
        "task/t1",
    ];
    assert_eq!(keys(&state, 1), of_first);
    assert!(keys(&state, 2).contains(&"network/net2".to_owned()));
}

#[test]
fn every_node_carries_ingress_and_every_published_service() {
    let published = service(1, &[1], true);
    let state = state([ready(1), ready(2)], [published, service(2, &[2], false)], [task(1, 1, &[1, 0])]);
    let away = ["endpoint/net0/t1", "network/net0", "node/self", "peer/n1", "service/s1"];
    assert_eq!(keys(&state, 2), away);
    let service = service_assignment(&state, 2, "service/s1");
    assert_eq!(service.ports.len(), 1);
    let vips: Vec<_> = service.networks.iter().map(|n| (n.network.as_str(), n.vip)).collect();
    assert_eq!(vips, [("net0", Some(Ipv4Addr::new(10, 0, 0, 101)))], "not the VIP of a network it lacks");
    assert_eq!(service_assignment(&state, 1, "service/s1").networks.len(), 2);
}

#[test]
fn only_what_runs_and_shall_run_on_a_node_that_is_up_is_serving() {
    let serving = |edit: &dyn Fn(&mut Task, &mut Node)| {
        let (mut task, mut node) = (task(1, 2, &[1]), ready(2));
        edit(&mut task, &mut node);
        let state = state([ready(1), node], [service(1, &[1], false)], [task, self::task(2, 1, &[1])]);
        endpoint(&state, 1, "endpoint/net1/t1").serving
    };
    assert!(serving(&|_, _| ()));
    assert!(!serving(&|task, _| task.status.state = TaskState::Starting));
    assert!(!serving(&|task, _| task.desired_state = TaskState::Shutdown));
    assert!(!serving(&|_, node| node.status.state = NodeState::Down));
    assert!(serving(&|_, node| node.status.state = NodeState::Disconnected));
}

#[test]
fn a_task_reaches_its_node_with_its_addresses_and_stays_until_it_has_ended() {
    let present = |edit: &dyn Fn(&mut Task)| {
        let mut task = task(1, 1, &[1]);
        task.spec.networks = vec![NetworkAttachmentConfig::default()];
        edit(&mut task);
        keys(&state([ready(1)], [service(1, &[1], false)], [task]), 1).contains(&"task/t1".to_owned())
    };
    assert!(!present(&|task| task.status.state = TaskState::Pending));
    assert!(present(&|task| task.status.state = TaskState::Assigned));
    assert!(!present(&|task| task.attachments.clear()));
    assert!(present(&|task| task.desired_state = TaskState::Remove), "it has to be stopped");
    assert!(!present(&|task| task.status.state = TaskState::Failed));
}

#[test]
fn dnsrr_services_have_no_vip_and_vips_that_are_not_allocated_keep_quiet() {
    let mut dnsrr = service(1, &[1], false);
    dnsrr.spec.endpoint_spec.mode = EndpointMode::Dnsrr;
    let mut waiting = service(2, &[1], false);
    waiting.endpoint.virtual_ips.clear();
    let state = state([ready(1)], [dnsrr, waiting], [task(1, 1, &[1])]);
    let service = service_assignment(&state, 1, "service/s1");
    let expected =
        ServiceNetwork { network: NetworkId::from("net1"), vip: None, aliases: vec!["alias1".to_owned()] };
    assert_eq!(service.networks, [expected]);
    assert!(!keys(&state, 1).contains(&"service/s2".to_owned()));
}

#[test]
fn an_attachment_is_an_endpoint_without_service_and_without_container() {
    let mut attached = task(1, 1, &[1]);
    attached.spec.network_attachment_spec = Some(NetworkAttachmentSpec::default());
    (attached.service_id, attached.service_name, attached.slot) =
        (ServiceId::default(), "laptop".to_owned(), 0);
    let state = state([ready(1)], [], [attached]);
    let endpoint = endpoint(&state, 1, "endpoint/net1/t1");
    assert_eq!((endpoint.service, endpoint.task_name.as_str(), endpoint.serving), (None, "laptop", true));
    let Assignment::Task(task) = get(&state, 1, "task/t1") else { panic!("no task") };
    assert_eq!((task.container, task.service), (None, None));
}

#[test]
fn a_host_that_left_and_joined_again_is_one_peer() {
    let mut again = ready(3);
    again.skep.data_path_addr = node(2, NodeState::Down).skep.data_path_addr;
    let state = state([ready(1), node(2, NodeState::Down), again], [], []);
    let peers = |of| keys(&state, of).into_iter().filter(|key| key.starts_with("peer/")).collect::<Vec<_>>();
    assert_eq!(peers(1), ["peer/n3"]);
    assert_eq!(peers(3), ["peer/n1"], "its own former self neither");
}

#[test]
fn a_peer_that_is_down_says_so_and_one_that_never_came_is_left_out() {
    let mut never = ready(3);
    never.skep.data_path_addr = None;
    let state = state([ready(1), node(2, NodeState::Down), never], [], []);
    let Assignment::Peer(peer) = get(&state, 1, "peer/n2") else { panic!("no peer") };
    assert!(!peer.up);
    assert!(!keys(&state, 1).contains(&"peer/n3".to_owned()));
    let Assignment::Node(this) = get(&state, 1, "node/self") else { panic!("no node") };
    assert_eq!(this.ingress_addr, Some("10.0.0.1/24".parse().unwrap()));
}

#[test]
fn a_stranger_is_assigned_nothing() {
    assert!(assignments(&state([ready(1)], [], []), &NodeId::from("n9")).is_empty());
}

/// Its tasks are made anew elsewhere a moment later; until then nobody may send to where they were.
#[test]
fn a_node_that_was_removed_is_no_peer_and_its_endpoints_are_gone_with_it() {
    let mut state =
        state([ready(1), ready(2)], [service(1, &[1], false)], [task(1, 1, &[1]), task(2, 2, &[1])]);
    let of_second = |state: &State| -> Vec<String> {
        keys(state, 1).into_iter().filter(|key| key.ends_with("/n2") || key.ends_with("/t2")).collect()
    };
    assert_eq!(of_second(&state), ["endpoint/net1/t2", "peer/n2"]);
    state.nodes.insert(NodeId::from("n2"), node(2, NodeState::Down));
    assert_eq!(of_second(&state), ["endpoint/net1/t2", "peer/n2"], "one that is down may be back");
    state.nodes.remove(&NodeId::from("n2"));
    assert!(of_second(&state).is_empty() && keys(&state, 2).is_empty());
}

#[test]
fn peers_come_with_their_keys_and_networks_with_their_policy() {
    let mut state = state([ready(1), ready(2)], [service(1, &[1], false)], [task(1, 1, &[1])]);
    let Assignment::Peer(peer) = get(&state, 1, "peer/n2") else { panic!() };
    assert_eq!(peer.data_path_key, DataPathKey([2; 32]));
    state.networks.get_mut(&NetworkId::from("net1")).unwrap().spec.plain = true;
    let encrypted = |key: &str| match get(&state, 1, key) {
        Assignment::Network(network) => network.encrypted,
        other => panic!("{other:?}"),
    };
    assert_eq!((encrypted("network/net0"), encrypted("network/net1")), (true, false));
    let mut nameless = ready(2);
    nameless.skep.data_path_key = None;
    state.nodes.insert(nameless.id.clone(), nameless);
    assert!(!keys(&state, 1).contains(&"peer/n2".to_owned()), "nobody could know it");
}

/// Two peers with one VTEP would be two keys for one session.
#[test]
fn a_vtep_is_one_nodes_whoever_names_it() {
    let made = |index: u8, status, second| {
        let mut node = node(index, status);
        node.skep.data_path_addr = Some(Ipv4Addr::new(192, 0, 2, 9));
        node.meta.created_at = Timestamp::from_second(second).unwrap();
        node
    };
    let (up, down) = (NodeState::Ready, NodeState::Down);
    for (nodes, owner) in [
        ([made(2, down, 5), made(3, up, 9)], "peer/n3"),
        ([made(2, up, 5), made(3, down, 9)], "peer/n2"),
        ([made(2, down, 5), made(3, down, 9)], "peer/n3"),
        ([made(2, down, 9), made(3, down, 5)], "peer/n2"),
        ([made(2, up, 5), made(3, up, 9)], "peer/n2"),
        ([made(2, up, 9), made(3, up, 5)], "peer/n3"),
    ] {
        let state = state([ready(1)].into_iter().chain(nodes), [], []);
        let mut keys = keys(&state, 1);
        keys.retain(|key| key.starts_with("peer/"));
        assert_eq!(keys, [owner]);
    }
}
