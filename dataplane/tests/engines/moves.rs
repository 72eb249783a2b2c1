//! Endpoints that come, go and move; addresses that pass on to others; engines that begin anew; clocks that go back.

use crate::sim::*;
use skep_dataplane::DropReason;
use skep_dataplane::snapshot::{BackendState, EndpointKind, L4, ServicePorts};
use std::time::Duration;

const CLIENT: &str = "10.1.0.3";
const VIP: &str = "10.1.0.2";
const BACKENDS: [&str; 2] = ["10.1.0.5", "10.1.0.6"];

/// The client on node 1, a backend on each of nodes 2 and 3, and another container on node 2.
fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container(CLIENT, 1, 1)
        .container(BACKENDS[0], 2, 1)
        .container("10.1.0.7", 2, 2)
        .container(BACKENDS[1], 3, 1)
        .service(VIP, &BACKENDS, ServicePorts::All);
    Sim::new(3, vec![overlay])
}

fn place(sim: &mut Sim, address: &str, node: usize, port: u32) {
    let endpoints = &mut sim.cluster.networks[0].endpoints;
    let endpoint = endpoints.iter_mut().find(|(a, ..)| *a == address).unwrap();
    (endpoint.1, endpoint.2) = (node, port);
}

/// Which of the two backends is handed the frame that the client sends.
#[track_caller]
fn served_by(sim: &mut Sim, frame: &[u8]) -> (usize, Seen) {
    sim.send(1, 1, frame);
    let met: Vec<_> =
        [2, 3].into_iter().filter_map(|node| Some((node, sim.received(node, 1).pop()?.1))).collect();
    assert_eq!(met.len(), 1, "one backend");
    (met[0].0, Seen::read(&met[0].1))
}

/// From the client to the VIP, established; the node of its backend.
#[track_caller]
fn established(sim: &mut Sim, port: u16) -> usize {
    let (node, seen) = served_by(sim, &from_to(CLIENT, VIP).tcp(port, 80, "S", 100, 0, b""));
    sim.send(node, 1, &from_to(&seen.dst.to_string(), CLIENT).tcp(80, port, "SA", 500, 101, b""));
    sim.receive(1, 1);
    assert_eq!(served_by(sim, &from_to(CLIENT, VIP).tcp(port, 80, "A", 101, 501, b"")).0, node);
    node
}

fn data(port: u16) -> Vec<u8> {
    from_to(CLIENT, VIP).tcp(port, 80, "PA", 101, 501, b"x")
}

#[test]
fn an_endpoint_that_moves_is_reached_where_it_went_though_its_old_node_keeps_another() {
    let mut sim = sim();
    let asked = |n: u16| from_to(CLIENT, "10.1.0.7").udp(4000, n, b"?");
    sim.send(1, 1, &asked(1));
    sim.receive(2, 2);
    place(&mut sim, "10.1.0.7", 3, 8);
    sim.publish();
    sim.send(1, 1, &asked(2));
    sim.receive(3, 8);
    // Its neighbour of before too, and the one that stayed.
    sim.send(2, 1, &from_to(BACKENDS[0], "10.1.0.7").udp(4000, 3, b"?"));
    sim.receive(3, 8);
    sim.send(1, 1, &from_to(CLIENT, BACKENDS[0]).udp(4000, 4, b"?"));
    sim.receive(2, 1);
    // And it is heard from there alone.
    sim.send(3, 8, &from_to("10.1.0.7", CLIENT).udp(2, 4000, b"!"));
    sim.receive(1, 1);
    let late = from_to("10.1.0.7", CLIENT).udp(1, 4000, b"!");
    sim.inject(vtep(2), 1, &[&[8, 0, 0, 0, 0, 0x10, 1, 0], &late[..]].concat());
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::SpoofedMac), 1);
}

#[test]
fn nothing_passes_before_it_is_known_who_may_speak_to_whom() {
    let mut sim = sim();
    let networks = std::mem::take(&mut sim.cluster.networks);
    sim.restart(2);
    let frame = from_to(CLIENT, BACKENDS[0]).udp(4000, 53, b"?");
    sim.send(1, 1, &frame);
    sim.send(2, 1, &from_to(BACKENDS[0], "10.1.0.7").udp(4000, 53, b"?"));
    sim.send(2, 1, &from_to(BACKENDS[0], CLIENT).udp(4000, 53, b"?"));
    sim.assert_silent();
    assert_eq!((sim.dropped(2, DropReason::UnknownVni), sim.dropped(2, DropReason::UnknownPort)), (1, 2));
    sim.cluster.networks = networks;
    sim.publish_to(2);
    sim.send(1, 1, &frame);
    sim.receive(2, 1);
}

#[test]
fn datagrams_to_a_removed_service_reach_none_of_those_who_got_its_addresses() {
    let mut sim = sim();
    let question = from_to(CLIENT, VIP).udp(4000, 53, b"?");
    let (node, _) = served_by(&mut sim, &question);
    let gone = BACKENDS[node - 2];
    sim.cluster.networks[0].services.clear();
    sim.cluster.networks[0].endpoints.retain(|(address, ..)| *address != gone);
    sim.publish();
    sim.send(1, 1, &question);
    sim.assert_silent();
    // Another container gets the backend's address, and another the VIP's.
    let endpoints = &mut sim.cluster.networks[0].endpoints;
    endpoints.push((gone, 3, 8, EndpointKind::Container));
    endpoints.push((VIP, 2, 9, EndpointKind::Container));
    sim.publish();
    sim.send(1, 1, &question);
    assert_eq!(sim.receive(2, 9).dst, ip(VIP), "who has the address that was asked, and nobody else");
    sim.send(3, 8, &from_to(gone, CLIENT).udp(53, 4000, b"mine"));
    assert_eq!(sim.receive(1, 1).src, ip(gone), "shows itself, not the service of before");
    sim.assert_silent();
}

