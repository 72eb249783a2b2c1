//! Whatever mix of clients, ports and ways in: an answer comes back from where it was asked, to whom
//! asked, and never to another.

use crate::sim::*;
use proptest::prelude::*;
use skep_dataplane::DropReason;
use skep_dataplane::snapshot::{EndpointKind, L4, ServicePorts};
use std::net::Ipv4Addr;

const OVERLAY_VIP: &str = "10.1.0.2";
const TASKS: [&str; 4] = ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"];
const INGRESS_VIP: &str = "10.0.0.5";
const INGRESS_TASKS: [&str; 3] = ["10.0.0.6", "10.0.0.7", "10.0.0.8"];
const HOSTS: [&str; 3] = ["10.0.0.251", "10.0.0.252", "10.0.0.253"];
const OUTSIDE: [&str; 2] = ["192.168.77.200", "192.168.77.201"];
const HOST_PORT: u32 = 100;

/// A question: who asks whom, from which port.
#[derive(Clone, Debug)]
enum Ask {
    /// A task asks a VIP or another task, which may be itself.
    Overlay { client: usize, server: Option<usize>, port: u16 },
    /// An outside machine, or the node itself (`None`), asks a node's published port.
    Published { client: Option<usize>, node: usize, port: u16 },
    /// The service's list becomes these of its tasks.
    Scale { tasks: usize },
}

fn ask() -> impl Strategy<Value = Ask> {
    let port = 4000u16..4004;
    prop_oneof![
        4 => (0..4usize, prop::option::of(0..4usize), port.clone())
            .prop_map(|(client, server, port)| Ask::Overlay { client, server, port }),
        4 => (prop::option::of(0..2usize), 1..4usize, port)
            .prop_map(|(client, node, port)| Ask::Published { client, node, port }),
        1 => (1..4usize).prop_map(|tasks| Ask::Scale { tasks }),
    ]
}

fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container(TASKS[0], 1, 1)
        .container(TASKS[1], 1, 2)
        .container(TASKS[2], 2, 1)
        .container(TASKS[3], 3, 1)
        .service(OVERLAY_VIP, &TASKS, ServicePorts::All);
    let mut ingress = Overlay::new(4096, "10.0.0.0/24", "10.0.0.1")
        .host(HOSTS[0], 1, HOST_PORT)
        .host(HOSTS[1], 2, HOST_PORT)
        .host(HOSTS[2], 3, HOST_PORT)
        .container(INGRESS_TASKS[0], 1, 11)
        .container(INGRESS_TASKS[1], 2, 11)
        .container(INGRESS_TASKS[2], 3, 11)
        .service(INGRESS_VIP, &INGRESS_TASKS, ServicePorts::Only(vec![(L4::Udp, 53)]));
    ingress.ingress = true;
    Sim::new(3, vec![overlay, ingress])
}

/// Every container's place: address, node, port, its gateway.
fn containers(sim: &Sim) -> Vec<(Ipv4Addr, usize, u32, &'static str)> {
    let of = |network: &Overlay| {
        let gateway = network.gateway;
        let all = network.endpoints.clone().into_iter();
        let tasks = all.filter(|(.., kind)| *kind == EndpointKind::Container);
        tasks.map(move |(address, node, port, _)| (ip(address), node, port, gateway)).collect::<Vec<_>>()
    };
    sim.cluster.networks.iter().flat_map(of).collect()
}

/// Asks, lets whoever is asked echo, and checks what the asker gets.
#[track_caller]
fn echo(sim: &mut Sim, node: usize, port: u32, question: &Make, from: u16, tag: u32) {
    let payload = tag.to_be_bytes();
    sim.send(node, port, &question.udp(from, 53, &payload));
    let mut asked = Vec::new();
    for (address, node, port, gateway) in containers(sim) {
        for (_, frame) in sim.received(node, port) {
            let seen = Seen::read(&frame);
            assert_eq!((seen.dst, seen.dst_port, &seen.payload[..]), (address, 53, &payload[..]));
            asked.push((seen, node, port, gateway));
        }
    }
    let [(seen, task_node, task_port, gateway)] = &asked[..] else {
        panic!("one task is asked, not {}", asked.len());
    };
    // Its routes send what is not on the link, and for ingress everything, to the gateway.
    let mut answer = from_to(&seen.dst.to_string(), &seen.src.to_string());
    if *gateway == "10.0.0.1" {
        answer = answer.via(gateway);
    }
    sim.send(*task_node, *task_port, &answer.udp(53, seen.src_port, &payload));
    let back = sim.receive(node, port);
    assert_eq!(back.ends(), (question.dst, 53, question.src, from));
    assert_eq!(back.payload, payload);
    sim.assert_silent();
}

