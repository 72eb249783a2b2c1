//! One node's engine with an overlay, a published service and two peers, and a judge of all it puts out.

use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::seal::{Identity, SecretKey, Suite};
use skep_dataplane::snapshot::{
    Backend, BackendState, Endpoint, EndpointKind, L4, Location, Network, Policy, Service, ServicePorts,
    Snapshot,
};
use skep_dataplane::{Engine, HEADROOM, Output, VnetHdr};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

pub(crate) const OVERLAY: u32 = 4097;
const INGRESS: u32 = 4096;
const MTU: u16 = 1450;
pub(crate) const MTU_SEALED: u16 = 1418;
/// More than an input opens, and quickly made.
const FLOWS: usize = 64;
/// RFC 7348 §5 and Ethernet: the bytes a datagram has besides its IP packet.
const ENCAPSULATION: usize = 8 + 14;
pub(crate) const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

pub(crate) const fn overlay(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

const fn ingress(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Addresses worth sending to: gateways, VIPs, containers here and there, hosts, the outside, nobody.
pub(crate) const ENDPOINTS: [Ipv4Addr; 14] = [
    overlay(1),
    overlay(2),
    overlay(3),
    overlay(4),
    overlay(5),
    overlay(77),
    ingress(1),
    ingress(2),
    ingress(3),
    ingress(5),
    ingress(6),
    ingress(7),
    Ipv4Addr::new(198, 51, 100, 9),
    Ipv4Addr::BROADCAST,
];

/// Who sends: an endpoint and where it is.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    ip: Ipv4Addr,
    /// The address its MAC is made of: `skep0`'s for an outside client.
    by: Ipv4Addr,
    vni: u32,
    at: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Port(u32),
    Peer(Ipv4Addr),
}

const SENDERS: [Sender; 7] = [
    Sender { ip: overlay(3), by: overlay(3), vni: OVERLAY, at: Place::Port(1) },
    Sender { ip: overlay(4), by: overlay(4), vni: OVERLAY, at: Place::Port(2) },
    Sender { ip: overlay(5), by: overlay(5), vni: OVERLAY, at: Place::Peer(PEERS[0]) },
    Sender { ip: Ipv4Addr::new(198, 51, 100, 9), by: ingress(2), vni: INGRESS, at: Place::Port(10) },
    Sender { ip: ingress(6), by: ingress(6), vni: INGRESS, at: Place::Port(11) },
    Sender { ip: ingress(7), by: ingress(7), vni: INGRESS, at: Place::Peer(PEERS[0]) },
    Sender { ip: Ipv4Addr::new(198, 51, 100, 9), by: ingress(3), vni: INGRESS, at: Place::Peer(PEERS[0]) },
];

impl Sender {
    pub(crate) fn ip(self) -> Ipv4Addr {
        self.ip
    }

    pub(crate) fn mac(self) -> [u8; 6] {
        MacAddr::for_ip(self.by).0
    }

    /// A frame to the endpoint `to`.
    pub(crate) fn ethernet(self, to: Ipv4Addr, packet: &[u8]) -> Vec<u8> {
        let mut frame = MacAddr::for_ip(to).0.to_vec();
        frame.extend(self.mac());
        frame.extend([0x08, 0x00]);
        frame.extend(packet);
        frame
    }

    /// Puts the sender's own MAC and address into a frame: the guard lets nothing else through.
    pub(crate) fn sign(self, frame: &mut [u8]) {
        if let Some(source) = frame.get_mut(6..12) {
            source.copy_from_slice(&self.mac());
        }
        if let Some(source) = frame.get_mut(26..30) {
            source.copy_from_slice(&self.ip.octets());
        }
    }
}

pub(crate) fn identity(n: u8) -> Identity {
    let key = SecretKey::from_bytes(Zeroizing::new([n; 32]));
    Identity { key, suite: Suite::default(), context: Vec::new(), entropy: Zeroizing::new([n; 32]) }
}

pub(crate) struct World {
    engine: Engine,
    now: Instant,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world =
            Self { engine: Engine::with_flow_capacity(7, identity(1), FLOWS), now: Instant::now() };
        let now = world.now;
        world.engine.apply(Arc::new(snapshot()), now, &mut Judge::new(usize::MAX));
        world
    }

    pub(crate) fn sender(&self, which: u8) -> Sender {
        SENDERS[usize::from(which) % SENDERS.len()]
    }

    /// A frame from where its sender is.
    pub(crate) fn send(&mut self, sender: Sender, vnet: [u8; VnetHdr::LEN], frame: &[u8]) {
        let Place::Port(port) = sender.at else { return self.wrapped(sender, frame) };
        let mut buf = vec![0; HEADROOM];
        buf.extend(frame);
        let vnet = VnetHdr::parse(&vnet);
        self.engine.handle_frame(PortId(port), vnet, &mut buf, self.now, &mut Judge::new(frame.len()));
    }

    /// A frame in a datagram of the network of its sender.
    pub(crate) fn wrapped(&mut self, sender: Sender, frame: &[u8]) {
        let from = if let Place::Peer(peer) = sender.at { peer } else { PEERS[1] };
        let mut datagram = vec![0x08, 0, 0, 0];
        datagram.extend((sender.vni << 8).to_be_bytes());
        datagram.extend(frame);
        self.engine.handle_datagram(from, &mut datagram, self.now, &mut Judge::new(frame.len()));
    }

    /// Bytes from a peer or a stranger.
    pub(crate) fn datagram(&mut self, from: u8, bytes: &[u8]) {
        let from = [PEERS[0], PEERS[1], STRANGER][usize::from(from) % 3];
        let mut judge = Judge::new(bytes.len());
        self.engine.handle_datagram(from, &mut bytes.to_vec(), self.now, &mut judge);
        assert!(from != STRANGER || judge.put_out == 0, "a stranger was heard");
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.engine.handle_timeout(self.now, &mut Judge::new(usize::MAX));
    }

    /// Flows of each kind, so that errors have something to be about.
    pub(crate) fn converse(&mut self) {
        let [container, .., outside] = SENDERS;
        for (sender, to) in [
            (container, overlay(2)),
            (container, overlay(5)),
            (SENDERS[3], ingress(5)),
            (outside, ingress(6)),
        ] {
            let udp = [0x30, 0x39, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
            let frame = sender.ethernet(to, &ipv4(sender.ip(), to, 17, 0, &udp));
            self.send(sender, [0; VnetHdr::LEN], &frame);
            let mut syn = [0; 20];
            syn[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
            (syn[12], syn[13]) = (0x50, 0x02);
            let frame = sender.ethernet(to, &ipv4(sender.ip(), to, 6, 0, &syn));
            self.send(sender, [0; VnetHdr::LEN], &frame);
        }
    }
}

/// Checks all the engine puts out because of one packet.
struct Judge {
    /// Bytes that came in: what goes out is bounded by them.
    came_in: usize,
    put_out: usize,
}

/// The engine's own answers, and the headers of the segments a super-frame is cut into.
const AMPLIFICATION: usize = 64;
/// An answer to a frame that is all header.
const LARGEST_ANSWER: usize = 2048;
/// Held fragments may follow their first one: as many as one datagram has.
const HELD_BYTES: usize = 128 << 10;

impl Judge {
    fn new(came_in: usize) -> Self {
        Self { came_in, put_out: 0 }
    }

    fn count(&mut self, bytes: usize) {
        self.put_out += bytes;
        let bound = self.came_in.saturating_mul(AMPLIFICATION).saturating_add(LARGEST_ANSWER + HELD_BYTES);
        assert!(self.put_out <= bound, "{} bytes in made {} bytes out", self.came_in, self.put_out);
    }
}

impl Output for Judge {
    fn frame(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]) {
        assert!([1, 2, 10, 11].contains(&port.0), "{port} has no endpoint");
        assert!(frame.len() >= 14, "a frame without a header");
        assert!(frame[6] & 1 == 0, "a frame from a group");
        if vnet.flags & VnetHdr::NEEDS_CSUM != 0 {
            let sum = usize::from(vnet.csum_start) + usize::from(vnet.csum_offset);
            assert!(sum + 2 <= frame.len(), "a checksum outside of its frame");
        }
        assert!(vnet.gso_type == VnetHdr::GSO_NONE || vnet.gso_size > 0, "segments of nothing");
        self.count(frame.len());
    }

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        assert!(PEERS.contains(&to), "{to} is no peer");
        assert!(
            datagram.len() >= 8
                && [[8, 0, 0, 0], [0; 4]].contains(&[datagram[0], datagram[1], datagram[2], datagram[3]]),
            "not VXLAN"
        );
        assert!(datagram.len() <= usize::from(MTU) + ENCAPSULATION, "larger than the underlay takes");
        self.count(datagram.len());
    }

    fn reachability(&mut self, silent: &[Ipv4Addr]) {
        assert!(silent.iter().all(|peer| PEERS.contains(peer)), "{silent:?} are no peers");
    }
}

