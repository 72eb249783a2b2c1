//! A node that is out of use: its backends leave the services while its endpoints stay, and what was open to them, or
//! came in through it, ends.

use crate::sim::*;
use skep_dataplane::DropReason;
use skep_dataplane::ids::MacAddr;
use skep_dataplane::snapshot::{EndpointKind, L4, ServicePorts};
use std::ops::Range;
use std::time::Duration;

const OUTSIDE: &str = "192.168.77.200";
const CLIENT: &str = "10.1.0.3";
const VIP: &str = "10.1.0.2";
const INGRESS_VIP: &str = "10.0.0.5";
const GATEWAY: &str = "10.0.0.1";
/// Of the service on the overlay and of the published one, on nodes 2 and 3.
const BACKENDS: [&str; 2] = ["10.1.0.5", "10.1.0.6"];
const TASKS: [&str; 2] = ["10.0.0.7", "10.0.0.8"];
const HOST: u32 = 100;

fn published() -> ServicePorts {
    ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 53)])
}

fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container(CLIENT, 1, 1)
        .container(BACKENDS[0], 2, 1)
        .container(BACKENDS[1], 3, 1)
        .service(VIP, &BACKENDS, ServicePorts::All);
    let mut ingress = Overlay::new(4096, "10.0.0.0/24", GATEWAY)
        .host("10.0.0.251", 1, HOST)
        .host("10.0.0.252", 2, HOST)
        .host("10.0.0.253", 3, HOST)
        .container(TASKS[0], 2, 2)
        .container(TASKS[1], 3, 2)
        .service(INGRESS_VIP, &TASKS, published());
    ingress.ingress = true;
    let mut sim = Sim::new(3, vec![overlay, ingress]);
    // So that it is known where a test's first flow goes.
    use_only(&mut sim, 0..1, 1);
    sim
}

/// A node balances over some of the backends only, as when it does not hear from the nodes of the others.
fn use_only(sim: &mut Sim, which: Range<usize>, node: usize) {
    let all = sim.cluster.clone();
    sim.cluster.networks[0].services = vec![service(VIP, &BACKENDS[which.clone()], ServicePorts::All)];
    sim.cluster.networks[1].services = vec![service(INGRESS_VIP, &TASKS[which], published())];
    sim.publish_to(node);
    sim.cluster = all;
}

/// Node 1 takes node 2 out of use: node 3's backends serve instead.
fn take_out_node_2(sim: &mut Sim) {
    use_only(sim, 1..2, 1);
}

/// What the kernel of node 1 sends for the outside client.
fn entering(node: usize) -> Make {
    from_to(OUTSIDE, INGRESS_VIP).by(["10.0.0.251", "10.0.0.252", "10.0.0.253"][node - 1])
}

fn leaving(task: &str) -> Make {
    from_to(task, OUTSIDE).via(GATEWAY)
}

/// A connection of the outside client through `node` to the task of node 2.
fn enter(sim: &mut Sim, node: usize, port: u16) {
    sim.send(node, HOST, &entering(node).tcp(port, 80, "S", 100, 0, b""));
    let syn = sim.receive(2, 2);
    sim.send(2, 2, &leaving(TASKS[0]).tcp(80, syn.src_port, "SA", 500, 101, b""));
    sim.receive(node, HOST);
    sim.send(node, HOST, &entering(node).tcp(port, 80, "A", 101, 501, b""));
    sim.receive(2, 2);
}

#[test]
fn a_container_hears_of_its_connections_end_and_the_next_one_is_served() {
    let mut sim = sim();
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 80, "S", 100, 0, b""));
    sim.send(2, 1, &from_to(BACKENDS[0], CLIENT).tcp(80, 4000, "SA", 500, 101, b""));
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 80, "A", 101, 501, b""));
    sim.clear();
    take_out_node_2(&mut sim);
    let reset = sim.receive(1, 1);
    assert_eq!(reset.ends(), (ip(VIP), 80, ip(CLIENT), 4000));
    assert_eq!((reset.flags.as_str(), reset.seq, reset.ack), ("RA", 501, 101));
    assert_eq!(sim.receive(2, 1).flags, "RA", "the backend too, if it can still hear");
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 80, "S", 9, 0, b""));
    assert_eq!(sim.receive(3, 1).dst, ip(BACKENDS[1]));
}

#[test]
fn a_connection_that_was_still_opening_is_reset_too() {
    let mut sim = sim();
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 80, "S", 100, 0, b""));
    sim.clear();
    take_out_node_2(&mut sim);
    let reset = sim.receive(1, 1);
    assert_eq!(
        (reset.flags.as_str(), reset.ack),
        ("RA", 101),
        "in SYN-SENT a reset has to acknowledge the SYN"
    );
}

#[test]
fn datagrams_go_on_to_another_node_with_the_next_one() {
    let mut sim = sim();
    let overlay = from_to(CLIENT, VIP).udp(4000, 53, b"?");
    let outside = entering(1).udp(40000, 53, b"?");
    sim.send(1, 1, &overlay);
    sim.send(1, HOST, &outside);
    assert_eq!((sim.received(2, 1).len(), sim.received(2, 2).len()), (1, 1));
    take_out_node_2(&mut sim);
    sim.assert_silent();
    sim.send(1, 1, &overlay);
    assert_eq!(sim.receive(3, 1).dst, ip(BACKENDS[1]));
    sim.send(1, HOST, &outside);
    assert_eq!(sim.receive(3, 2).ends(), (ip(OUTSIDE), 40000, ip(TASKS[1]), 53));
    sim.send(3, 2, &leaving(TASKS[1]).udp(53, 40000, b"!"));
    assert_eq!(sim.receive(1, HOST).ends(), (ip(INGRESS_VIP), 53, ip(OUTSIDE), 40000));
}

