//! Published ports: in at one node, served at another, the client's address kept.

use crate::sim::*;
use skep_dataplane::DropReason;
use skep_dataplane::ids::MacAddr;
use skep_dataplane::snapshot::{L4, ServicePorts};
use std::collections::BTreeSet;

const CLIENT: &str = "192.168.77.200";
const GATEWAY: &str = "10.0.0.1";
const VIP: &str = "10.0.0.5";
const TASKS: [&str; 2] = ["10.0.0.7", "10.0.0.8"];
/// The address of `skep0` on each node, and its port.
const HOSTS: [&str; 3] = ["10.0.0.251", "10.0.0.252", "10.0.0.253"];
const HOST: u32 = 100;

/// Tasks on nodes 2 and 3 (port 1); node 1 has none.
fn sim_of(tasks: &[&str]) -> Sim {
    let ports = ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 53)]);
    let mut ingress = Overlay::new(4096, "10.0.0.0/24", GATEWAY)
        .host(HOSTS[0], 1, HOST)
        .host(HOSTS[1], 2, HOST)
        .host(HOSTS[2], 3, HOST)
        .container(TASKS[0], 2, 1)
        .container(TASKS[1], 3, 1)
        .service(VIP, tasks, ports);
    ingress.ingress = true;
    Sim::new(3, vec![ingress])
}

/// What the kernel of node `n` sends out of `skep0` for a client.
fn entering(n: usize, client: &str) -> Make {
    from_to(client, VIP).by(HOSTS[n - 1])
}

/// What a task sends to an address that is not on its link.
fn leaving(task: &str, client: &str) -> Make {
    from_to(task, client).via(GATEWAY)
}

#[test]
fn a_task_on_another_node_sees_the_client_and_the_client_sees_the_vip() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "S", 100, 0, b""));
    let syn = sim.receive(2, 1);
    assert_eq!(syn.ends(), (ip(CLIENT), 40000, ip(TASKS[0]), 80));
    assert_eq!(syn.src_mac, MacAddr::for_ip(ip(GATEWAY)), "the outside is behind the gateway");
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, 40000, "SA", 500, 101, b""));
    let answer = sim.receive(1, HOST);
    assert_eq!(answer.ends(), (ip(VIP), 80, ip(CLIENT), 40000));
    assert_eq!(answer.dst_mac, MacAddr::for_ip(ip(HOSTS[0])));
    assert_eq!(answer.src_mac, MacAddr::for_ip(ip(VIP)));
    sim.assert_silent();
}

#[test]
fn a_task_on_the_same_node_goes_through_the_same_code() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(2, HOST, &entering(2, CLIENT).udp(40000, 53, b"?"));
    assert_eq!(sim.receive(2, 1).ends(), (ip(CLIENT), 40000, ip(TASKS[0]), 53));
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).udp(53, 40000, b"!"));
    assert_eq!(sim.receive(2, HOST).ends(), (ip(VIP), 53, ip(CLIENT), 40000));
    assert!(sim.wire.is_empty());
}

#[test]
fn every_node_balances_over_all_tasks() {
    for node in 1..=3 {
        let mut sim = sim_of(&TASKS);
        for port in 40000..40004 {
            sim.send(node, HOST, &entering(node, CLIENT).tcp(port, 80, "S", 1, 0, b""));
        }
        assert_eq!((sim.received(2, 1).len(), sim.received(3, 1).len()), (2, 2));
    }
}

#[test]
fn the_same_client_port_through_two_nodes_stays_two_connections() {
    let mut sim = sim_of(&TASKS[..1]);
    let mut ports = BTreeSet::new();
    for node in [1, 3, 2] {
        sim.send(node, HOST, &entering(node, CLIENT).tcp(40000, 80, "S", 100, 0, b""));
        let syn = sim.receive(2, 1);
        assert_eq!((syn.src, syn.dst_port), (ip(CLIENT), 80));
        assert!(ports.insert(syn.src_port), "each connection has its own reply tuple");
        sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, syn.src_port, "SA", 500, 101, b""));
        let answer = sim.receive(node, HOST);
        assert_eq!(answer.ends(), (ip(VIP), 80, ip(CLIENT), 40000));
    }
    sim.assert_silent();
}