/// An IPv4 packet with a right header checksum. `fragment` is the header's flags and offset.
pub(crate) fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(&payload[..payload.len().min(usize::from(u16::MAX) - 20)]);
    packet
}

/// Gives an IPv4 frame a right header checksum, if it has a header at all.
pub(crate) fn sum_header(frame: &mut [u8]) {
    let len = frame.get(14).map_or(0, |first| usize::from(first & 0xf) * 4);
    let Some(header) = frame.get_mut(14..14 + len).filter(|header| header.len() >= 20) else { return };
    header[10..12].fill(0);
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071, written once more so that the engine's own is not its judge.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn snapshot() -> Snapshot {
    let container =
        |ip, location| Endpoint { ip, mac: MacAddr::for_ip(ip), location, kind: EndpointKind::Container };
    let host = |ip, location| Endpoint { kind: EndpointKind::Host, ..container(ip, location) };
    let local = |port| Location::Local(PortId(port));
    let there = Location::Remote(PEERS[0]);
    let overlay_ends =
        vec![container(overlay(3), local(1)), container(overlay(4), local(2)), container(overlay(5), there)];
    let ingress_ends = vec![
        host(ingress(2), local(10)),
        host(ingress(3), there),
        container(ingress(6), local(11)),
        container(ingress(7), there),
    ];
    let published = ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 53)]);
    Snapshot {
        networks: vec![
            Network {
                services: vec![service(overlay(2), &[overlay(3), overlay(4), overlay(5)], ServicePorts::All)],
                ..network(OVERLAY, overlay(0), overlay_ends)
            },
            Network {
                services: vec![service(ingress(5), &[ingress(6), ingress(7)], published)],
                ingress: true,
                ..network(INGRESS, ingress(0), ingress_ends)
            },
        ],
        reserved: ["10.0.0.0/24", "10.1.0.0/24"].map(|range| range.parse().expect("a subnet")).to_vec(),
        peers: Vec::new(),
        underlay_mtu: 1500,
        ..Snapshot::default()
    }
}

pub(crate) fn network(vni: u32, base: Ipv4Addr, endpoints: Vec<Endpoint>) -> Network {
    Network {
        vni: Vni::new(vni).expect("24 bits"),
        policy: Policy::Plain,
        subnet: format!("{base}/24").parse().expect("a subnet"),
        gateway: Ipv4Addr::from_bits(base.to_bits() + 1),
        mtu: MTU,
        endpoints,
        services: Vec::new(),
        ingress: false,
    }
}

fn service(vip: Ipv4Addr, backends: &[Ipv4Addr], ports: ServicePorts) -> Service {
    let active = |ip: &Ipv4Addr| Backend { ip: *ip, state: BackendState::Active };
    Service { vip, backends: backends.iter().map(active).collect(), ports }
}
