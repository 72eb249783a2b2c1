//! A service's virtual address: balanced by the client's engine, reversed there.

use crate::POLICY;
use crate::sim::*;
use proptest::prelude::*;
use skep_dataplane::DropReason;
use skep_dataplane::ids::MacAddr;
use skep_dataplane::snapshot::{BackendState, L4, Policy, ServicePorts};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

const CLIENT: &str = "10.1.0.3";
const VIP: &str = "10.1.0.2";
const BACKENDS: [&str; 3] = ["10.1.0.4", "10.1.0.5", "10.1.0.6"];

fn overlay() -> Overlay {
    Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container(CLIENT, 1, 1)
        .container(BACKENDS[0], 1, 2)
        .container(BACKENDS[1], 2, 1)
        .container(BACKENDS[2], 3, 1)
        .container("10.1.0.7", 3, 2)
        .container("10.1.0.8", 3, 3)
}

fn sim_of(backends: &[&str]) -> Sim {
    Sim::new(3, vec![overlay().service(VIP, backends, ServicePorts::All)])
}

/// Where `address` is: node and port.
fn place(sim: &Sim, address: Ipv4Addr) -> (usize, u32) {
    let all = &sim.cluster.networks[0].endpoints;
    let (_, node, port, _) = all.iter().find(|(a, ..)| ip(a) == address).unwrap();
    (*node, *port)
}

/// Sends the frame from the client and returns what its backend is handed.
#[track_caller]
fn reach(sim: &mut Sim, frame: &[u8]) -> Seen {
    sim.send(1, 1, frame);
    let all: Vec<_> = ["10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.7", "10.1.0.8", CLIENT]
        .iter()
        .flat_map(|address| {
            let (node, port) = place(sim, ip(address));
            sim.received(node, port)
        })
        .collect();
    assert_eq!(all.len(), 1, "drops {:?}", drops(sim));
    Seen::read(&all[0].1)
}

fn drops(sim: &Sim) -> Vec<(DropReason, u64)> {
    sim.engine(1).stats().drops.into_iter().filter(|(_, n)| *n > 0).collect()
}

fn syn(port: u16) -> Vec<u8> {
    from_to(CLIENT, VIP).tcp(port, 80, "S", 100, 0, b"")
}

#[track_caller]
fn opened(sim: &mut Sim, port: u16) -> Seen {
    reach(sim, &syn(port))
}

/// The backend of `seen` sends this segment back.
fn answer(sim: &mut Sim, seen: &Seen, flags: &str, seq: u32, ack: u32, payload: &[u8]) {
    let (node, port) = place(sim, seen.dst);
    let make = from_to(&seen.dst.to_string(), &seen.src.to_string());
    sim.send(node, port, &make.tcp(seen.dst_port, seen.src_port, flags, seq, ack, payload));
}

/// A connection whose handshake is done.
fn established(sim: &mut Sim, port: u16) -> Seen {
    let seen = opened(sim, port);
    answer(sim, &seen, "SA", 500, 101, b"");
    sim.receive(1, 1);
    reach(sim, &from_to(CLIENT, VIP).tcp(port, 80, "A", 101, 501, b""));
    seen
}

#[test]
fn the_backend_sees_the_client_and_the_client_sees_the_vip() {
    for backend in BACKENDS {
        let mut sim = sim_of(&[backend]);
        let seen = opened(&mut sim, 4000);
        assert_eq!(seen.ends(), (ip(CLIENT), 4000, ip(backend), 80));
        assert_eq!(seen.dst_mac, MacAddr::for_ip(ip(backend)));
        answer(&mut sim, &seen, "SA", 500, 101, b"");
        let reply = sim.receive(1, 1);
        assert_eq!(reply.ends(), (ip(VIP), 80, ip(CLIENT), 4000));
        assert_eq!(reply.src_mac, MacAddr::for_ip(ip(VIP)));
        sim.assert_silent();
    }
}

#[test]
fn a_connection_stays_with_its_backend() {
    let mut sim = sim_of(&BACKENDS);
    let first = established(&mut sim, 4000);
    for seq in 0..5 {
        let segment = from_to(CLIENT, VIP).tcp(4000, 80, "PA", 101 + seq, 501, b"x");
        assert_eq!(reach(&mut sim, &segment).dst, first.dst);
        opened(&mut sim, 5000 + seq as u16);
    }
}