/// Where networks are sealed, nodes that meet for the first time have to show each other that they are there.
const GREETING: DropReason = DropReason::HandshakeStale;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_answer_finds_its_question(asks in prop::collection::vec(ask(), 1..60)) {
        let mut sim = sim();
        for (tag, ask) in asks.iter().enumerate() {
            let tag = tag as u32;
            match ask {
                Ask::Overlay { client, server, port } => {
                    let server = server.map_or(OVERLAY_VIP, |n| TASKS[n]);
                    let client = TASKS[*client];
                    if server == client {
                        continue; // its kernel keeps that to itself
                    }
                    let (_, node, switch_port, _) =
                        containers(&sim).into_iter().find(|(address, ..)| *address == ip(client)).unwrap();
                    echo(&mut sim, node, switch_port, &from_to(client, server), *port, tag);
                }
                Ask::Published { client, node, port } => {
                    let client = client.map_or(HOSTS[node - 1], |n| OUTSIDE[n]);
                    let question = from_to(client, INGRESS_VIP).by(HOSTS[node - 1]);
                    echo(&mut sim, *node, HOST_PORT, &question, *port, tag);
                }
                Ask::Scale { tasks } => {
                    let overlay = service(OVERLAY_VIP, &TASKS[..*tasks], ServicePorts::All);
                    let ports = ServicePorts::Only(vec![(L4::Udp, 53)]);
                    let published = service(INGRESS_VIP, &INGRESS_TASKS[..*tasks], ports);
                    sim.cluster.networks[0].services = vec![overlay];
                    sim.cluster.networks[1].services = vec![published];
                    sim.publish();
                }
            }
        }
        for node in 1..=3 {
            let drops = sim.engine(node).stats().drops;
            let lost: Vec<_> = drops.into_iter().filter(|(why, n)| *n > 0 && *why != GREETING).collect();
            prop_assert_eq!(lost, vec![]);
        }
    }
}

#[test]
fn two_networks_with_the_same_addresses_exchange_nothing() {
    let network = |vni, port| {
        Overlay::new(vni, "10.1.0.0/24", "10.1.0.1")
            .container("10.1.0.3", 1, port)
            .container("10.1.0.4", 2, port)
            .service("10.1.0.2", &["10.1.0.4"], ServicePorts::All)
    };
    let mut sim = Sim::new(2, vec![network(4097, 1), network(4098, 2)]);
    for port in [1, 2] {
        sim.send(1, port, &from_to("10.1.0.3", "10.1.0.2").udp(4000, 53, &[port as u8]));
        assert_eq!(sim.receive(2, port).payload, [port as u8]);
        sim.assert_silent();
    }
    assert_eq!(sim.engine(1).stats().flows, 2);
}

#[test]
fn a_full_flow_table_drops_by_name_and_leaves_live_flows_alone() {
    let mut sim = sim();
    let capacity = sim.engine(1).stats().flow_capacity;
    // Conversations that go on, of so many clients that each is within its share.
    let client = |nth: usize| format!("198.18.{}.{}", nth % 1000 / 250, nth % 250 + 1);
    let port = |nth: usize| 1024 + (nth / 1000) as u16;
    let ask = |nth: usize, payload: &[u8]| {
        from_to(&client(nth), INGRESS_VIP).by(HOSTS[0]).udp(port(nth), 53, payload)
    };
    sim.cluster.networks[1].services =
        vec![service(INGRESS_VIP, &INGRESS_TASKS[..1], ServicePorts::Only(vec![(L4::Udp, 53)]))];
    sim.publish();
    for nth in 0..capacity {
        sim.send(1, HOST_PORT, &ask(nth, b"?"));
        let answer = from_to(INGRESS_TASKS[0], &client(nth)).via("10.0.0.1");
        sim.send(1, 11, &answer.udp(53, port(nth), b"!"));
        sim.send(1, HOST_PORT, &ask(nth, b"?"));
        sim.clear();
    }
    assert_eq!((sim.engine(1).stats().flows, sim.engine(1).stats().flows_displaced), (capacity, 0));
    sim.send(1, HOST_PORT, &from_to("203.0.113.1", INGRESS_VIP).by(HOSTS[0]).udp(7, 53, b"one more"));
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::FlowTableFull), 1);
    sim.send(1, HOST_PORT, &ask(0, b"still here"));
    assert_eq!(sim.received(1, 11).len(), 1);
    assert_eq!(sim.engine(1).stats().flows, capacity);
}
