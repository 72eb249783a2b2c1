//! A snapshot is in force at once, though flows follow it little by little: no packet can tell.

use crate::identity::identity;
use crate::sim::*;
use proptest::prelude::*;
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::snapshot::*;
use skep_dataplane::{Engine, HEADROOM, Output, VnetHdr};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VIPS: [&str; 2] = ["10.1.0.2", "10.1.0.20"];
/// The first three are on this node, on ports 1, 2 and 3.
const TASKS: [&str; 4] = ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"];

fn snapshot() -> Snapshot {
    let place =
        |nth| if nth < 3 { Location::Local(PortId(nth as u32 + 1)) } else { Location::Remote(vtep(2)) };
    let endpoint = |(nth, address): (usize, &&str)| Endpoint {
        ip: ip(address),
        mac: MacAddr::for_ip(ip(address)),
        location: place(nth),
        kind: EndpointKind::Container,
    };
    let network = Network {
        vni: Vni::new(4097).unwrap(),
        policy: Policy::Plain,
        subnet: "10.1.0.0/24".parse().unwrap(),
        gateway: ip("10.1.0.1"),
        mtu: 1450,
        endpoints: TASKS.iter().enumerate().map(endpoint).collect(),
        services: vec![
            service(VIPS[0], &TASKS[1..], ServicePorts::All),
            service(VIPS[1], &TASKS[..2], ServicePorts::All),
        ],
        ingress: false,
    };
    Snapshot { generation: 1, networks: vec![network], underlay_mtu: 1500, ..Snapshot::default() }
}

/// What a new snapshot has otherwise.
fn changed(which: usize) -> Arc<Snapshot> {
    let mut snapshot = snapshot();
    let network = &mut snapshot.networks[0];
    match which {
        0 => _ = network.endpoints.remove(1),
        1 => network.endpoints[1].location = Location::Local(PortId(9)),
        2 => network.endpoints[3].location = Location::Remote(vtep(3)),
        3 => _ = network.services.remove(0),
        4 => network.services[0].backends[0].state = BackendState::Draining,
        5 => network.services[1].backends.truncate(1),
        6 => snapshot.networks.clear(),
        _ => {}
    }
    Arc::new(snapshot)
}

/// Who sends what, to a VIP or a task.
#[derive(Clone, Debug)]
struct Sent {
    from: usize,
    to: usize,
    port: u16,
    is_answer: bool,
    flags: Option<&'static str>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let flags = prop::option::of(prop::sample::select(vec!["S", "SA", "A", "PA", "FA", "R"]));
    (0..TASKS.len(), 0..VIPS.len() + TASKS.len(), 4000u16..4003, any::<bool>(), flags)
        .prop_map(|(from, to, port, is_answer, flags)| Sent { from, to, port, is_answer, flags })
}

impl Sent {
    fn frame(&self) -> Vec<u8> {
        let to = VIPS.iter().chain(&TASKS).nth(self.to).unwrap();
        let ends = from_to(TASKS[self.from], to);
        let (src, dst) = if self.is_answer { (80, self.port) } else { (self.port, 80) };
        match self.flags {
            Some(flags) => ends.tcp(src, dst, flags, 100, 200, b""),
            None => ends.udp(src, dst, b"?"),
        }
    }

    fn hand_in(&self, engine: &mut Engine, now: Instant) -> Out {
        let mut out = Out::default();
        if self.from < 3 {
            let mut buffer = [vec![0; HEADROOM], self.frame()].concat();
            let port = PortId(self.from as u32 + 1);
            engine.handle_frame(port, VnetHdr::default(), &mut buffer, now, &mut out);
        } else {
            let mut datagram = [vec![8, 0, 0, 0, 0, 0x10, 0x01, 0], self.frame()].concat();
            engine.handle_datagram(vtep(2), &mut datagram, now, &mut out);
        }
        out
    }
}

/// What came out: resets, which end connections, apart from all else.
#[derive(Default, Debug)]
struct Out {
    resets: Vec<(String, Vec<u8>)>,
    rest: Vec<(String, Vec<u8>)>,
}

impl Out {
    fn note(&mut self, to: String, frame: &[u8]) {
        let is_reset = frame[23] == 6 && frame[47] & 4 != 0;
        let kind = if is_reset { &mut self.resets } else { &mut self.rest };
        kind.push((to, frame.to_vec()));
    }
}

impl Output for Out {
    fn frame(&mut self, port: PortId, _: VnetHdr, frame: &[u8]) {
        self.note(port.to_string(), frame);
    }

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        self.note(to.to_string(), &datagram[8..]);
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}
}

