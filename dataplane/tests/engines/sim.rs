//! A few nodes, an underlay that delivers at once, and a clock that only tests move.

use crate::identity::{identity, public};
use etherparse::{IpNumber, Ipv4Slice, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::snapshot::*;
use skep_dataplane::{DropReason, Engine, HEADROOM, Output, VnetHdr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// At the usual MTU of an underlay.
pub(crate) const MTU: u16 = 1500 - crate::POLICY.overhead();

pub(crate) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// The VTEP of node `n`.
pub(crate) fn vtep(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, n as u8)
}

/// What every node agrees on; each node's snapshot is a projection of it.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) networks: Vec<Overlay>,
    pub(crate) reserved: Vec<&'static str>,
    /// Of every network.
    pub(crate) policy: Policy,
}

#[derive(Clone)]
pub(crate) struct Overlay {
    pub(crate) vni: u32,
    pub(crate) subnet: &'static str,
    pub(crate) gateway: &'static str,
    pub(crate) ingress: bool,
    /// Address, node, port, kind.
    pub(crate) endpoints: Vec<(&'static str, usize, u32, EndpointKind)>,
    pub(crate) services: Vec<Service>,
}

impl Overlay {
    pub(crate) fn new(vni: u32, subnet: &'static str, gateway: &'static str) -> Self {
        Self { vni, subnet, gateway, ingress: false, endpoints: Vec::new(), services: Vec::new() }
    }

    pub(crate) fn container(mut self, address: &'static str, node: usize, port: u32) -> Self {
        self.endpoints.push((address, node, port, EndpointKind::Container));
        self
    }

    pub(crate) fn host(mut self, address: &'static str, node: usize, port: u32) -> Self {
        self.endpoints.push((address, node, port, EndpointKind::Host));
        self
    }

    pub(crate) fn service(mut self, vip: &str, backends: &[&str], ports: ServicePorts) -> Self {
        self.services.push(service(vip, backends, ports));
        self
    }

    fn project(&self, node: usize, policy: Policy) -> Network {
        let endpoint = |(address, at, port, kind): &(&str, usize, u32, EndpointKind)| Endpoint {
            ip: ip(address),
            mac: MacAddr::for_ip(ip(address)),
            location: if *at == node { Location::Local(PortId(*port)) } else { Location::Remote(vtep(*at)) },
            kind: kind.clone(),
        };
        Network {
            vni: Vni::new(self.vni).unwrap(),
            policy,
            subnet: self.subnet.parse().unwrap(),
            gateway: ip(self.gateway),
            mtu: MTU,
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            services: self.services.clone(),
            ingress: self.ingress,
        }
    }
}

pub(crate) fn peer(n: usize) -> Peer {
    Peer { vtep: vtep(n), key: public(n) }
}

pub(crate) fn service(vip: &str, backends: &[&str], ports: ServicePorts) -> Service {
    let active = |address: &&str| Backend { ip: ip(address), state: BackendState::Active };
    Service { vip: ip(vip), backends: backends.iter().map(active).collect(), ports }
}

pub(crate) struct Sim {
    pub(crate) now: Instant,
    pub(crate) cluster: Cluster,
    engines: Vec<Engine>,
    generation: u64,
    lives: u64,
    /// Frames handed to ports: node, port, virtio header, frame.
    inbox: Vec<(usize, PortId, VnetHdr, Vec<u8>)>,
    /// What is sent stays in [`wire`](Self::wire), for the test to deliver, or not.
    pub(crate) is_held: bool,
    /// Every datagram that was on the underlay: from, to, payload.
    pub(crate) wire: Vec<(Ipv4Addr, Ipv4Addr, Vec<u8>)>,
}

#[derive(Default)]
struct Collected {
    frames: Vec<(PortId, VnetHdr, Vec<u8>)>,
    datagrams: Vec<(Ipv4Addr, Vec<u8>)>,
    silent: Option<Vec<Ipv4Addr>>,
}

impl Output for Collected {
    fn frame(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]) {
        self.frames.push((port, vnet, frame.to_vec()));
    }

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        self.datagrams.push((to, datagram.to_vec()));
    }

    fn reachability(&mut self, silent: &[Ipv4Addr]) {
        self.silent = Some(silent.to_vec());
    }
}