#[test]
fn an_outside_client_hears_of_its_connections_end() {
    let mut sim = sim();
    enter(&mut sim, 1, 40000);
    take_out_node_2(&mut sim);
    let reset = sim.receive(1, HOST);
    assert_eq!(reset.ends(), (ip(INGRESS_VIP), 80, ip(OUTSIDE), 40000));
    assert_eq!((reset.flags.as_str(), reset.seq, reset.ack), ("RA", 501, 101));
    assert_eq!(
        reset.dst_mac,
        MacAddr::for_ip(ip("10.0.0.251")),
        "to the host's kernel, which knows the client"
    );
    assert_eq!(sim.receive(2, 2).flags, "RA");
    assert_eq!(sim.engine(1).stats().flows, 0);
    sim.send(1, HOST, &entering(1).tcp(40000, 80, "S", 9, 0, b""));
    assert_eq!(sim.receive(3, 2).dst, ip(TASKS[1]));
}

#[test]
fn connections_of_the_same_client_through_other_nodes_live_on() {
    let mut sim = sim();
    use_only(&mut sim, 0..1, 2);
    enter(&mut sim, 1, 40000);
    enter(&mut sim, 2, 40001);
    take_out_node_2(&mut sim);
    sim.clear();
    sim.send(2, HOST, &entering(2).tcp(40001, 80, "PA", 101, 501, b"x"));
    assert_eq!(sim.receive(2, 2).payload, b"x");
    sim.send(2, 2, &leaving(TASKS[0]).tcp(80, 40001, "PA", 501, 102, b"y"));
    assert_eq!(sim.receive(2, HOST).payload, b"y");
}

#[test]
fn a_direct_connection_outlives_what_may_be_a_blip() {
    let mut sim = sim();
    sim.send(1, 1, &from_to(CLIENT, BACKENDS[0]).tcp(4000, 80, "S", 100, 0, b""));
    sim.clear();
    take_out_node_2(&mut sim);
    sim.assert_silent();
    sim.send(2, 1, &from_to(BACKENDS[0], CLIENT).tcp(80, 4000, "SA", 500, 101, b""));
    assert_eq!(sim.receive(1, 1).ends(), (ip(BACKENDS[0]), 80, ip(CLIENT), 4000));
}

/// Node 1 leaves the cluster: for node 2 its `skep0` is gone.
fn node_1_leaves(sim: &mut Sim) {
    let is_left =
        |(_, node, _, kind): &(&str, usize, u32, EndpointKind)| *node == 1 && *kind == EndpointKind::Host;
    sim.cluster.networks[1].endpoints.retain(|endpoint| !is_left(endpoint));
    sim.publish_to(2);
}

#[test]
fn a_task_hears_that_the_node_its_client_came_through_is_gone() {
    let mut sim = sim();
    enter(&mut sim, 1, 40000);
    sim.send(1, HOST, &entering(1).udp(40000, 53, b"?"));
    sim.receive(2, 2);
    assert_eq!(sim.engine(2).stats().flows, 2);
    let on_the_wire = sim.wire.len();
    node_1_leaves(&mut sim);
    let reset = sim.receive(2, 2);
    assert_eq!(reset.ends(), (ip(OUTSIDE), 40000, ip(TASKS[0]), 80));
    assert_eq!((reset.flags.as_str(), reset.seq, reset.ack), ("RA", 101, 501));
    assert_eq!(reset.src_mac, MacAddr::for_ip(ip(GATEWAY)), "from where its client's packets came");
    assert_eq!((sim.engine(2).stats().flows, sim.wire.len()), (0, on_the_wire));

    // The task's last words have no way to go, which it is told; nothing is left in the way of the same client.
    sim.send(2, 2, &leaving(TASKS[0]).udp(53, 40000, b"!"));
    assert_eq!(sim.receive(2, 2).icmp.unwrap().0, 3);
    assert_eq!(sim.dropped(2, DropReason::NoRoute), 1);
    use_only(&mut sim, 0..1, 3);
    sim.send(3, HOST, &entering(3).tcp(40000, 80, "S", 9, 0, b""));
    assert_eq!(sim.receive(2, 2).ends(), (ip(OUTSIDE), 40000, ip(TASKS[0]), 80), "with its own port");
}

#[test]
fn a_node_that_comes_back_is_used_again_and_keeps_nothing_of_before() {
    let mut sim = sim();
    enter(&mut sim, 1, 40000);
    take_out_node_2(&mut sim);
    sim.clear();
    sim.advance(Duration::from_secs(5));
    sim.publish_to(1);
    sim.assert_silent();
    for port in 41000..41004 {
        sim.send(1, HOST, &entering(1).tcp(port, 80, "S", 9, 0, b""));
    }
    assert_eq!((sim.received(2, 2).len(), sim.received(3, 2).len()), (2, 2));
}
