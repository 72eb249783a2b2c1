//! One client floods, in virtual time and with real counts: what the others notice of it.

use crate::sim::{from_to, ip, resum, vtep};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::snapshot::*;
use skep_dataplane::{DropReason, Engine, HEADROOM, Output, VnetHdr};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VIP: &str = "10.1.0.2";
const BACKEND: &str = "10.1.0.200";
const INGRESS_VIP: &str = "10.0.0.5";
const TASK: &str = "10.0.0.7";
const HOST: &str = "10.0.0.251";
const HOST_PORT: u32 = 100;
const TASK_PORT: u32 = 101;
/// The flood comes from port 1; each of these opens connections like anybody.
const OTHERS: std::ops::Range<u32> = 2..7;
/// Connections each of the others has when the flood begins.
const KEPT: u16 = 40;

/// Addresses on the overlay by the port they are on.
fn container(port: u32) -> String {
    format!("10.1.0.{}", 10 + port)
}

/// The last thing the engine put out, and how much it was.
#[derive(Default)]
struct Last {
    to_port: Option<(PortId, Vec<u8>)>,
    to_peer: Option<Vec<u8>>,
    frames: u64,
}

impl Output for Last {
    fn frame(&mut self, port: PortId, _: VnetHdr, frame: &[u8]) {
        let (at, bytes) = self.to_port.get_or_insert_with(|| (port, Vec::new()));
        *at = port;
        bytes.clear();
        bytes.extend_from_slice(frame);
        self.frames += 1;
    }

    fn datagram(&mut self, _: Ipv4Addr, datagram: &[u8]) {
        let bytes = self.to_peer.get_or_insert_with(Vec::new);
        bytes.clear();
        bytes.extend_from_slice(datagram);
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}
}

struct Node {
    engine: Engine,
    now: Instant,
    out: Last,
    buf: Vec<u8>,
}

fn snapshot() -> Snapshot {
    let endpoint = |address: &str, location, kind| Endpoint {
        ip: ip(address),
        mac: MacAddr::for_ip(ip(address)),
        location,
        kind,
    };
    let local = |port| Location::Local(PortId(port));
    let service = |vip: &str, backend: &str, ports| Service {
        vip: ip(vip),
        backends: vec![Backend { ip: ip(backend), state: BackendState::Active }],
        ports,
    };
    let network = |vni, subnet: &str, gateway: &str| Network {
        vni: Vni::new(vni).unwrap(),
        policy: Policy::Plain,
        subnet: subnet.parse().unwrap(),
        gateway: ip(gateway),
        mtu: 1450,
        endpoints: Vec::new(),
        services: Vec::new(),
        ingress: false,
    };
    let mut endpoints: Vec<_> = (1..OTHERS.end)
        .map(|port| endpoint(&container(port), local(port), EndpointKind::Container))
        .collect();
    endpoints.push(endpoint(BACKEND, Location::Remote(vtep(2)), EndpointKind::Container));
    let overlay = Network {
        endpoints,
        services: vec![service(VIP, BACKEND, ServicePorts::All)],
        ..network(4097, "10.1.0.0/24", "10.1.0.1")
    };
    let ingress = Network {
        endpoints: vec![
            endpoint(HOST, local(HOST_PORT), EndpointKind::Host),
            endpoint("10.0.0.252", Location::Remote(vtep(2)), EndpointKind::Host),
            endpoint(TASK, local(TASK_PORT), EndpointKind::Container),
        ],
        services: vec![service(INGRESS_VIP, TASK, ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 53)]))],
        ingress: true,
        ..network(4096, "10.0.0.0/24", "10.0.0.1")
    };
    let reserved = vec!["10.0.0.0/8".parse().unwrap()];
    Snapshot { networks: vec![overlay, ingress], reserved, ..Snapshot::default() }
}

