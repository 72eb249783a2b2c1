//! Once an engine has its snapshot, no packet makes it allocate.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

use etherparse::PacketBuilder;
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::snapshot::*;
use skep_dataplane::{DropReason, Engine, HEADROOM, Output, VnetHdr};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const PORT: PortId = PortId(1);

#[derive(Default)]
struct Counted {
    frames: usize,
    datagrams: usize,
    judgements: usize,
}

impl Output for Counted {
    fn frame(&mut self, _: PortId, _: VnetHdr, _: &[u8]) {
        self.frames += 1;
    }

    fn datagram(&mut self, _: Ipv4Addr, _: &[u8]) {
        self.datagrams += 1;
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {
        self.judgements += 1;
    }
}

fn snapshot() -> Snapshot {
    let endpoint =
        |ip, location| Endpoint { ip, mac: MacAddr::for_ip(ip), location, kind: EndpointKind::Container };
    let network = Network {
        vni: Vni::new(4097).unwrap(),
        policy: Policy::Plain,
        subnet: "10.1.0.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 1, 0, 1),
        mtu: 1450,
        endpoints: vec![endpoint(CLIENT, Location::Local(PORT)), endpoint(REMOTE, Location::Remote(PEER))],
        services: vec![Service {
            vip: VIP,
            backends: vec![Backend { ip: REMOTE, state: BackendState::Active }],
            ports: ServicePorts::All,
        }],
        ingress: false,
    };
    Snapshot { generation: 1, networks: vec![network], reserved: Vec::new(), vteps: vec![PEER] }
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

#[test]
fn no_packet_allocates() {
    let mut engine = Engine::new(1);
    let mut out = Counted::default();
    let now = Instant::now();
    engine.apply(Arc::new(snapshot()), now, &mut out);
    let frames = from_port();
    let reply = [&[8, 0, 0, 0, 0, 0x10, 0x01, 0][..], &udp(REMOTE, CLIENT, 53, 4001, b"answer")].concat();
    let mut buffers: Vec<Vec<u8>> = frames.iter().map(|(_, frame)| buffer(frame)).collect();
    let mut datagram = reply.clone();
    let question = [8, 0, 0, 0, 0, 0, 0, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8];

    let info = allocation_counter::measure(|| {
        for round in 0..100 {
            let now = now + Duration::from_secs(round);
            for ((vnet, frame), buf) in frames.iter().zip(&mut buffers) {
                buf[HEADROOM..].copy_from_slice(frame);
                engine.handle_frame(PORT, *vnet, buf, now, &mut out);
            }
            datagram.copy_from_slice(&reply);
            engine.handle_datagram(PEER, &mut datagram, now, &mut out);
            engine.handle_datagram(PEER, &mut question.clone(), now, &mut out);
            engine.handle_timeout(now, &mut out);
        }
        // A peer that never answers is asked, and found silent.
        for _ in 0..20 {
            let now = engine.poll_timeout().unwrap();
            engine.handle_timeout(now, &mut out);
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    assert!(out.judgements == 1 && engine.stats().paths[0].silent);
    let stats = engine.stats();
    assert_eq!(stats.dropped(DropReason::NoFlow), 100, "the stray segment was reset");
    assert!(out.datagrams >= 100 * (1 + 1 + 30 + 1), "{} datagrams", out.datagrams);
    assert_eq!(out.frames, 100 * 3, "the answer, the reset, and the word about the size");
}
