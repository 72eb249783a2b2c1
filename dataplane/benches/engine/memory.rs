//! What an engine's memory grows by: the difference between one of a size and one of twice that, so that what every
//! engine has is left out. What is allocated counts, whether it was written to or not.

use crate::estate::Estate;
use crate::tell;
use crate::world::*;
use skep_dataplane::Engine;
use skep_dataplane::seal::Suite;
use skep_dataplane::snapshot::{Peer, Snapshot};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FLOWS: usize = 1 << 16;
const ENDPOINTS: usize = 1_000;
const PEERS: usize = 32;

/// Until every session was replaced twice, and all that a peer can have is there.
const ACQUAINTANCE: Duration = Duration::from_secs(250);

pub(crate) fn tell_all() {
    tell("memory", "bytes per flow", growth(of_flows, FLOWS));
    tell("memory", "bytes per endpoint", growth(of_endpoints, ENDPOINTS));
    tell("memory", "bytes per peer", growth(of_peers, PEERS));
}

/// Bytes that one thing more takes.
fn growth(of: fn(usize) -> Engine, number: usize) -> f64 {
    (held(of(2 * number)) - held(of(number))) as f64 / number as f64
}

/// What is freed with an engine.
fn held(engine: Engine) -> i64 {
    -allocation_counter::measure(|| drop(engine)).bytes_current
}

fn of_flows(number: usize) -> Engine {
    Engine::with_flow_capacity(1, identity(HERE, Suite::default()), number)
}

/// With a service to every four. The snapshot counts as well.
fn of_endpoints(number: usize) -> Engine {
    let estate = Estate { networks: 1, endpoints: number, services: number / 4 };
    let mut engine = Engine::new(1, identity(HERE, Suite::default()));
    engine.apply(Arc::new(estate.snapshot()), Instant::now(), &mut Counted::default());
    _ = engine.take_retired();
    engine
}

fn of_peers(number: usize) -> Engine {
    let now = Instant::now();
    let nodes = HERE + 1..=HERE + number;
    let mut here = engine(HERE, nodes.clone().map(peer).collect(), now);
    let mut others: Vec<Engine> = nodes.map(|node| engine(node, vec![peer(HERE)], now)).collect();
    live(&mut here, &mut others, now);
    assert!(here.stats().paths.iter().all(|path| path.session.handshakes >= 3), "sessions were replaced");
    here
}

fn engine(node: usize, peers: Vec<Peer>, now: Instant) -> Engine {
    let mut engine = Engine::with_flow_capacity(1, identity(node, Suite::default()), 16);
    let snapshot = Snapshot { peers, underlay_mtu: UNDERLAY_MTU, ..Snapshot::default() };
    engine.apply(Arc::new(snapshot), now, &mut Counted::default());
    engine
}

/// All do what they do by themselves, and hear each other at once.
fn live(here: &mut Engine, others: &mut [Engine], mut now: Instant) {
    let until = now + ACQUAINTANCE;
    while now < until {
        let due = others.iter().chain([&*here]).filter_map(Engine::poll_timeout).min();
        now = now.max(due.unwrap_or(until));
        let mut by_here = Kept::default();
        here.handle_timeout(now, &mut by_here);
        for (at, other) in others.iter_mut().enumerate() {
            let mut by_other = Kept::default();
            other.handle_timeout(now, &mut by_other);
            hear(here, HERE + 1 + at, by_other, now, &mut by_here);
        }
        while let Some((to, mut datagram)) = by_here.0.pop_front() {
            let node = (to.to_bits() - vtep(0).to_bits()) as usize;
            let mut by_other = Kept::default();
            others[node - HERE - 1].handle_datagram(vtep(HERE), &mut datagram, now, &mut by_other);
            hear(here, node, by_other, now, &mut by_here);
        }
    }
}

fn hear(here: &mut Engine, from: usize, said: Kept, now: Instant, answers: &mut Kept) {
    for (_, mut datagram) in said.0 {
        here.handle_datagram(vtep(from), &mut datagram, now, answers);
    }
}