fn engine(now: Instant) -> Engine {
    let mut engine = Engine::new(7, identity(1, 0));
    engine.apply(Arc::new(snapshot()), now, &mut Out::default());
    engine
}

proptest! {
    /// One engine is done with a snapshot before the next packet, the other looks at nothing but what packets need.
    #[test]
    fn packets_meet_the_new_snapshot_whether_or_not_flows_were_looked_at(
        before in prop::collection::vec(sent(), 0..40),
        change in 0..8usize,
        after in prop::collection::vec(sent(), 0..40),
    ) {
        let now = Instant::now();
        let (mut whole, mut swept) = (engine(now), engine(now));
        for sent in before {
            sent.hand_in(&mut whole, now);
            sent.hand_in(&mut swept, now);
        }
        let (mut resets, mut later) = (Out::default(), Out::default());
        whole.apply(changed(change), now, &mut resets);
        let prepared = swept.indexer().prepare(changed(change));
        swept.take_up(prepared, now, &mut later);
        let (mut resets, mut later) = (resets.resets, later.resets);
        for sent in after {
            let (a, b) = (sent.hand_in(&mut whole, now), sent.hand_in(&mut swept, now));
            prop_assert_eq!(a.rest, b.rest, "{:?}", sent);
            resets.extend(a.resets);
            later.extend(b.resets);
        }
        let mut last = Out::default();
        while swept.is_behind() {
            swept.catch_up(now, &mut last);
        }
        later.extend(last.resets);
        resets.sort();
        later.sort();
        prop_assert_eq!(resets, later);
        prop_assert_eq!(whole.stats().flows, swept.stats().flows);
        prop_assert!(swept.take_retired().is_some());
    }
}

/// A client's connections through the first VIP.
fn connections(engine: &mut Engine, count: u16, now: Instant) {
    for port in 0..count {
        for (from, to, flags) in [(TASKS[0], VIPS[0], "S"), (TASKS[0], VIPS[0], "A")] {
            let mut buffer = [vec![0; HEADROOM], from_to(from, to).tcp(port, 80, flags, 1, 1, b"")].concat();
            engine.handle_frame(PortId(1), VnetHdr::default(), &mut buffer, now, &mut Out::default());
        }
    }
    assert_eq!(engine.stats().flows, usize::from(count));
}

#[test]
fn a_turn_ends_few_connections_however_many_a_snapshot_ends() {
    const COUNT: u16 = 4_000;
    let now = Instant::now();
    let mut engine = engine(now);
    connections(&mut engine, COUNT, now);
    let prepared = engine.indexer().prepare(changed(3));
    let mut out = Out::default();
    engine.take_up(prepared, now, &mut out);
    assert_eq!(out.resets.len(), 0);
    let mut turns = 0;
    while engine.is_behind() {
        assert!(engine.poll_timeout().unwrap() <= now, "it wants its next turn at once");
        let before = out.resets.len();
        engine.catch_up(now, &mut out);
        assert!(out.resets.len() - before <= 150, "{}", out.resets.len() - before);
        turns += 1;
    }
    assert_eq!((out.resets.len(), engine.stats().flows), (2 * usize::from(COUNT), 0));
    assert!(turns > 40, "{turns}");
}

#[test]
fn a_turn_forgets_few_flows_however_many_have_expired() {
    let now = Instant::now();
    let mut engine = engine(now);
    connections(&mut engine, 1_000, now);
    let later = now + Duration::from_secs(3600);
    let mut left = vec![1_000];
    while engine.poll_timeout().is_some_and(|due| due <= later) {
        engine.handle_timeout(later, &mut Out::default());
        left.push(engine.stats().flows);
    }
    assert!(left.windows(2).all(|pair| pair[0] - pair[1] <= 128), "{left:?}");
    assert_eq!(left.last(), Some(&0));
}

#[test]
fn a_snapshot_that_comes_during_a_sweep_waits_for_its_end() {
    let now = Instant::now();
    let mut engine = engine(now);
    connections(&mut engine, 300, now);
    let mut out = Out::default();
    let mut indexer = engine.indexer();
    for change in [3, 7] {
        let prepared = indexer.prepare(changed(change));
        engine.take_up(prepared, now, &mut out);
    }
    assert_eq!((out.resets.len(), engine.stats().flows), (600, 0), "those of the first are over");
    while engine.is_behind() {
        engine.catch_up(now, &mut out);
    }
    assert_eq!(out.resets.len(), 600);
}