#[test]
fn a_finished_connection_through_another_node_lends_its_client_port_to_nobody() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "S", 100, 0, b""));
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, 40000, "SA", 500, 101, b""));
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, 40000, "FA", 501, 101, b""));
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "FA", 101, 502, b""));
    sim.received(2, 1);
    // The task keeps 40000 in TIME-WAIT. The client's kernel counts another way towards another node.
    sim.send(3, HOST, &entering(3, CLIENT).tcp(40000, 80, "S", 7, 0, b""));
    let other = sim.receive(2, 1);
    assert_ne!(other.src_port, 40000);
    // What comes again by the same node is the same client's, and continues its count.
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "S", 900, 0, b""));
    assert_eq!(sim.receive(2, 1).src_port, 40000);
    // A connection that was reset has left nothing behind.
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, 40000, "RA", 0, 901, b""));
    sim.send(2, HOST, &entering(2, CLIENT).tcp(40000, 80, "S", 7, 0, b""));
    assert_eq!(sim.receive(2, 1).src_port, 40000);
}

#[test]
fn a_loopback_client_is_its_nodes_ingress_address() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, HOSTS[0]).tcp(40000, 80, "S", 100, 0, b""));
    assert_eq!(sim.receive(2, 1).ends(), (ip(HOSTS[0]), 40000, ip(TASKS[0]), 80));
    // Its routes send everything from the task's ingress address to the gateway.
    sim.send(2, 1, &leaving(TASKS[0], HOSTS[0]).tcp(80, 40000, "SA", 500, 101, b""));
    assert_eq!(sim.receive(1, HOST).ends(), (ip(VIP), 80, ip(HOSTS[0]), 40000));
}

#[test]
fn the_entry_needs_no_memory_to_turn_an_answer_back() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, CLIENT).udp(40000, 53, b"?"));
    sim.receive(2, 1);
    sim.restart(1);
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).udp(53, 40000, b"!"));
    assert_eq!(sim.receive(1, HOST).ends(), (ip(VIP), 53, ip(CLIENT), 40000));
}

#[test]
fn the_tasks_node_takes_over_a_connection_it_does_not_know() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "S", 100, 0, b""));
    sim.receive(2, 1);
    sim.restart(2);
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "A", 101, 501, b""));
    sim.receive(2, 1);
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, 40000, "PA", 501, 101, b"x"));
    assert_eq!(sim.receive(1, HOST).payload, b"x");
}

#[test]
fn only_published_ports_are_served_at_either_end() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 22, "S", 100, 0, b""));
    assert_eq!(sim.receive(1, HOST).flags, "RA");
    sim.send(1, HOST, &entering(1, CLIENT).ping(1, b""));
    // A peer that does not check is checked here.
    for frame in [
        from_to(CLIENT, TASKS[0]).by(HOSTS[0]).tcp(40000, 22, "S", 100, 0, b""),
        from_to(CLIENT, TASKS[0]).by(HOSTS[0]).ping(1, b""),
        from_to(CLIENT, TASKS[1]).by(HOSTS[0]).via(TASKS[0]).tcp(40000, 80, "S", 100, 0, b""),
    ] {
        sim.inject(vtep(1), 2, &[&[8, 0, 0, 0, 0, 0x10, 0, 0], &frame[..]].concat());
    }
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::PortClosed), 2);
    assert_eq!(sim.dropped(2, DropReason::PortClosed), 2);
    assert_eq!(sim.dropped(2, DropReason::WrongDestination), 1);
}

#[test]
fn no_client_may_claim_an_address_of_the_overlays() {
    let mut sim = sim_of(&TASKS[..1]);
    for address in ["10.9.0.4", TASKS[1], VIP, GATEWAY, "127.0.0.1", "0.0.0.0", "224.0.0.1"] {
        sim.send(1, HOST, &entering(1, address).tcp(40000, 80, "S", 100, 0, b""));
        let frame = from_to(address, TASKS[0]).by(HOSTS[0]).tcp(40000, 80, "S", 100, 0, b"");
        sim.inject(vtep(1), 2, &[&[8, 0, 0, 0, 0, 0x10, 0, 0], &frame[..]].concat());
    }
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::ReservedSource), 7);
    assert_eq!(sim.dropped(2, DropReason::ReservedSource), 7);
}

#[test]
fn only_a_host_port_may_carry_foreign_sources() {
    let mut sim = sim_of(&TASKS);
    sim.send(2, 1, &from_to(CLIENT, TASKS[1]).by(TASKS[0]).udp(1, 53, b""));
    let frame = from_to(CLIENT, TASKS[0]).by(TASKS[1]).udp(1, 53, b"");
    sim.inject(vtep(3), 2, &[&[8, 0, 0, 0, 0, 0x10, 0, 0], &frame[..]].concat());
    assert_eq!(sim.dropped(2, DropReason::SpoofedSource), 2);
    // Past the VIP, or from one host to another.
    sim.send(1, HOST, &from_to(CLIENT, TASKS[0]).by(HOSTS[0]).udp(1, 53, b""));
    sim.send(1, HOST, &from_to(CLIENT, HOSTS[1]).by(HOSTS[0]).udp(1, 53, b""));
    assert_eq!(sim.dropped(1, DropReason::ForeignSource), 2);
    sim.assert_silent();
}