impl Sim {
    /// Nodes are numbered from 1.
    pub(crate) fn new(nodes: usize, networks: Vec<Overlay>) -> Self {
        Self::with(crate::POLICY, nodes, networks)
    }

    pub(crate) fn with(policy: Policy, nodes: usize, networks: Vec<Overlay>) -> Self {
        let cluster = Cluster { networks, reserved: vec!["10.0.0.0/8"], policy };
        let engines = (0..nodes).map(|n| Engine::new(7 + n as u64, identity(n + 1, 0))).collect();
        let mut sim = Self {
            now: Instant::now(),
            cluster,
            engines,
            generation: 0,
            lives: 0,
            inbox: Vec::new(),
            is_held: false,
            wire: Vec::new(),
        };
        sim.publish();
        sim.meet();
        sim
    }

    /// Every node gets the cluster as it is.
    pub(crate) fn publish(&mut self) {
        for node in 1..=self.engines.len() {
            self.publish_to(node);
        }
    }

    pub(crate) fn publish_to(&mut self, node: usize) {
        self.generation += 1;
        let policy = self.cluster.policy;
        let peers = match policy {
            Policy::Sealed => (1..=self.engines.len()).filter(|peer| *peer != node).map(peer).collect(),
            Policy::Plain => Vec::new(),
        };
        let snapshot = Arc::new(Snapshot {
            generation: self.generation,
            networks: self.cluster.networks.iter().map(|network| network.project(node, policy)).collect(),
            reserved: self.cluster.reserved.iter().map(|range| range.parse().unwrap()).collect(),
            peers,
            underlay_mtu: 1500,
        });
        let mut out = Collected::default();
        self.engines[node - 1].apply(snapshot, self.now, &mut out);
        self.settle(node, out);
    }

    /// A fresh engine in place of a node's, as after a crash.
    pub(crate) fn restart(&mut self, node: usize) {
        self.lives += 1;
        self.engines[node - 1] = Engine::new(99, identity(node, self.lives));
        self.publish_to(node);
        self.meet();
    }

    /// Where networks are sealed, nodes that know each other agree on keys and find out what their paths carry.
    fn meet(&mut self) {
        if self.cluster.policy == Policy::Sealed {
            (0..60).for_each(|_| self.advance(Duration::from_millis(50)));
            self.wire.clear();
        }
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
        for node in 1..=self.engines.len() {
            let mut out = Collected::default();
            self.engines[node - 1].handle_timeout(self.now, &mut out);
            self.settle(node, out);
        }
    }

    pub(crate) fn engine(&self, node: usize) -> &Engine {
        &self.engines[node - 1]
    }

    pub(crate) fn dropped(&self, node: usize, reason: DropReason) -> u64 {
        self.engine(node).stats().dropped(reason)
    }

    pub(crate) fn send(&mut self, node: usize, port: u32, frame: &[u8]) {
        self.send_offloaded(node, port, VnetHdr::default(), frame);
    }

    pub(crate) fn send_offloaded(&mut self, node: usize, port: u32, vnet: VnetHdr, frame: &[u8]) {
        let mut buf = vec![0; HEADROOM];
        buf.extend_from_slice(frame);
        let mut out = Collected::default();
        self.engines[node - 1].handle_frame(PortId(port), vnet, &mut buf, self.now, &mut out);
        self.settle(node, out);
    }

    /// A datagram from an address of the underlay.
    pub(crate) fn inject(&mut self, from: Ipv4Addr, node: usize, datagram: &[u8]) {
        let mut out = Collected::default();
        self.engines[node - 1].handle_datagram(from, &mut datagram.to_vec(), self.now, &mut out);
        self.settle(node, out);
    }

    /// Delivers what a node sent, and what is sent because of it.
    fn settle(&mut self, node: usize, out: Collected) {
        let mut work = VecDeque::from([(node, out)]);
        while let Some((node, out)) = work.pop_front() {
            for (port, vnet, frame) in out.frames {
                self.inbox.push((node, port, vnet, frame));
            }
            for (to, datagram) in out.datagrams {
                self.wire.push((vtep(node), to, datagram.clone()));
                if self.is_held {
                    continue;
                }
                let receiver = usize::from(to.octets()[3]);
                let Some(engine) = self.engines.get_mut(receiver - 1) else { continue };
                let mut answer = Collected::default();
                let mut datagram = datagram;
                engine.handle_datagram(vtep(node), &mut datagram, self.now, &mut answer);
                work.push_back((receiver, answer));
            }
        }
    }