#[test]
fn n_new_connections_meet_n_backends_also_right_after_the_list_changed() {
    let mut sim = sim_of(&BACKENDS);
    let mut ports = 4000..;
    let mut meet = |sim: &mut Sim, n: usize| -> BTreeSet<Ipv4Addr> {
        ports.by_ref().take(n).map(|port| opened(sim, port).dst).collect()
    };
    assert_eq!(meet(&mut sim, 3).len(), 3);
    assert_eq!(meet(&mut sim, 2).len(), 2);
    let five = ["10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.7", "10.1.0.8"];
    sim.cluster.networks[0].services = vec![service(VIP, &five, ServicePorts::All)];
    sim.publish();
    assert_eq!(meet(&mut sim, 5).len(), 5);
    assert_eq!(meet(&mut sim, 4).len(), 4);
    sim.cluster.networks[0].services = vec![service(VIP, &five[3..], ServicePorts::All)];
    sim.publish();
    sim.clear();
    assert_eq!(meet(&mut sim, 2).len(), 2);
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_no_new_ones() {
    let mut sim = sim_of(&BACKENDS);
    let old = established(&mut sim, 4000);
    let backends = &mut sim.cluster.networks[0].services[0].backends;
    backends.iter_mut().find(|b| b.ip == old.dst).unwrap().state = BackendState::Draining;
    sim.publish();
    sim.assert_silent();
    assert_eq!(reach(&mut sim, &from_to(CLIENT, VIP).tcp(4000, 80, "PA", 101, 501, b"x")).dst, old.dst);
    for port in 5000..5006 {
        assert_ne!(opened(&mut sim, port).dst, old.dst);
    }
}

#[test]
fn a_vanished_backend_resets_both_sides() {
    let mut sim = sim_of(&["10.1.0.5"]);
    established(&mut sim, 4000);
    sim.cluster.networks[0].services = vec![service(VIP, &["10.1.0.6"], ServicePorts::All)];
    sim.publish_to(1);
    let client = sim.receive(1, 1);
    assert_eq!(client.ends(), (ip(VIP), 80, ip(CLIENT), 4000));
    assert_eq!((client.flags.as_str(), client.seq, client.ack), ("RA", 501, 101));
    let backend = sim.receive(2, 1);
    assert_eq!(backend.ends(), (ip(CLIENT), 4000, ip("10.1.0.5"), 80));
    assert_eq!((backend.flags.as_str(), backend.seq), ("RA", 101));
    assert_eq!(sim.engine(1).stats().flows, 0);
}

/// A container went, and another got its address at once, on another node, for the same service.
#[test]
fn the_next_holder_of_a_backends_address_hears_nothing_of_old_connections() {
    let mut sim = sim_of(&["10.1.0.5"]);
    established(&mut sim, 4000);
    let endpoints = &mut sim.cluster.networks[0].endpoints;
    endpoints.iter_mut().find(|(address, ..)| *address == "10.1.0.5").unwrap().1 = 3;
    endpoints.iter_mut().find(|(address, ..)| *address == "10.1.0.5").unwrap().2 = 9;
    sim.publish();
    let client = sim.receive(1, 1);
    assert_eq!((client.ends(), client.flags.as_str()), ((ip(VIP), 80, ip(CLIENT), 4000), "RA"));
    sim.assert_silent();
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 80, "PA", 101, 501, b"x"));
    assert_eq!(sim.receive(1, 1).flags, "R");
    sim.assert_silent();
    let again = opened(&mut sim, 4000);
    assert_eq!((again.src_port, again.dst), (4000, ip("10.1.0.5")));
}

#[test]
fn the_next_holder_of_a_clients_address_hears_nothing_of_old_connections() {
    let mut sim = sim_of(&["10.1.0.5"]);
    let seen = established(&mut sim, 4000);
    sim.cluster.networks[0].endpoints.iter_mut().find(|(address, ..)| *address == CLIENT).unwrap().2 = 9;
    sim.publish();
    let backend = sim.receive(2, 1);
    assert_eq!((backend.ends(), backend.flags.as_str()), ((ip(CLIENT), 4000, ip("10.1.0.5"), 80), "RA"));
    sim.assert_silent();
    answer(&mut sim, &seen, "PA", 501, 102, b"late");
    let stray = sim.receive(1, 9);
    assert_eq!(stray.src, ip("10.1.0.5"), "shows itself, not a service that was never asked");
}