/// Each way into or along the ingress network that is not "from a host, by a VIP, to what is published, and back".
#[test]
fn the_mesh_is_no_way_in() {
    let tcp = |make: Make, port: u16| make.tcp(40000, port, "S", 100, 0, b"");
    let by_host = |make: Make| make.by(HOSTS[0]);
    // From node 1 itself: past the VIP, to a published port or not, to its own task or another node's, or to a node.
    for dst in [TASKS[0], TASKS[1], HOSTS[1]] {
        for (src, port) in [(HOSTS[0], 80), (HOSTS[0], 22), (CLIENT, 80)] {
            let mut sim = sim_of(&TASKS);
            sim.send(1, HOST, &tcp(by_host(from_to(src, dst)), port));
            sim.assert_silent();
            assert_eq!(sim.dropped(1, DropReason::ForeignSource), 1, "{src} to {dst}:{port}");
        }
    }
    // From a task: to another, to a VIP, to a node's own services, to another node's.
    for (dst, port, reason) in [
        (TASKS[1], 80, DropReason::IngressBetweenTasks),
        (TASKS[1], 22, DropReason::IngressBetweenTasks),
        (VIP, 80, DropReason::IngressBetweenTasks),
        (HOSTS[1], 22, DropReason::NoRoute),
        (HOSTS[0], 22, DropReason::NoRoute),
        ("192.168.77.1", 22, DropReason::NoRoute),
        ("10.9.0.4", 80, DropReason::NoRoute),
    ] {
        let mut sim = sim_of(&TASKS);
        sim.send(2, 1, &tcp(from_to(TASKS[0], dst).via(GATEWAY), port));
        assert_eq!(sim.dropped(2, reason), 1, "{dst}:{port}");
        assert!(sim.wire.is_empty() && sim.received(2, HOST).is_empty());
        // It is told, where that says nothing of others.
        let told = usize::from(reason == DropReason::NoRoute);
        assert_eq!(sim.received(2, 1).len(), told);
        sim.assert_silent();
    }
}

/// The same from a node that lets everything through: the receiver's engine checks too.
#[test]
fn nor_for_a_peer_that_does_not_check() {
    let header = [8, 0, 0, 0, 0, 0x10, 0, 0];
    for (from, frame, reason) in [
        (1, from_to(HOSTS[0], TASKS[0]).tcp(4000, 22, "S", 1, 0, b""), DropReason::PortClosed),
        (1, from_to(HOSTS[0], TASKS[0]).udp(4000, 80, b""), DropReason::PortClosed),
        (1, from_to(HOSTS[0], TASKS[0]).ping(1, b""), DropReason::PortClosed),
        (1, from_to(HOSTS[0], TASKS[0]).raw(47, b"gre"), DropReason::UnsupportedProtocol),
        (1, from_to(HOSTS[0], HOSTS[1]).tcp(4000, 22, "S", 1, 0, b""), DropReason::ForeignSource),
        (1, from_to(CLIENT, HOSTS[1]).by(HOSTS[0]).udp(1, 53, b""), DropReason::ForeignSource),
        (3, from_to(TASKS[1], TASKS[0]).tcp(4000, 80, "S", 1, 0, b""), DropReason::IngressBetweenTasks),
        // As if it answered, from the port it serves, what nobody asked.
        (3, from_to(TASKS[1], HOSTS[1]).tcp(80, 22, "S", 1, 0, b""), DropReason::NoFlow),
        (3, from_to(TASKS[1], CLIENT).via(HOSTS[1]).tcp(80, 22, "S", 1, 0, b""), DropReason::NoFlow),
        (3, from_to(TASKS[1], HOSTS[1]).tcp(4000, 22, "SA", 1, 0, b""), DropReason::NoFlow),
        (3, from_to(TASKS[1], HOSTS[1]).ping(1, b""), DropReason::NoFlow),
        // Node 3 speaks as node 1's host, and with a MAC that is nobody's.
        (3, from_to(CLIENT, TASKS[0]).by(HOSTS[0]).udp(1, 53, b""), DropReason::SpoofedMac),
        (1, from_to(CLIENT, TASKS[0]).by("10.0.0.99").udp(1, 53, b""), DropReason::SpoofedMac),
        (1, from_to(CLIENT, TASKS[0]).by(GATEWAY).udp(1, 53, b""), DropReason::SpoofedMac),
    ] {
        let mut sim = sim_of(&TASKS);
        sim.inject(vtep(from), 2, &[&header, &frame[..]].concat());
        sim.assert_silent();
        let drops: Vec<_> = sim.engine(2).stats().drops.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(drops, [(reason, 1)], "{:?}", Seen::read(&frame));
    }
}

