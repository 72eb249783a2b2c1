//! The gateway, packet sizes and hops.

use crate::sim::*;
use skep_dataplane::DropReason;
use skep_dataplane::snapshot::ServicePorts;

const CLIENT: &str = "10.1.0.3";
const GATEWAY: &str = "10.1.0.1";

fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", GATEWAY)
        .container(CLIENT, 1, 1)
        .container("10.1.0.5", 2, 1)
        .service("10.1.0.2", &["10.1.0.5"], ServicePorts::All);
    Sim::new(2, vec![overlay])
}

#[test]
fn the_gateway_answers_ping_and_nothing_else() {
    let mut sim = sim();
    sim.send(1, 1, &from_to(CLIENT, GATEWAY).ping(5, b"abc"));
    let pong = sim.receive(1, 1);
    assert_eq!((pong.src, pong.dst, pong.icmp), (ip(GATEWAY), ip(CLIENT), Some((0, 0, [0, 5, 0, 1]))));
    assert_eq!(pong.payload, b"abc");
    sim.send(1, 1, &from_to(CLIENT, GATEWAY).tcp(1, 22, "S", 10, 0, b""));
    let reset = sim.receive(1, 1);
    assert_eq!((reset.src, reset.flags.as_str(), reset.ack), (ip(GATEWAY), "RA", 11));
    sim.send(1, 1, &from_to(CLIENT, GATEWAY).udp(1, 53, b""));
    assert_eq!(sim.receive(1, 1).icmp.unwrap().1, 3);
    assert_eq!(sim.dropped(1, DropReason::GatewayRefused), 2);
}

#[test]
fn the_gateway_routes_within_the_subnet_for_those_who_send_everything_there() {
    let mut sim = sim();
    sim.send(1, 1, &from_to(CLIENT, "10.1.0.5").via(GATEWAY).udp(1, 2, b"x"));
    let seen = sim.receive(2, 1);
    assert_eq!((seen.dst, seen.ttl), (ip("10.1.0.5"), 63));
    sim.send(1, 1, &from_to(CLIENT, "10.1.0.2").via(GATEWAY).udp(1, 2, b"x"));
    assert_eq!(sim.receive(2, 1).dst, ip("10.1.0.5"));
}

#[test]
fn nothing_is_routed_off_the_subnet() {
    let mut sim = sim();
    let outside = from_to(CLIENT, "198.51.100.9").via(GATEWAY);
    sim.send(1, 1, &outside.tcp(1, 80, "S", 10, 0, b""));
    let reset = sim.receive(1, 1);
    assert_eq!((reset.src, reset.flags.as_str()), (ip("198.51.100.9"), "RA"));
    sim.send(1, 1, &outside.tcp(1, 80, "R", 10, 0, b""));
    sim.assert_silent();
    sim.send(1, 1, &outside.udp(1, 53, b"?"));
    let error = sim.receive(1, 1);
    assert_eq!((error.src, error.icmp), (ip(GATEWAY), Some((3, 0, [0; 4]))));
    assert_eq!(sim.dropped(1, DropReason::NoRoute), 3);
}

#[test]
fn a_ttl_of_one_ends_at_the_gateway() {
    let mut sim = sim();
    sim.send(1, 1, &from_to(CLIENT, "198.51.100.9").via(GATEWAY).ttl(1).udp(1, 33434, b"?"));
    let error = sim.receive(1, 1);
    assert_eq!((error.src, error.icmp), (ip(GATEWAY), Some((11, 0, [0; 4]))));
    sim.send(1, 1, &from_to(CLIENT, "10.1.0.5").ttl(1).udp(1, 2, b"on the same link"));
    sim.receive(2, 1);
}

#[test]
fn an_oversized_packet_that_must_not_be_cut_is_refused_with_the_size_that_fits() {
    let mut sim = sim();
    let mut frame = from_to(CLIENT, "10.1.0.5").udp(1, 2, &[7; 1500]);
    frame[20] = 0x40;
    resum(&mut frame);
    sim.send(1, 1, &frame);
    let error = sim.receive(1, 1);
    let [hi, lo] = MTU.to_be_bytes();
    assert_eq!((error.src, error.icmp), (ip(GATEWAY), Some((3, 4, [0, 0, hi, lo]))));
    assert_eq!(error.payload, frame[14..14 + 548]);
    assert_eq!(sim.dropped(1, DropReason::FragmentationNeeded), 1);
    assert!(sim.wire.is_empty());
}

#[test]
fn no_error_is_sent_about_an_error() {
    let mut sim = sim();
    let quoted = from_to("198.51.100.9", CLIENT).udp(1, 2, b"");
    sim.send(1, 1, &from_to(CLIENT, "198.51.100.9").via(GATEWAY).ttl(1).icmp_error(3, 3, &quoted));
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::TimeExceeded), 1);
}
