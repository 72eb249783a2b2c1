//! Answers of the engine's own are bounded: by port, and for the node.

use crate::sim::*;
use skep_dataplane::DropReason;
use skep_dataplane::snapshot::ServicePorts;
use std::time::Duration;

const VIP: &str = "10.1.0.2";
const CONTAINERS: u32 = 12;
/// What one port, and what the node is told at once.
const PER_PORT: usize = 1_000;
const IN_ALL: usize = 10_000;

fn address(port: u32) -> String {
    format!("10.1.0.{}", 100 + port)
}

/// A VIP that nobody answers for, and containers that do not know it yet.
fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1").service(VIP, &[], ServicePorts::All);
    let leak = |port| -> &'static str { Box::leak(address(port).into_boxed_str()) };
    Sim::new(1, vec![(1..=CONTAINERS).fold(overlay, |overlay, port| overlay.container(leak(port), 1, port))])
}

/// How many answers a port gets to so many tries.
fn told(sim: &mut Sim, port: u32, tries: usize) -> usize {
    let make = from_to(&address(port), VIP);
    let frames = [make.tcp(4000, 80, "S", 1, 0, b""), make.udp(4000, 80, b"?")];
    for frame in frames.iter().cycle().take(tries) {
        sim.send(1, port, frame);
    }
    sim.received(1, port).len()
}

#[test]
fn a_port_that_asks_for_too_many_refusals_takes_none_from_others() {
    let mut sim = sim();
    assert_eq!(told(&mut sim, 1, 5 * PER_PORT), PER_PORT);
    assert_eq!(sim.dropped(1, DropReason::NoBackend), 5 * PER_PORT as u64, "each dropped packet counts");
    assert_eq!(
        sim.dropped(1, DropReason::AnswerSuppressed),
        4 * PER_PORT as u64,
        "and each refusal left unsaid"
    );
    assert_eq!(told(&mut sim, 2, 10), 10);
    sim.advance(Duration::from_millis(100));
    assert_eq!(told(&mut sim, 1, PER_PORT), PER_PORT / 10);
    // A snapshot in between gives nobody more.
    sim.publish();
    assert_eq!(told(&mut sim, 1, 5), 0);
    sim.advance(Duration::from_secs(60));
    assert_eq!(told(&mut sim, 1, 2 * PER_PORT), PER_PORT);
}

#[test]
fn all_ports_together_get_no_more_than_the_node_gives() {
    let mut sim = sim();
    let all: usize = (1..=CONTAINERS).map(|port| told(&mut sim, port, PER_PORT)).sum();
    assert_eq!(all, IN_ALL);
    assert_eq!(sim.dropped(1, DropReason::AnswerSuppressed), 2 * PER_PORT as u64);
    sim.advance(Duration::from_millis(1));
    assert_eq!(told(&mut sim, 1, 100), 1);
}

/// Silence is for what the engine says itself: questions it answers for others are not refusals.
#[test]
fn a_gateway_answers_as_often_as_it_is_asked() {
    let mut sim = sim();
    let ping = from_to(&address(1), "10.1.0.1").ping(1, b"");
    (0..3 * PER_PORT).for_each(|_| sim.send(1, 1, &ping));
    assert_eq!(sim.received(1, 1).len(), 3 * PER_PORT);
}