    /// What a port was handed since it was last asked.
    pub(crate) fn received(&mut self, node: usize, port: u32) -> Vec<(VnetHdr, Vec<u8>)> {
        let (mine, rest) = self.inbox.drain(..).partition(|(n, p, ..)| (*n, *p) == (node, PortId(port)));
        self.inbox = rest;
        let mine: Vec<_> = mine;
        mine.into_iter().map(|(_, _, vnet, frame)| (vnet, frame)).collect()
    }

    /// What the ports of a node were handed, in its order.
    pub(crate) fn all_received(&mut self, node: usize) -> Vec<(PortId, VnetHdr, Vec<u8>)> {
        let (mine, rest): (Vec<_>, _) = self.inbox.drain(..).partition(|(at, ..)| *at == node);
        self.inbox = rest;
        mine.into_iter().map(|(_, port, vnet, frame)| (port, vnet, frame)).collect()
    }

    /// The one frame a port was handed, read and with its checksums checked.
    #[track_caller]
    pub(crate) fn receive(&mut self, node: usize, port: u32) -> Seen {
        let frames = self.received(node, port);
        let drops: Vec<_> = self
            .engines
            .iter()
            .map(|e| e.stats().drops.into_iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>())
            .collect();
        assert_eq!(frames.len(), 1, "one frame expected on node {node} port {port}; drops {drops:?}");
        Seen::read(&frames[0].1)
    }

    /// Forgets what ports were handed.
    pub(crate) fn clear(&mut self) {
        self.inbox.clear();
    }

    #[track_caller]
    pub(crate) fn assert_silent(&mut self) {
        let seen: Vec<_> = self.inbox.iter().map(|(n, p, _, f)| (*n, *p, f.len())).collect();
        assert!(seen.is_empty(), "nothing expected on any port: {seen:?}");
    }
}

/// A frame as its receiver reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) src_mac: MacAddr,
    pub(crate) dst_mac: MacAddr,
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) ttl: u8,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: String,
    /// ICMP type, code and the bytes after the checksum.
    pub(crate) icmp: Option<(u8, u8, [u8; 4])>,
    pub(crate) payload: Vec<u8>,
}

impl Seen {
    #[track_caller]
    pub(crate) fn read(frame: &[u8]) -> Self {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Ipv4(ipv4)) = sliced.net else { panic!("not IPv4: {frame:02x?}") };
        assert_eq!(ipv4.header().header_checksum(), ipv4.header().to_header().calc_header_checksum());
        let mac = |at: usize| MacAddr(frame[at..at + 6].try_into().unwrap());
        let mut seen = Self {
            dst_mac: mac(0),
            src_mac: mac(6),
            src: ipv4.header().source_addr(),
            dst: ipv4.header().destination_addr(),
            ttl: ipv4.header().ttl(),
            src_port: 0,
            dst_port: 0,
            seq: 0,
            ack: 0,
            flags: String::new(),
            icmp: None,
            payload: ipv4.payload().payload.to_vec(),
        };
        match sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => seen.read_tcp(&tcp.to_header(), &ipv4, tcp.payload()),
            Some(TransportSlice::Udp(udp)) => {
                let header = udp.to_header();
                if header.checksum != 0 {
                    let full = header.calc_checksum_ipv4(&ipv4.header().to_header(), udp.payload()).unwrap();
                    assert_eq!(header.checksum, full, "UDP checksum");
                }
                (seen.src_port, seen.dst_port) = (header.source_port, header.destination_port);
                seen.payload = udp.payload().to_vec();
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                assert!(icmp.header().icmp_type.calc_checksum(icmp.payload()) == icmp.header().checksum);
                seen.icmp = Some((icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()));
                seen.payload = icmp.payload().to_vec();
            }
            Some(TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => {}
        }
        seen
    }

    fn read_tcp(&mut self, tcp: &TcpHeader, ipv4: &Ipv4Slice<'_>, payload: &[u8]) {
        let full = tcp.calc_checksum_ipv4(&ipv4.header().to_header(), payload).unwrap();
        assert_eq!(tcp.checksum, full, "TCP checksum");
        (self.src_port, self.dst_port) = (tcp.source_port, tcp.destination_port);
        (self.seq, self.ack) = (tcp.sequence_number, tcp.acknowledgment_number);
        let flags = [(tcp.syn, 'S'), (tcp.fin, 'F'), (tcp.rst, 'R'), (tcp.ack, 'A'), (tcp.psh, 'P')];
        self.flags = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        self.payload = payload.to_vec();
    }

    pub(crate) fn ends(&self) -> (Ipv4Addr, u16, Ipv4Addr, u16) {
        (self.src, self.src_port, self.dst, self.dst_port)
    }
}

