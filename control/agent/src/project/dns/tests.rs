use super::*;
use crate::project::example::{self, INGRESS, NET, WEB_VIP};
use skep_model::assign::{Assignment, Desired, ServiceNetwork};
use skep_model::service::EndpointMode;

fn names(desired: &Desired) -> Zone {
    let records = records(&Cluster::of(desired), &Local::default());
    let ingress = &records.zones[INGRESS];
    assert!(ingress.names.is_empty() && ingress.reverse.is_empty(), "ingress has no names");
    assert_eq!(ingress.subnet, Some("10.0.0.0/24".parse().unwrap()), "and nobody outside is asked for them");
    records.zones[NET].clone()
}

fn meaning(zone: &Zone, name: &str) -> Vec<u8> {
    zone.names
        .get(name)
        .map(|addresses| addresses.iter().map(|a| a.octets()[3]).collect())
        .unwrap_or_default()
}

#[test]
fn a_services_name_and_aliases_mean_its_vip_also_while_nothing_serves() {
    let zone = names(&example::desired([]));
    assert_eq!(meaning(&zone, "web"), [WEB_VIP.octets()[3]]);
    assert_eq!(meaning(&zone, "www"), [WEB_VIP.octets()[3]]);
    for name in ["tasks.web", "tasks.www"] {
        assert_eq!(zone.names[name], [] as [Ipv4Addr; 0], "{name} is known, and nobody else's business");
    }
    assert_eq!((zone.name.as_str(), zone.subnet), ("net1-name", Some("10.0.1.0/24".parse().unwrap())));
    assert_eq!(zone.reverse[&WEB_VIP], "web");
}

#[test]
fn tasks_and_task_names_mean_what_serves() {
    let starting = EndpointAssignment { serving: false, ..example::endpoint(3, "n2") };
    let zone = names(&example::desired([example::endpoint(2, "n2"), example::endpoint(1, "n3"), starting]));
    assert_eq!(meaning(&zone, "tasks.web"), [11, 12]);
    assert_eq!(meaning(&zone, "tasks.www"), [11, 12]);
    for name in ["web.2.t2", "t2", short_id(&container_id("t2"))] {
        assert_eq!(meaning(&zone, name), [12], "{name}");
    }
    assert!(!zone.names.contains_key("web.3.t3"));
    assert_eq!(zone.reverse[&Ipv4Addr::new(10, 0, 1, 11)], "web.1.t1");
    assert_eq!(meaning(&zone, "www"), [WEB_VIP.octets()[3]], "a task's alias is its service's");
}

#[test]
fn without_a_vip_the_services_name_means_its_tasks() {
    let mut desired = example::desired([example::endpoint(1, "n2"), example::endpoint(2, "n3")]);
    let mut web = example::web();
    web.mode = EndpointMode::Dnsrr;
    web.networks.iter_mut().for_each(|foot| foot.vip = None);
    let web = Assignment::Service(web);
    desired.assignments.insert(web.key(), web);
    let zone = names(&desired);
    for name in ["web", "www", "tasks.web"] {
        assert_eq!(meaning(&zone, name), [11, 12], "{name}");
    }
    desired.assignments.retain(|key, _| !key.0.starts_with("endpoint/"));
    assert_eq!(
        names(&desired).names["web"],
        [] as [Ipv4Addr; 0],
        "a service without tasks is no outsider's name"
    );
}

/// Service `id` on the example's network, with this VIP and these aliases.
fn service(id: &str, name: &str, vip: u8, aliases: &[&str]) -> Assignment {
    Assignment::Service(ServiceAssignment {
        id: id.into(),
        name: name.to_owned(),
        networks: vec![ServiceNetwork {
            network: NET.into(),
            vip: Some(Ipv4Addr::new(10, 0, 1, vip)),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        }],
        ..example::web()
    })
}

#[test]
fn an_alias_of_two_services_means_both_but_a_services_name_that_service_alone() {
    let mut desired = example::desired([]);
    for other in [service("green", "green", 50, &["www", "Web"]), service("blue", "blue", 51, &["green"])] {
        desired.assignments.insert(other.key(), other);
    }
    let zone = names(&desired);
    assert_eq!(meaning(&zone, "www"), [WEB_VIP.octets()[3], 50]);
    assert_eq!(meaning(&zone, "web"), [WEB_VIP.octets()[3]]);
    assert_eq!(meaning(&zone, "green"), [50]);
}