#[test]
fn a_node_that_is_a_client_is_answered_without_memory_of_it() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, HOSTS[0]).udp(40000, 53, b"?"));
    sim.receive(2, 1);
    sim.restart(1);
    sim.send(2, 1, &leaving(TASKS[0], HOSTS[0]).udp(53, 40000, b"!"));
    assert_eq!(sim.receive(1, HOST).ends(), (ip(VIP), 53, ip(HOSTS[0]), 40000));
}

#[test]
fn a_task_cannot_reach_the_outside_through_ingress() {
    let mut sim = sim_of(&TASKS);
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, 40000, "SA", 500, 101, b""));
    assert_eq!(sim.receive(2, 1).flags, "R");
    sim.send(2, 1, &from_to(TASKS[0], CLIENT).via(HOSTS[0]).udp(53, 40000, b""));
    sim.assert_silent();
    assert_eq!(sim.dropped(2, DropReason::NoRoute), 1);
    assert_eq!(sim.dropped(2, DropReason::WrongDestination), 1);
}

#[test]
fn errors_travel_both_ways_with_the_right_quotation() {
    let mut sim = sim_of(&TASKS[..1]);
    // Occupy the reply tuple, so that the port is rewritten at the task's node.
    sim.send(3, HOST, &entering(3, CLIENT).udp(40000, 53, b"first"));
    sim.receive(2, 1);
    let sent = entering(1, CLIENT).udp(40000, 53, b"second");
    sim.send(1, HOST, &sent);
    let seen = sim.receive(2, 1);
    assert_ne!(seen.src_port, 40000);

    let arrived = from_to(CLIENT, TASKS[0]).udp(seen.src_port, 53, b"second");
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).icmp_error(3, 3, &arrived));
    let error = sim.receive(1, HOST);
    assert_eq!((error.src, error.dst), (ip(VIP), ip(CLIENT)));
    // The addresses and ports of the quotation; its TTL went through no router here.
    assert_eq!(error.payload, sent[14..]);

    let answer = leaving(TASKS[0], CLIENT).ttl(63).udp(53, seen.src_port, b"answer");
    let shown = from_to(VIP, CLIENT).ttl(63).udp(53, 40000, b"answer");
    let router = "203.0.113.1";
    sim.send(1, HOST, &from_to(router, VIP).by(HOSTS[0]).icmp_error(3, 4, &shown));
    let error = sim.receive(2, 1);
    assert_eq!((error.src, error.dst), (ip(router), ip(TASKS[0])));
    assert_eq!(error.payload, answer[14..]);
}

#[test]
fn the_entry_turns_an_error_back_without_memory_too() {
    let mut sim = sim_of(&TASKS[..1]);
    let sent = entering(1, CLIENT).udp(40000, 53, b"?");
    sim.send(1, HOST, &sent);
    sim.receive(2, 1);
    sim.restart(1);
    let arrived = from_to(CLIENT, TASKS[0]).udp(40000, 53, b"?");
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).icmp_error(3, 3, &arrived));
    let error = sim.receive(1, HOST);
    assert_eq!((error.src, error.payload), (ip(VIP), sent[14..].to_vec()));
}

#[test]
fn a_removed_task_resets_the_client_at_its_entry() {
    let mut sim = sim_of(&TASKS[..1]);
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "S", 100, 0, b""));
    sim.receive(2, 1);
    sim.send(2, 1, &leaving(TASKS[0], CLIENT).tcp(80, 40000, "SA", 500, 101, b""));
    sim.receive(1, HOST);
    sim.send(1, HOST, &entering(1, CLIENT).tcp(40000, 80, "A", 101, 501, b""));
    sim.receive(2, 1);
    sim.cluster.networks[0].services[0].backends.clear();
    sim.publish();
    let reset = sim.receive(1, HOST);
    assert_eq!(reset.ends(), (ip(VIP), 80, ip(CLIENT), 40000));
    assert_eq!((reset.flags.as_str(), reset.seq), ("RA", 501));
    let frames = sim.received(2, 1);
    assert!(!frames.is_empty(), "the task is told as well");
    for (_, frame) in frames {
        assert_eq!(Seen::read(&frame).flags, "RA");
    }
}