#[test]
fn flows_keep_their_backends_whatever_else_changes() {
    let mut sim = sim();
    let question = |n: u16| from_to(CLIENT, VIP).udp(n, 53, b"?");
    let asked: Vec<_> = (4000..4008).map(|n| served_by(&mut sim, &question(n)).0).collect();
    let opened: Vec<_> = (5000..5008).map(|n| established(&mut sim, n)).collect();
    let check = |sim: &mut Sim| {
        sim.assert_silent();
        let again: Vec<_> = (4000..4008).map(|n| served_by(sim, &question(n)).0).collect();
        let still: Vec<_> = (5000..5008).map(|n| served_by(sim, &data(n)).0).collect();
        assert_eq!((&again, &still), (&asked, &opened));
    };
    sim.publish();
    check(&mut sim);
    let before = sim.cluster.clone();
    place(&mut sim, "10.1.0.7", 3, 8);
    let other = Overlay::new(4098, "10.2.0.0/24", "10.2.0.1").container("10.2.0.3", 1, 7);
    sim.cluster.networks.insert(0, other.service("10.2.0.2", &["10.2.0.3"], ServicePorts::All));
    sim.publish();
    check(&mut sim);
    sim.cluster = before;
    sim.cluster.networks[0].services[0].backends.reverse();
    sim.publish();
    check(&mut sim);
    for backend in &mut sim.cluster.networks[0].services[0].backends {
        backend.state = BackendState::Draining;
    }
    sim.publish();
    check(&mut sim);
}

/// A node that has no task of the service, only clients that came in by it.
#[test]
fn an_entry_without_tasks_keeps_its_connections_through_every_snapshot() {
    const ENTRY: &str = "10.0.0.251";
    let ports = ServicePorts::Only(vec![(L4::Tcp, 80)]);
    let mut ingress = Overlay::new(4096, "10.0.0.0/24", "10.0.0.1")
        .host(ENTRY, 1, 100)
        .host("10.0.0.252", 2, 100)
        .container("10.0.0.7", 2, 1)
        .service("10.0.0.5", &["10.0.0.7"], ports);
    ingress.ingress = true;
    let mut sim = Sim::new(3, vec![ingress]);
    let from_client = |port: u16, flags: &str, seq, ack| {
        from_to("192.168.77.200", "10.0.0.5").by(ENTRY).tcp(port, 80, flags, seq, ack, b"")
    };
    let to_client = |port: u16, flags: &str, seq, ack| {
        from_to("10.0.0.7", "192.168.77.200").via("10.0.0.1").tcp(80, port, flags, seq, ack, b"")
    };
    for port in 40_000..41_000 {
        sim.send(1, 100, &from_client(port, "S", 100, 0));
        sim.receive(2, 1);
        sim.send(2, 1, &to_client(port, "SA", 500, 101));
        sim.receive(1, 100);
        sim.send(1, 100, &from_client(port, "A", 101, 501));
        sim.receive(2, 1);
    }
    sim.cluster.networks[0].endpoints.push(("10.0.0.8", 3, 1, EndpointKind::Container));
    sim.cluster.networks[0].services[0] = service(
        "10.0.0.5",
        &["10.0.0.8", "10.0.0.7"],
        ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 53)]),
    );
    sim.publish();
    sim.advance(Duration::from_secs(60));
    sim.assert_silent();
    for port in 40_000..41_000 {
        sim.send(1, 100, &from_client(port, "A", 101, 501));
        sim.receive(2, 1);
        sim.send(2, 1, &to_client(port, "A", 501, 101));
        sim.receive(1, 100);
    }
}

/// An engine that begins anew has forgotten which backend a connection was with.
#[test]
fn what_an_engine_that_begins_anew_has_forgotten_is_said_at_once() {
    let mut sim = sim();
    established(&mut sim, 4000);
    let question = from_to(CLIENT, VIP).udp(4000, 53, b"?");
    served_by(&mut sim, &question);
    sim.restart(1);
    sim.send(1, 1, &data(4000));
    assert_eq!(sim.receive(1, 1).flags, "R");
    sim.assert_silent();
    served_by(&mut sim, &question);
    established(&mut sim, 4000);
}

#[test]
fn a_clock_that_goes_back_ends_nothing_and_stops_nothing() {
    let mut sim = sim();
    sim.advance(Duration::from_secs(3600));
    let node = established(&mut sim, 4000);
    let (asked, _) = served_by(&mut sim, &from_to(CLIENT, VIP).udp(4000, 53, b"?"));
    for _ in 0..3 {
        sim.now -= Duration::from_secs(1800);
        sim.advance(Duration::ZERO);
        assert_eq!(served_by(&mut sim, &data(4000)).0, node);
        assert_eq!(served_by(&mut sim, &from_to(CLIENT, VIP).udp(4000, 53, b"?")).0, asked);
        established(&mut sim, 5000);
        sim.send(1, 1, &from_to(CLIENT, VIP).tcp(5000, 80, "R", 102, 0, b""));
        sim.clear();
    }
    // What is silent from then on goes when its time has come, by the clock as it is.
    sim.advance(Duration::from_secs(3 * 1800 + 24 * 3600));
    assert_eq!(sim.engine(1).stats().flows, 0);
}