#[test]
fn a_services_ports_lead_to_its_serving_tasks_by_number_and_by_name() {
    let mut web = example::web();
    web.ports[0].name = "HTTP".to_owned();
    // Published twice: the tasks have it once.
    web.ports.push(example::port(Protocol::Tcp, 8081, 80));
    let starting = EndpointAssignment { serving: false, ..example::endpoint(3, "n2") };
    let mut desired = example::desired([example::endpoint(2, "n2"), example::endpoint(1, "n3"), starting]);
    let web = Assignment::Service(web);
    desired.assignments.insert(web.key(), web);
    let zone = names(&desired);
    let at = |key: &str| {
        let instances = zone.services.get(key).map(Vec::as_slice).unwrap_or_default();
        instances.iter().map(|i| (i.name.as_str(), i.addr.octets()[3], i.port)).collect::<Vec<_>>()
    };
    for key in ["_80._tcp.web", "_http._tcp.web", "_80._tcp.www", "_http._tcp.www"] {
        assert_eq!(at(key), [("web.1.t1", 11, 80), ("web.2.t2", 12, 80)], "{key}");
    }
    assert_eq!(at("_9001._udp.web"), [("web.1.t1", 11, 9001), ("web.2.t2", 12, 9001)]);
    assert_eq!(at("_9001._tcp.web"), []);
    assert!(zone.names.contains_key("web.1.t1"), "what it leads to has an address");
    assert!(names(&example::desired([])).services.contains_key("_80._tcp.web"), "known while nothing serves");
}

#[test]
fn names_of_a_dead_nodes_tasks_are_gone() {
    let mut desired = example::desired([example::endpoint(1, "n2"), example::endpoint(2, "n3")]);
    let dead = example::peer("n3", false);
    desired.assignments.insert(dead.key(), dead);
    assert_eq!(meaning(&names(&desired), "tasks.web"), [11]);
}

#[test]
fn an_attachments_name_means_its_address_but_never_a_services() {
    let own = example::attachment("Laptop", 1, "n2");
    let nameless = example::attachment("", 2, "n2");
    let impostor = example::attachment("web", 3, "n2");
    let zone = names(&example::desired([own, nameless, impostor]));
    assert_eq!(meaning(&zone, "laptop"), [201]);
    assert_eq!(meaning(&zone, "web"), [WEB_VIP.octets()[3]]);
    assert_eq!(meaning(&zone, "a2"), [202], "a nameless one has its id");
    assert!(!zone.names.contains_key(""));
    assert!(!zone.reverse.contains_key(&Ipv4Addr::new(10, 0, 1, 202)));
}

#[test]
fn a_container_sees_its_own_networks_in_their_order() {
    let mut desired = example::desired([]);
    let second = Assignment::Network(example::network("net2", 4098, "10.0.2.0/24"));
    desired.assignments.insert(second.key(), second);
    let networks = ["net2", INGRESS, NET, "unknown"].map(NetworkId::from);
    let view = view(&Cluster::of(&desired), &networks, &["192.0.2.53".parse().unwrap()]);
    assert_eq!(view.zones, ["net2", INGRESS, NET], "ingress for its addresses: it has no names");
    assert_eq!(view.upstreams, ["192.0.2.53:53".parse().unwrap()]);
}

#[test]
fn on_internal_networks_alone_nothing_is_forwarded() {
    let internal = |id| NetworkAssignment { internal: true, ..example::network(id, 5000, "10.0.9.0/24") };
    let desired = Desired::new(
        1,
        [
            Assignment::Network(internal("inside")),
            Assignment::Network(example::network(INGRESS, 4096, "10.0.0.0/24")),
            Assignment::Network(example::network(NET, 4097, "10.0.1.0/24")),
        ],
    );
    let upstreams = |networks: &[&str]| {
        let networks: Vec<_> = networks.iter().map(|id| NetworkId::from(*id)).collect();
        view(&Cluster::of(&desired), &networks, &["192.0.2.53".parse().unwrap()]).upstreams.len()
    };
    assert_eq!(upstreams(&["inside"]), 0);
    assert_eq!(upstreams(&["inside", INGRESS]), 0);
    assert_eq!(upstreams(&["inside", NET]), 1);
    assert_eq!(upstreams(&[INGRESS]), 1);
    assert_eq!(upstreams(&[]), 1);
}