#[test]
fn a_datagram_flow_goes_on_with_another_backend() {
    let mut sim = sim_of(&["10.1.0.5"]);
    let question = from_to(CLIENT, VIP).udp(4000, 53, b"?");
    assert_eq!(reach(&mut sim, &question).dst, ip("10.1.0.5"));
    sim.cluster.networks[0].services = vec![service(VIP, &["10.1.0.6"], ServicePorts::All)];
    sim.publish();
    sim.assert_silent();
    assert_eq!(reach(&mut sim, &question).dst, ip("10.1.0.6"));
}

#[test]
fn a_segment_of_no_connection_is_reset_and_a_reset_is_not() {
    let mut sim = sim_of(&BACKENDS);
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 80, "PA", 700, 900, b"x"));
    let reset = sim.receive(1, 1);
    assert_eq!(reset.ends(), (ip(VIP), 80, ip(CLIENT), 4000));
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 900));
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 80, "R", 700, 0, b""));
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::NoFlow), 2);
}

#[test]
fn without_a_backend_tcp_is_reset_udp_unreachable_and_ping_silent() {
    let mut sim = sim_of(&[]);
    sim.send(1, 1, &syn(4000));
    let reset = sim.receive(1, 1);
    assert_eq!((reset.flags.as_str(), reset.ack), ("RA", 101));
    let question = from_to(CLIENT, VIP).udp(4000, 53, b"?");
    sim.send(1, 1, &question);
    let error = sim.receive(1, 1);
    assert_eq!((error.src, error.icmp), (ip(VIP), Some((3, 3, [0; 4]))));
    assert_eq!(error.payload, question[14..]);
    sim.send(1, 1, &from_to(CLIENT, VIP).ping(9, b""));
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::NoBackend), 3);
}

#[test]
fn a_backend_that_is_nowhere_gets_no_flow() {
    let mut sim = sim_of(&["10.1.0.77", "10.1.0.5"]);
    for port in 4000..4004 {
        assert_eq!(opened(&mut sim, port).dst, ip("10.1.0.5"));
    }
}

#[test]
fn only_named_ports_are_open() {
    let ports = ServicePorts::Only(vec![(L4::Tcp, 80)]);
    let mut sim = Sim::new(3, vec![overlay().service(VIP, &["10.1.0.5"], ports)]);
    opened(&mut sim, 4000);
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(4000, 81, "S", 1, 0, b""));
    assert_eq!(sim.receive(1, 1).flags, "RA");
    sim.send(1, 1, &from_to(CLIENT, VIP).udp(4000, 80, b""));
    assert_eq!(sim.receive(1, 1).icmp.unwrap().0, 3);
    assert_eq!(sim.dropped(1, DropReason::PortClosed), 2);
}

#[test]
fn a_task_that_picks_itself_talks_to_the_vip() {
    let mut sim = sim_of(&[CLIENT]);
    let seen = opened(&mut sim, 4000);
    assert_eq!(seen.ends(), (ip(VIP), 4000, ip(CLIENT), 80));
    sim.send(1, 1, &from_to(CLIENT, VIP).tcp(80, 4000, "SA", 500, 101, b""));
    assert_eq!(sim.receive(1, 1).ends(), (ip(VIP), 80, ip(CLIENT), 4000));
    let data = from_to(CLIENT, VIP).tcp(4000, 80, "PA", 101, 501, b"x");
    assert_eq!(reach(&mut sim, &data).ends(), (ip(VIP), 4000, ip(CLIENT), 80));
}

#[test]
fn the_same_client_port_direct_and_through_the_vip_stays_two_connections() {
    let mut sim = sim_of(&["10.1.0.5"]);
    let direct = reach(&mut sim, &from_to(CLIENT, "10.1.0.5").tcp(4000, 80, "S", 1, 0, b""));
    assert_eq!(direct.src_port, 4000);
    let balanced = opened(&mut sim, 4000);
    assert_ne!(balanced.src_port, 4000);
    answer(&mut sim, &direct, "SA", 500, 2, b"");
    assert_eq!(sim.receive(1, 1).ends(), (ip("10.1.0.5"), 80, ip(CLIENT), 4000));
    answer(&mut sim, &balanced, "SA", 500, 101, b"");
    assert_eq!(sim.receive(1, 1).ends(), (ip(VIP), 80, ip(CLIENT), 4000));
}

