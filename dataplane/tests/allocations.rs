//! Once an engine has its snapshot, no packet makes it allocate.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

#[path = "../benches/engine/frames.rs"]
mod frames;
mod identity;
#[allow(dead_code, reason = "what only the bench asks")]
#[path = "../benches/engine/lane.rs"]
mod lane;
#[path = "../benches/engine/paths.rs"]
mod paths;
#[path = "../benches/engine/world.rs"]
mod world;

use etherparse::PacketBuilder;
use identity::{identity, public};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::snapshot::*;
use skep_dataplane::{DropReason, Engine, HEADROOM, Output, VnetHdr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const PORT: PortId = PortId(1);

struct Counted {
    frames: usize,
    datagrams: usize,
    place: Box<[u8]>,
}

impl Default for Counted {
    fn default() -> Self {
        Self { frames: 0, datagrams: 0, place: vec![0; 1 << 16].into() }
    }
}

impl Output for Counted {
    fn frame(&mut self, _: PortId, _: VnetHdr, _: &[u8]) {
        self.frames += 1;
    }

    fn datagram(&mut self, _: Ipv4Addr, _: &[u8]) {
        self.datagrams += 1;
    }

    fn datagram_in_place(&mut self, _: Ipv4Addr, len: usize, write: impl FnOnce(&mut [u8])) {
        write(&mut self.place[..len]);
        self.datagrams += 1;
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}
}

/// Keeps the datagrams.
#[derive(Default)]
struct Kept(VecDeque<Vec<u8>>);

impl Output for Kept {
    fn frame(&mut self, _: PortId, _: VnetHdr, _: &[u8]) {}

    fn datagram(&mut self, _: Ipv4Addr, datagram: &[u8]) {
        self.0.push_back(datagram.to_vec());
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}
}

fn snapshot(policy: Policy) -> Snapshot {
    let endpoint =
        |ip, location| Endpoint { ip, mac: MacAddr::for_ip(ip), location, kind: EndpointKind::Container };
    let network = Network {
        vni: Vni::new(4097).unwrap(),
        policy,
        subnet: "10.1.0.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 1, 0, 1),
        mtu: 1500 - policy.overhead(),
        endpoints: vec![endpoint(CLIENT, Location::Local(PORT)), endpoint(REMOTE, Location::Remote(PEER))],
        services: vec![Service {
            vip: VIP,
            backends: vec![Backend { ip: REMOTE, state: BackendState::Active }],
            ports: ServicePorts::All,
        }],
        ingress: false,
    };
    Snapshot {
        generation: 1,
        networks: vec![network],
        reserved: Vec::new(),
        peers: vec![peer(PEER, 2)],
        underlay_mtu: 1500,
    }
}

fn peer(vtep: Ipv4Addr, n: usize) -> Peer {
    Peer { vtep, key: public(n) }
}

fn buffer(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADROOM], frame].concat()
}

fn builder(src: Ipv4Addr, dst: Ipv4Addr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(MacAddr::for_ip(src).0, MacAddr::for_ip(dst).0).ipv4(
        src.octets(),
        dst.octets(),
        64,
    )
}

fn udp(src: Ipv4Addr, dst: Ipv4Addr, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder(src, dst).udp(src_port, dst_port).write(&mut frame, payload).unwrap();
    frame
}

/// A buffer for each kind of packet: what is sent, with its virtio header.
fn from_port() -> Vec<(VnetHdr, Vec<u8>)> {
    let plain = VnetHdr::default();
    let gso = VnetHdr {
        flags: VnetHdr::NEEDS_CSUM,
        gso_type: VnetHdr::GSO_UDP_L4,
        hdr_len: 42,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 6,
    };
    let mut fragment = udp(CLIENT, VIP, 9, 53, &[1; 1000]);
    fragment[20] = 0x20;
    fragment[24] = fragment[24].wrapping_add(0x20);
    let mut syn = Vec::new();
    builder(CLIENT, VIP).tcp(7, 80, 1, 1000).syn().write(&mut syn, b"").unwrap();
    let mut stray = Vec::new();
    builder(CLIENT, VIP).tcp(8, 80, 1, 1000).ack(1).write(&mut stray, b"x").unwrap();
    vec![
        (plain, udp(CLIENT, REMOTE, 4000, 53, b"direct")),
        (plain, udp(CLIENT, VIP, 4001, 53, b"balanced")),
        (gso, udp(CLIENT, VIP, 4002, 53, &[1; 30_000])),
        (plain, udp(CLIENT, VIP, 4003, 53, &[1; 3000])),
        (plain, fragment),
        (plain, syn),
        (plain, stray),
    ]
}

/// The paths that the bench times, and in its steady state.
#[test]
fn no_path_allocates() {
    for path in paths::all() {
        for size in [frames::Size::Small, frames::Size::Large] {
            let Some(mut lane) = path.lane(size) else { continue };
            for batch in 1..=3 {
                let took = lane.run_batch();
                assert_eq!(took.allocations, 0, "{}", path.name);
                lane.assert_lossless(batch * took.packets as u64);
            }
        }
    }
}

