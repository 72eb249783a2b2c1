use super::*;
use crate::project::example::{self, INGRESS, NET, WEB_INGRESS_VIP};
use skep_model::assign::{Assignment, Desired};
use skep_model::task::TaskState;

fn local() -> Local {
    Local { underlay_mtu: 1500, ..Local::default() }
}

#[test]
fn the_mesh_leads_published_ports_to_the_ingress_vip() {
    let desired = example::desired([]);
    let plan = mesh(&Cluster::of(&desired), &local()).unwrap();
    assert_eq!(plan.skep0.addr.to_string(), "10.0.0.2/24");
    assert_eq!((plan.skep0.port, plan.skep0.mtu), (SKEP0_PORT, 1418));
    let port =
        |protocol, published, target| PublishedPort { protocol, published, vip: WEB_INGRESS_VIP, target };
    assert_eq!(plan.ports, [port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 9000, 9001)]);
}

#[test]
fn without_an_ingress_address_there_is_no_mesh() {
    let mut desired = example::desired([]);
    let Assignment::Node(mut this) = example::this_node() else { unreachable!() };
    this.ingress_addr = None;
    let this = Assignment::Node(this);
    desired.assignments.insert(this.key(), this);
    assert_eq!(mesh(&Cluster::of(&desired), &local()), None);
}

#[test]
fn a_service_without_ingress_vip_publishes_nothing_yet() {
    let mut web = example::web();
    web.networks.retain(|foot| foot.network.as_str() != INGRESS);
    let web = Assignment::Service(web);
    let mut desired = example::desired([]);
    desired.assignments.insert(web.key(), web);
    assert!(mesh(&Cluster::of(&desired), &local()).unwrap().ports.is_empty());
}

#[test]
fn a_tasks_first_interface_is_on_its_first_overlay_and_ingress_comes_last() {
    let desired = example::desired([]);
    let sandboxing = sandboxing(&Cluster::of(&desired), &example::task(1, TaskState::Running)).unwrap();
    let networks: Vec<_> = sandboxing.places.iter().map(|place| place.network.id.as_str()).collect();
    assert_eq!(networks, [NET, INGRESS]);
    assert_eq!(sandboxing.places[0].addr.to_string(), "10.0.1.11/24");
    assert_eq!(sandboxing.udp_target_ports, [9001]);
    assert!(sandboxing.egress);
}

#[test]
fn a_task_on_internal_networks_alone_has_no_way_out() {
    let internal = NetworkAssignment { internal: true, ..example::network(NET, 4097, "10.0.1.0/24") };
    let ingress = example::network(INGRESS, 4096, "10.0.0.0/24");
    let desired = Desired::new(1, [Assignment::Network(internal), Assignment::Network(ingress)]);
    let sandboxing = sandboxing(&Cluster::of(&desired), &example::task(1, TaskState::Running)).unwrap();
    assert!(!sandboxing.egress);
}

#[test]
fn a_task_whose_network_is_missing_is_refused_by_name() {
    let task = example::task(1, TaskState::Running);
    let error = sandboxing(&Cluster::default(), &task).unwrap_err();
    assert_eq!(error.to_string(), format!("the manager assigned t1 without its network {INGRESS}"));
}