#[test]
fn a_direct_connection_after_one_through_the_vip_gets_another_port_too() {
    let mut sim = sim_of(&["10.1.0.5"]);
    let balanced = opened(&mut sim, 4000);
    let direct = reach(&mut sim, &from_to(CLIENT, "10.1.0.5").tcp(4000, 80, "S", 1, 0, b""));
    assert_ne!(direct.src_port, balanced.src_port);
    answer(&mut sim, &direct, "SA", 500, 2, b"");
    assert_eq!(sim.receive(1, 1).ends(), (ip("10.1.0.5"), 80, ip(CLIENT), 4000));
}

/// Two tasks that talk to each other, from and to fixed ports, and one of them to the other's service as well.
#[test]
fn what_a_backend_asks_its_client_is_told_from_what_it_answers_for_its_service() {
    let services = overlay().service(VIP, &[BACKENDS[0]], ServicePorts::All).service(
        "10.1.0.9",
        &[CLIENT],
        ServicePorts::All,
    );
    let mut sim = Sim::new(3, vec![services]);
    let (backend, direct) = (BACKENDS[0], from_to(BACKENDS[0], CLIENT).udp(7946, 7946, b"direct"));
    sim.send(1, 2, &direct);
    assert_eq!(sim.receive(1, 1).src, ip(backend));
    let balanced = reach(&mut sim, &from_to(CLIENT, VIP).udp(7946, 7946, b"?"));
    assert_ne!(balanced.src_port, 7946);
    sim.send(1, 2, &direct);
    assert_eq!(sim.receive(1, 1).ends(), (ip(backend), 7946, ip(CLIENT), 7946));
    sim.send(1, 2, &from_to(backend, CLIENT).udp(7946, balanced.src_port, b"!"));
    assert_eq!(sim.receive(1, 1).ends(), (ip(VIP), 7946, ip(CLIENT), 7946));
}

#[test]
fn a_new_syn_after_the_end_is_scheduled_anew() {
    let mut sim = sim_of(&BACKENDS);
    let first = established(&mut sim, 4000);
    assert_eq!(opened(&mut sim, 4001).dst, opened(&mut sim, 4001).dst, "a SYN sent again is the same flow");
    reach(&mut sim, &from_to(CLIENT, VIP).tcp(4000, 80, "FA", 101, 501, b""));
    answer(&mut sim, &first, "FA", 501, 102, b"");
    sim.receive(1, 1);
    let again = opened(&mut sim, 4000);
    assert_ne!(again.dst, first.dst);
}

#[test]
fn ping_is_balanced_by_its_identifier() {
    let mut sim = sim_of(&["10.1.0.5"]);
    let seen = reach(&mut sim, &from_to(CLIENT, VIP).ping(77, b"abc"));
    assert_eq!((seen.src, seen.dst), (ip(CLIENT), ip("10.1.0.5")));
    sim.send(2, 1, &from_to("10.1.0.5", CLIENT).pong(77, b"abc"));
    let pong = sim.receive(1, 1);
    assert_eq!((pong.src, pong.icmp.unwrap().0), (ip(VIP), 0));
}

#[test]
fn flows_end_after_their_silence() {
    let mut sim = sim_of(&BACKENDS);
    let flows = |sim: &Sim| sim.engine(1).stats().flows;
    let unanswered = opened(&mut sim, 4000);
    established(&mut sim, 4001);
    reach(&mut sim, &from_to(CLIENT, VIP).udp(4000, 53, b"?"));
    let half_open = opened(&mut sim, 4002);
    answer(&mut sim, &half_open, "SA", 500, 101, b"");
    sim.clear();
    let start = sim.now;
    assert_eq!(flows(&sim), 4);
    let due = sim.engine(1).poll_timeout();
    assert!(POLICY == Policy::Sealed || due == Some(start + Duration::from_secs(5)), "{due:?}");
    for (seconds, left, what) in [
        (5, 3, "nobody answered its SYN"),
        (10, 2, "its answer was not acknowledged"),
        (30, 1, "nobody answered its datagram"),
        (24 * 3600, 0, "a day of silence"),
    ] {
        let wait = start + Duration::from_secs(seconds) - sim.now;
        sim.advance(wait - Duration::from_millis(1));
        assert_eq!(flows(&sim), left + 1, "{what}: not before");
        sim.advance(Duration::from_millis(1));
        assert_eq!(flows(&sim), left, "{what}");
    }
    let due = sim.engine(1).poll_timeout();
    assert!(POLICY == Policy::Sealed || due.is_none(), "only sessions have timers left: {due:?}");
    assert_ne!(opened(&mut sim, 4000).dst, unanswered.dst, "whoever asks again is served by another");
}