#[test]
fn no_packet_allocates() {
    let mut engine = Engine::new(1, identity(1, 0));
    let mut out = Counted::default();
    let now = Instant::now();
    engine.apply(Arc::new(snapshot(Policy::Plain)), now, &mut out);
    let frames = from_port();
    let reply = [&[8, 0, 0, 0, 0, 0x10, 0x01, 0][..], &udp(REMOTE, CLIENT, 53, 4001, b"answer")].concat();
    let mut buffers: Vec<Vec<u8>> = frames.iter().map(|(_, frame)| buffer(frame)).collect();
    let mut datagram = reply.clone();

    let info = allocation_counter::measure(|| {
        for round in 0..100 {
            let now = now + Duration::from_secs(round);
            for ((vnet, frame), buf) in frames.iter().zip(&mut buffers) {
                buf[HEADROOM..].copy_from_slice(frame);
                engine.handle_frame(PORT, *vnet, buf, now, &mut out);
            }
            datagram.copy_from_slice(&reply);
            engine.handle_datagram(PEER, &mut datagram, now, &mut out);
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    let stats = engine.stats();
    assert_eq!(stats.dropped(DropReason::NoFlow), 100, "the stray segment was reset");
    assert!(out.datagrams >= 100 * (1 + 1 + 30), "{} datagrams", out.datagrams);
    assert_eq!(out.frames, 100 * 3, "the answer, the reset, and the word about the size");
}

/// Both ends of a session, which has its first keys.
struct Pair {
    here: Engine,
    there: Engine,
    now: Instant,
}

const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const THEIR_PORT: PortId = PortId(9);

impl Pair {
    fn new() -> Self {
        let (mut here, mut there) = (Engine::new(1, identity(1, 0)), Engine::new(2, identity(2, 0)));
        let now = Instant::now();
        let (mut to_there, mut to_here) = (Kept::default(), Kept::default());
        let mut theirs = snapshot(Policy::Sealed);
        theirs.peers = vec![peer(HERE, 1)];
        for endpoint in &mut theirs.networks[0].endpoints {
            endpoint.location = match endpoint.location {
                Location::Local(_) => Location::Remote(HERE),
                Location::Remote(_) => Location::Local(THEIR_PORT),
            };
        }
        there.apply(Arc::new(theirs), now, &mut to_here);
        here.apply(Arc::new(snapshot(Policy::Sealed)), now, &mut to_there);
        let mut pair = Self { here, there, now };
        pair.pass(Duration::from_secs(3));
        pair
    }

    /// Both do what they do by themselves, and hear each other at once.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let due = [&self.here, &self.there].into_iter().filter_map(Engine::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            let (mut to_there, mut to_here) = (Kept::default(), Kept::default());
            self.here.handle_timeout(self.now, &mut to_there);
            self.there.handle_timeout(self.now, &mut to_here);
            while let Some((mut datagram, is_theirs)) = next(&mut to_here, &mut to_there) {
                match is_theirs {
                    true => self.here.handle_datagram(PEER, &mut datagram, self.now, &mut to_there),
                    false => self.there.handle_datagram(HERE, &mut datagram, self.now, &mut to_here),
                }
            }
        }
        self.now = until;
    }
}

fn next(to_here: &mut Kept, to_there: &mut Kept) -> Option<(Vec<u8>, bool)> {
    let theirs = to_here.0.pop_front().map(|datagram| (datagram, true));
    theirs.or_else(|| Some((to_there.0.pop_front()?, false)))
}

/// What two engines need memory for is agreeing on keys, every two minutes.
#[test]
fn no_sealed_packet_allocates() {
    let Pair { mut here, mut there, now } = Pair::new();
    let mut answers = Kept::default();
    let answer = udp(REMOTE, CLIENT, 53, 4000, b"answer");
    for _ in 0..100 {
        there.handle_frame(THEIR_PORT, VnetHdr::default(), &mut buffer(&answer), now, &mut answers);
    }
    assert_eq!(answers.0.len(), 100);
    let frames = from_port();
    let mut buffers: Vec<Vec<u8>> = frames.iter().map(|(_, frame)| buffer(frame)).collect();
    let mut out = Counted::default();
    let before = here.stats();

    let info = allocation_counter::measure(|| {
        for answer in &mut answers.0 {
            for ((vnet, frame), buf) in frames.iter().zip(&mut buffers) {
                buf[HEADROOM..].copy_from_slice(frame);
                here.handle_frame(PORT, *vnet, buf, now, &mut out);
            }
            here.handle_datagram(PEER, answer, now, &mut out);
        }
        // Questions to a peer that does not answer any more, until it is silent.
        for _ in 0..18 {
            let now = here.poll_timeout().unwrap().min(now + Duration::from_millis(999));
            here.handle_timeout(now, &mut out);
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    assert!(out.datagrams >= 100 * (1 + 1 + 30), "{} datagrams", out.datagrams);
    assert_eq!(out.frames, 100 * 3, "the answer, the reset, and the word about the size");
    let session = |stats: skep_dataplane::Stats| stats.paths[0].session.clone();
    let (before, after) = (session(before), session(here.stats()));
    assert!(after.datagrams_sent - before.datagrams_sent >= 100 * 32, "{after:?}");
    assert_eq!(after.datagrams_received - before.datagrams_received, 100);
}