impl Node {
    fn new() -> Self {
        let (mut engine, now, mut out) =
            (Engine::new(11, crate::identity::identity(1, 0)), Instant::now(), Last::default());
        engine.apply(Arc::new(snapshot()), now, &mut out);
        Self { engine, now, out, buf: vec![0; HEADROOM] }
    }

    fn send(&mut self, port: u32, frame: &[u8]) {
        self.buf.truncate(HEADROOM);
        self.buf.extend_from_slice(frame);
        self.engine.handle_frame(PortId(port), VnetHdr::default(), &mut self.buf, self.now, &mut self.out);
    }

    /// A frame of the backend's, from its node.
    fn arrive(&mut self, frame: &[u8]) {
        let mut datagram = [&[8, 0, 0, 0, 0, 0x10, 0x01, 0][..], frame].concat();
        self.engine.handle_datagram(vtep(2), &mut datagram, self.now, &mut self.out);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        while self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now, &mut self.out);
        }
    }

    /// Whether a segment of a container reaches the backend.
    fn asks(&mut self, port: u32, src_port: u16, flags: &str) -> bool {
        self.out.to_peer = None;
        let frame = from_to(&container(port), VIP).tcp(src_port, 80, flags, 100, 500, b"");
        self.send(port, &frame);
        let sent = self.out.to_peer.take();
        sent.is_some_and(|datagram| datagram[38..42] == ip(BACKEND).octets())
    }

    /// Whether the backend's segment reaches a container as the VIP's.
    fn is_answered(&mut self, port: u32, src_port: u16, flags: &str) -> bool {
        self.out.to_port = None;
        let frame = from_to(BACKEND, &container(port)).tcp(80, src_port, flags, 500, 101, b"");
        self.arrive(&frame);
        let given = self.out.to_port.take();
        given.is_some_and(|(at, frame)| at == PortId(port) && frame[26..30] == ip(VIP).octets())
    }

    fn connects(&mut self, port: u32, src_port: u16) -> bool {
        self.asks(port, src_port, "S")
            && self.is_answered(port, src_port, "SA")
            && self.asks(port, src_port, "A")
    }
}

/// What the others noticed of a flood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Noticed {
    tried: u32,
    failed: u32,
    broken: u32,
}

/// `count` frames at 100,000 a second, and meanwhile 1,000 connections a second of others, with 200 µs on the way.
fn flood(node: &mut Node, count: u32, mut nth: impl FnMut(&mut Node, u32)) -> Noticed {
    let mut noticed = Noticed::default();
    for port in OTHERS {
        assert!((0..KEPT).all(|n| node.connects(port, 2000 + n)));
    }
    let mut opening = None;
    for n in 0..count {
        nth(node, n);
        node.wait(Duration::from_micros(10));
        let (port, src_port) =
            (OTHERS.start + n / 100 % OTHERS.len() as u32, 10_000 + (n / 500 % 20_000) as u16);
        match n % 100 {
            0 => opening = Some(node.asks(port, src_port, "S")),
            20 => {
                let is_open = opening == Some(true)
                    && node.is_answered(port, src_port, "SA")
                    && node.asks(port, src_port, "A")
                    && node.is_answered(port, src_port, "PA");
                noticed.tried += 1;
                noticed.failed += u32::from(!is_open);
                node.asks(port, src_port, "R");
            }
            _ => {}
        }
        if n % 20_000 == 0 {
            noticed.broken += broken(node);
        }
    }
    noticed
}

/// Connections from before the flood that data no longer passes both ways.
fn broken(node: &mut Node) -> u32 {
    let all = OTHERS.flat_map(|port| (0..KEPT).map(move |n| (port, 2000 + n)));
    all.filter(|(port, n)| !(node.asks(*port, *n, "PA") && node.is_answered(*port, *n, "PA"))).count() as u32
}

/// Soon after a flood the flow table holds nothing but the others' connections, and they work.
fn assert_recovers(node: &mut Node, within: Duration) {
    assert_eq!(broken(node), 0);
    node.wait(within);
    assert_eq!(node.engine.stats().flows, OTHERS.len() * usize::from(KEPT));
    assert_eq!(broken(node), 0);
}