#[test]
fn an_error_about_a_balanced_packet_speaks_of_the_vip() {
    let mut sim = sim_of(&["10.1.0.5"]);
    let sent = from_to(CLIENT, VIP).udp(4000, 53, b"question");
    let seen = reach(&mut sim, &sent);
    let arrived = from_to(&seen.src.to_string(), &seen.dst.to_string()).udp(4000, 53, b"question");
    sim.send(2, 1, &from_to("10.1.0.5", CLIENT).icmp_error(3, 3, &arrived));
    let error = sim.receive(1, 1);
    assert_eq!((error.src, error.dst), (ip(VIP), ip(CLIENT)));
    assert_eq!(error.payload, sent[14..], "quotes what the client sent, checksums included");
}

#[test]
fn a_clients_error_about_the_answer_reaches_the_backend() {
    let mut sim = sim_of(&["10.1.0.5"]);
    reach(&mut sim, &from_to(CLIENT, VIP).udp(4000, 53, b"question"));
    let answer = from_to("10.1.0.5", CLIENT).udp(53, 4000, b"answer");
    sim.send(2, 1, &answer);
    sim.receive(1, 1);
    let seen = from_to(VIP, CLIENT).udp(53, 4000, b"answer");
    let error = reach(&mut sim, &from_to(CLIENT, VIP).icmp_error(3, 3, &seen));
    assert_eq!((error.src, error.dst), (ip(CLIENT), ip("10.1.0.5")));
    assert_eq!(error.payload, answer[14..]);
}

#[test]
fn a_udp_datagram_without_checksum_keeps_none() {
    let mut sim = sim_of(&["10.1.0.5"]);
    let mut frame = from_to(CLIENT, VIP).udp(4000, 53, b"question");
    frame[40..42].fill(0);
    sim.send(1, 1, &frame);
    let received = sim.received(2, 1);
    assert_eq!(received[0].1[40..42], [0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Forward, then reverse: the client gets the mirror image of what it sent, to the last byte, and so did the backend.
    #[test]
    fn an_echo_through_a_vip_is_the_mirror_image(
        protocol in 0u8..3,
        (client_port, port) in (1u16.., 1u16..),
        payload in prop::collection::vec(any::<u8>(), 0..1300),
        backend in prop::sample::select(vec!["10.1.0.4", "10.1.0.5", CLIENT]),
    ) {
        let mut sim = sim_of(&[backend]);
        let ask = |make: Make, from, to| match protocol {
            0 => make.tcp(from, to, "S", 1, 0, &payload),
            1 => make.udp(from, to, &payload),
            _ => make.ping(from, &payload),
        };
        let tell = |make: Make, from, to| match protocol {
            0 => make.tcp(from, to, "SA", 1, 2, &payload),
            1 => make.udp(from, to, &payload),
            _ => make.pong(to, &payload),
        };
        // A task that picks itself talks to the service.
        let source = if backend == CLIENT { VIP } else { CLIENT };
        let (node, switch_port) = place(&sim, ip(backend));
        sim.send(1, 1, &ask(from_to(CLIENT, VIP), client_port, port));
        let asked: Vec<_> = sim.received(node, switch_port).into_iter().map(|(_, frame)| frame).collect();
        prop_assert_eq!(asked, [ask(from_to(source, backend), client_port, port)]);
        sim.send(node, switch_port, &tell(from_to(backend, source), port, client_port));
        let told: Vec<_> = sim.received(1, 1).into_iter().map(|(_, frame)| frame).collect();
        prop_assert_eq!(told, [tell(from_to(VIP, CLIENT), port, client_port)]);
        sim.assert_silent();
    }
}