/// A frame from one address to another; the MAC of the next hop is the destination's unless said otherwise.
#[derive(Clone)]
pub(crate) struct Make {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) src_mac: MacAddr,
    pub(crate) dst_mac: MacAddr,
    pub(crate) ttl: u8,
}

pub(crate) fn from_to(src: &str, dst: &str) -> Make {
    let (src, dst) = (ip(src), ip(dst));
    Make { src, dst, src_mac: MacAddr::for_ip(src), dst_mac: MacAddr::for_ip(dst), ttl: 64 }
}

impl Make {
    /// Sent by the endpoint `address`, whatever the source.
    pub(crate) fn by(self, address: &str) -> Self {
        Self { src_mac: MacAddr::for_ip(ip(address)), ..self }
    }

    /// Sent to the MAC of `address`, whatever the destination.
    pub(crate) fn via(self, address: &str) -> Self {
        Self { dst_mac: MacAddr::for_ip(ip(address)), ..self }
    }

    pub(crate) fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    fn builder(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ethernet2(self.src_mac.0, self.dst_mac.0).ipv4(
            self.src.octets(),
            self.dst.octets(),
            self.ttl,
        )
    }

    /// Flags by their first letters: `SFRAP`.
    pub(crate) fn tcp(
        &self,
        src_port: u16,
        dst_port: u16,
        flags: &str,
        seq: u32,
        ack: u32,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut step = self.builder().tcp(src_port, dst_port, seq, 65_000);
        for flag in flags.chars() {
            step = match flag {
                'S' => step.syn(),
                'F' => step.fin(),
                'R' => step.rst(),
                'A' => step.ack(ack),
                'P' => step.psh(),
                _ => panic!("no TCP flag {flag}"),
            };
        }
        let mut frame = Vec::new();
        step.write(&mut frame, payload).unwrap();
        may_be_cut(frame)
    }

    pub(crate) fn udp(&self, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().udp(src_port, dst_port).write(&mut frame, payload).unwrap();
        may_be_cut(frame)
    }

    pub(crate) fn ping(&self, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().icmpv4_echo_request(id, 1).write(&mut frame, payload).unwrap();
        may_be_cut(frame)
    }

    pub(crate) fn pong(&self, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().icmpv4_echo_reply(id, 1).write(&mut frame, payload).unwrap();
        may_be_cut(frame)
    }

    /// An ICMP error that quotes the IP packet of `frame`.
    pub(crate) fn icmp_error(&self, kind: u8, code: u8, frame: &[u8]) -> Vec<u8> {
        let quoted = &frame[14..frame.len().min(14 + 548)];
        let mut error = Vec::new();
        self.builder().icmpv4_raw(kind, code, [0; 4]).write(&mut error, quoted).unwrap();
        may_be_cut(error)
    }

    /// Any IPv4 payload.
    pub(crate) fn raw(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().write(&mut frame, IpNumber(protocol), payload).unwrap();
        may_be_cut(frame)
    }
}

/// Clears the DF bit that the builder sets.
fn may_be_cut(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] = 0;
    resum(&mut frame);
    frame
}

/// Gives an IPv4 frame a right header checksum after a test changed the header.
pub(crate) fn resum(frame: &mut [u8]) {
    let header_len = usize::from(frame[14] & 0xf) * 4;
    frame[24..26].fill(0);
    let mut sum: u32 =
        frame[14..14 + header_len].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