fn unharmed(tried: u32) -> Noticed {
    Noticed { tried, failed: 0, broken: 0 }
}

fn set_ports(frame: &mut [u8], src: u16, dst: u16) {
    frame[34..36].copy_from_slice(&src.to_be_bytes());
    frame[36..38].copy_from_slice(&dst.to_be_bytes());
}

/// As many ways to open a connection as a test wants.
fn ports(nth: u32) -> (u16, u16) {
    ((1024 + nth % 64_000) as u16, (1 + nth / 64_000) as u16)
}

/// An address and port of the outside for each number, from anywhere but what no client may claim.
fn spoof(frame: &mut [u8], nth: u32) {
    let mixed = nth.wrapping_mul(0x9e37_79b1);
    frame[26..30].copy_from_slice(&[
        20 + (mixed >> 24) as u8 % 80,
        (mixed >> 16) as u8,
        (mixed >> 8) as u8,
        1,
    ]);
    resum(frame);
    frame[34..36].copy_from_slice(&(1024 + (mixed % 60_000) as u16).to_be_bytes());
}

#[test]
fn two_million_connections_that_one_container_begins_are_no_harm_to_others() {
    let mut node = Node::new();
    let mut syn = from_to(&container(1), VIP).tcp(1, 1, "S", 1, 0, b"");
    let noticed = flood(&mut node, 2_000_000, |node, n| {
        let (src, dst) = ports(n);
        set_ports(&mut syn, src, dst);
        node.send(1, &syn);
    });
    assert_eq!(noticed, unharmed(20_000));
    let stats = node.engine.stats();
    assert!(stats.flows < stats.flow_capacity / 2, "{} flows", stats.flows);
    assert!(stats.flows_displaced > 1_900_000, "{}", stats.flows_displaced);
    assert_recovers(&mut node, Duration::from_secs(10));
}

#[test]
fn nor_are_those_that_are_answered_and_not_acknowledged() {
    let mut node = Node::new();
    let mut syn = from_to(&container(1), VIP).tcp(1, 1, "S", 1, 0, b"");
    let mut answer = from_to(BACKEND, &container(1)).tcp(1, 1, "SA", 1, 2, b"");
    let noticed = flood(&mut node, 150_000, |node, n| {
        let (src, dst) = ports(n);
        set_ports(&mut syn, src, dst);
        node.send(1, &syn);
        set_ports(&mut answer, dst, src);
        node.arrive(&answer);
    });
    assert_eq!(noticed, unharmed(1_500));
    assert_recovers(&mut node, Duration::from_secs(10));
}

#[test]
fn nor_are_those_past_the_vip() {
    let mut node = Node::new();
    let mut syn = from_to(&container(1), BACKEND).tcp(1, 1, "S", 1, 0, b"");
    let noticed = flood(&mut node, 150_000, |node, n| {
        let (src, dst) = ports(n);
        set_ports(&mut syn, src, dst);
        node.send(1, &syn);
    });
    assert_eq!(noticed, unharmed(1_500));
    assert_recovers(&mut node, Duration::from_secs(10));
}

#[test]
fn nor_are_datagrams() {
    let mut node = Node::new();
    let mut question = from_to(&container(1), VIP).udp(1, 1, b"?");
    let noticed = flood(&mut node, 150_000, |node, n| {
        let (src, dst) = ports(n);
        set_ports(&mut question, src, dst);
        node.send(1, &question);
    });
    assert_eq!(noticed, unharmed(1_500));
    assert_recovers(&mut node, Duration::from_secs(30));
}

#[test]
fn nor_are_pings() {
    let mut node = Node::new();
    let noticed = flood(&mut node, 100_000, |node, n| {
        let ping = from_to(&container(1), VIP).ping(n as u16, b"");
        node.send(1, &ping);
    });
    assert_eq!(noticed, unharmed(1_000));
    assert_recovers(&mut node, Duration::from_secs(30));
}

/// Neither a quota by address nor one by port helps against addresses that are made up: the table is full.
#[test]
fn connections_from_made_up_addresses_of_the_outside_fill_the_table_and_harm_nobody() {
    for (entry, count) in [(true, 200_000), (false, 150_000)] {
        let mut node = Node::new();
        let dst = if entry { INGRESS_VIP } else { TASK };
        let by = if entry { HOST } else { "10.0.0.252" };
        let mut syn = from_to("20.0.0.1", dst).by(by).tcp(1, 80, "S", 1, 0, b"");
        let noticed = flood(&mut node, count, |node, n| {
            spoof(&mut syn, n);
            if entry {
                node.send(HOST_PORT, &syn);
            } else {
                let mut datagram = [&[8, 0, 0, 0, 0, 0x10, 0x00, 0][..], &syn].concat();
                node.engine.handle_datagram(vtep(2), &mut datagram, node.now, &mut node.out);
            }
        });
        assert_eq!(noticed, unharmed(count / 100));
        let stats = node.engine.stats();
        assert_eq!(stats.flows, stats.flow_capacity);
        assert_recovers(&mut node, Duration::from_secs(10));
    }
}

#[test]
fn datagrams_from_made_up_addresses_that_a_task_answers_harm_nobody() {
    let mut node = Node::new();
    let mut question = from_to("20.0.0.1", INGRESS_VIP).by(HOST).udp(1, 53, b"?");
    let mut answer = from_to(TASK, "20.0.0.1").via("10.0.0.1").udp(53, 1, b"!");
    let noticed = flood(&mut node, 150_000, |node, n| {
        spoof(&mut question, n);
        node.send(HOST_PORT, &question);
        answer[30..34].copy_from_slice(&question[26..30]);
        answer[36..38].copy_from_slice(&question[34..36]);
        resum(&mut answer);
        node.send(TASK_PORT, &answer);
    });
    assert_eq!(noticed, unharmed(1_500));
    assert_recovers(&mut node, Duration::from_secs(180));
}

#[test]
fn a_container_that_keeps_every_connection_gets_its_share_and_is_told_no_more() {
    let mut node = Node::new();
    let mut frames = ["S", "A"].map(|flags| from_to(&container(1), VIP).tcp(1, 1, flags, 1, 2, b""));
    let mut answer = from_to(BACKEND, &container(1)).tcp(1, 1, "SA", 1, 2, b"");
    let noticed = flood(&mut node, 100_000, |node, n| {
        let (src, dst) = ports(n);
        set_ports(&mut frames[0], src, dst);
        set_ports(&mut frames[1], src, dst);
        set_ports(&mut answer, dst, src);
        node.send(1, &frames[0]);
        node.arrive(&answer);
        node.send(1, &frames[1]);
    });
    assert_eq!(noticed, unharmed(1_000));
    let stats = node.engine.stats();
    assert!((32_000..34_500).contains(&stats.flows), "{} flows", stats.flows);
    assert!(stats.dropped(DropReason::FlowShare) > 60_000);
    assert_eq!(broken(&mut node), 0);
}

/// Both to the VIP and past it, so that every answer would be taken for two connections'.
#[test]
fn a_container_that_uses_up_its_ports_uses_up_nobody_elses() {
    let mut node = Node::new();
    let mut direct = from_to(&container(1), BACKEND).tcp(1, 80, "S", 1, 0, b"");
    let mut balanced = from_to(&container(1), VIP).tcp(1, 80, "S", 1, 0, b"");
    let noticed = flood(&mut node, 150_000, |node, n| {
        let frame = if n % 2 == 0 { &mut direct } else { &mut balanced };
        set_ports(frame, 1 + (n / 2 % 65_000) as u16, 80);
        node.send(1, frame);
    });
    assert_eq!(noticed, unharmed(1_500));
    assert_recovers(&mut node, Duration::from_secs(10));
}
