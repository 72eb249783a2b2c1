//! Nodes with a sealed network on an underlay whose datagrams take time, and meet whatever a test makes of it.

use crate::identity::{identity, public};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::seal::{Identity, Plaintext};
use skep_dataplane::snapshot::*;
use skep_dataplane::{DropReason, Engine, HEADROOM, Output, PathStats, VnetHdr};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const VNI: u32 = 4097;
/// The plain network beside it, with the same addresses.
pub(crate) const PLAIN_VNI: u32 = 4098;
pub(crate) const PORT: PortId = PortId(1);
pub(crate) const PLAIN_PORT: PortId = PortId(2);

/// What becomes of a datagram: sender, receiver, time and bytes go in; what arrives comes out, if anything.
pub(crate) type Fate = Box<dyn FnMut(usize, usize, u64, Vec<u8>) -> Option<Vec<u8>>>;

/// What a node, by its number, makes of a network.
pub(crate) type Shape = Box<dyn Fn(usize, &mut Network)>;

pub(crate) struct World {
    pub(crate) epoch: Instant,
    pub(crate) now: u64,
    engines: Vec<Option<Engine>>,
    lives: Vec<u64>,
    /// On their way: by arrival and number, the sender, receiver and bytes.
    pub(crate) flying: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    /// One way, in milliseconds.
    pub(crate) delay: u64,
    pub(crate) fate: Fate,
    /// Every datagram that was sent: when, by whom, to whom, which.
    pub(crate) wire: Vec<(u64, usize, usize, Vec<u8>)>,
    pub(crate) keeps_wire: bool,
    /// What containers were handed: when, node, port, header, frame.
    pub(crate) heard: Vec<(u64, usize, PortId, VnetHdr, Vec<u8>)>,
    /// Who knows whom; everybody everybody, unless a test says otherwise.
    pub(crate) knows: Box<dyn Fn(usize, usize) -> bool>,
    /// Nodes with a container on the networks.
    pub(crate) members: Vec<usize>,
    pub(crate) underlay_mtu: u16,
    /// What a node makes of a network of its snapshot: one that lies makes something else.
    pub(crate) shape: Shape,
    /// By the name of each key that was ever sealed with: the counter that comes next.
    pub(crate) sealed_with: HashMap<[u8; 16], u64>,
}

#[derive(Default)]
struct Collected {
    frames: Vec<(PortId, VnetHdr, Vec<u8>)>,
    datagrams: Vec<(Ipv4Addr, Vec<u8>)>,
    sealed: Vec<([u8; 16], u64)>,
}

/// Bytes behind each frame that fits its path with them.
pub(crate) const PADDING: usize = 128;

impl Output for Collected {
    fn frame(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]) {
        self.frames.push((port, vnet, frame.to_vec()));
    }

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        self.datagrams.push((to, datagram.to_vec()));
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}

    /// As much as a worker would, whether or not it fits: what follows a probe may not become as large as that.
    fn padded(&self, _: Ipv4Addr, len: usize) -> usize {
        len + PADDING
    }

    fn sealed(&mut self, key: [u8; 16], counter: u64, _: Plaintext<'_>) {
        self.sealed.push((key, counter));
    }
}

pub(crate) fn vtep(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, node as u8)
}

pub(crate) fn number(vtep: Ipv4Addr) -> usize {
    usize::from(vtep.octets()[3])
}

/// The container of a node.
pub(crate) fn container(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 10 + node as u8)
}

impl World {
    pub(crate) fn new(nodes: usize) -> Self {
        let mut world = Self::unborn(nodes);
        (1..=nodes).for_each(|node| world.start(node));
        world
    }

    /// Nobody has started.
    pub(crate) fn unborn(nodes: usize) -> Self {
        Self {
            epoch: Instant::now(),
            now: 0,
            engines: (0..nodes).map(|_| None).collect(),
            lives: vec![0; nodes],
            flying: BTreeMap::new(),
            sent: 0,
            delay: 1,
            fate: Box::new(|_, _, _, bytes| Some(bytes)),
            wire: Vec::new(),
            keeps_wire: true,
            heard: Vec::new(),
            knows: Box::new(|_, _| true),
            members: (1..=nodes).collect(),
            underlay_mtu: 1_500,
            shape: Box::new(|_, _| ()),
            sealed_with: HashMap::new(),
        }
    }

    pub(crate) fn fated(
        mut self,
        fate: impl FnMut(usize, usize, u64, Vec<u8>) -> Option<Vec<u8>> + 'static,
    ) -> Self {
        self.fate = Box::new(fate);
        self
    }

    /// Two nodes that hold a session, at a time when nothing is in the air.
    pub(crate) fn pair() -> Self {
        let mut world = Self::new(2);
        world.run(3 * SECOND + 100);
        assert!(world.session(1, 2).since.is_some() && world.session(2, 1).since.is_some());
        world
    }

    /// A fresh engine in a node's place, which has forgotten everything.
    pub(crate) fn start(&mut self, node: usize) {
        self.lives[node - 1] += 1;
        self.start_as(node, identity(node, self.lives[node - 1]));
    }

    pub(crate) fn start_as(&mut self, node: usize, identity: Identity) {
        self.engines[node - 1] = Some(Engine::with_flow_capacity(node as u64, identity, 64));
        self.publish(node);
    }

    pub(crate) fn stop(&mut self, node: usize) {
        self.engines[node - 1] = None;
    }

    pub(crate) fn publish(&mut self, node: usize) {
        let others = (1..=self.engines.len()).filter(|other| *other != node && (self.knows)(node, *other));
        let peers = others.map(|n| Peer { vtep: vtep(n), key: public(n) }).collect();
        let networks = [(VNI, Policy::Sealed, PORT), (PLAIN_VNI, Policy::Plain, PLAIN_PORT)];
        let networks = networks.map(|(vni, policy, port)| self.network(node, vni, policy, port)).to_vec();
        let underlay_mtu = self.underlay_mtu;
        let snapshot = Snapshot { networks, peers, underlay_mtu, ..Snapshot::default() };
        self.act(node, |engine, now, out| engine.apply(Arc::new(snapshot), now, out));
    }

    fn network(&self, node: usize, vni: u32, policy: Policy, port: PortId) -> Network {
        let endpoint = |n: &usize| Endpoint {
            ip: container(*n),
            mac: MacAddr::for_ip(container(*n)),
            location: if *n == node { Location::Local(port) } else { Location::Remote(vtep(*n)) },
            kind: EndpointKind::Container,
        };
        let is_known = |n: &&usize| **n == node || (self.knows)(node, **n);
        let mut network = Network {
            vni: Vni::new(vni).unwrap(),
            policy,
            subnet: "10.1.0.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 1, 0, 1),
            mtu: self.underlay_mtu - policy.overhead(),
            endpoints: self.members.iter().filter(is_known).map(endpoint).collect(),
            services: Vec::new(),
            ingress: false,
        };
        (self.shape)(node, &mut network);
        network
    }

    pub(crate) fn instant(&self) -> Instant {
        self.epoch + Duration::from_millis(self.now)
    }

    fn act(&mut self, node: usize, act: impl FnOnce(&mut Engine, Instant, &mut Collected)) {
        let mut out = Collected::default();
        let now = self.instant();
        let Some(engine) = &mut self.engines[node - 1] else { return };
        act(engine, now, &mut out);
        for (key, counter) in out.sealed {
            let next = self.sealed_with.entry(key).or_default();
            assert_eq!(counter, *next, "each counter once, one after the other, whatever becomes of nodes");
            *next += 1;
        }
        let frames = out.frames.into_iter().map(|(port, vnet, frame)| (self.now, node, port, vnet, frame));
        self.heard.extend(frames);
        for (to, datagram) in out.datagrams {
            let to = number(to);
            if self.keeps_wire {
                self.wire.push((self.now, node, to, datagram.clone()));
            }
            if to <= self.engines.len()
                && let Some(datagram) = (self.fate)(node, to, self.now, datagram)
            {
                self.sent += 1;
                self.flying.insert((self.now + self.delay, self.sent), (node, to, datagram));
            }
        }
    }

    /// A datagram arrives at once, from whatever address; how many were sent because of it.
    pub(crate) fn inject(&mut self, from: Ipv4Addr, to: usize, datagram: &[u8]) -> usize {
        let before = self.wire.len();
        let mut datagram = datagram.to_vec();
        self.act(to, |engine, now, out| engine.handle_datagram(from, &mut datagram, now, out));
        self.wire.len() - before
    }

    /// A container of `node` sends a frame.
    pub(crate) fn frame(&mut self, node: usize, port: PortId, vnet: VnetHdr, frame: &[u8]) {
        let mut buf = vec![0; HEADROOM];
        buf.extend_from_slice(frame);
        self.act(node, |engine, now, out| engine.handle_frame(port, vnet, &mut buf, now, out));
    }

    /// A datagram of one container to another's port 53, on the sealed network.
    pub(crate) fn say(&mut self, from: usize, to: usize, text: &[u8]) {
        self.frame(from, PORT, VnetHdr::default(), &udp(container(from), container(to), text));
    }

    /// Runs to the time `until`, in milliseconds since the beginning. At equal times the socket is read first.
    pub(crate) fn run(&mut self, until: u64) {
        loop {
            let due = |engine: &Option<Engine>| {
                let due = engine.as_ref()?.poll_timeout()?.saturating_duration_since(self.epoch);
                Some(due.as_millis() as u64)
            };
            let timers = self.engines.iter().enumerate().filter_map(|(at, engine)| Some((due(engine)?, at)));
            let timer = timers.min();
            let arrival = self.flying.keys().next().copied();
            let first = [timer.map(|(at, _)| at), arrival.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(first) = first.filter(|first| *first <= until) else { break };
            self.now = self.now.max(first);
            match (arrival, timer) {
                (Some(key), _) if key.0 <= first => {
                    let (from, to, mut bytes) = self.flying.remove(&key).unwrap();
                    self.act(to, |engine, now, out| engine.handle_datagram(vtep(from), &mut bytes, now, out));
                }
                (_, Some((_, at))) => {
                    self.act(at + 1, |engine, now, out| engine.handle_timeout(now, out));
                }
                (_, None) => break,
            }
        }
        self.now = until;
    }

    pub(crate) fn run_for(&mut self, time: u64) {
        self.run(self.now + time);
    }

    pub(crate) fn engine(&self, node: usize) -> &Engine {
        self.engines[node - 1].as_ref().unwrap()
    }

    pub(crate) fn path(&self, node: usize, peer: usize) -> PathStats {
        let paths = self.engine(node).stats().paths;
        paths.into_iter().find(|path| path.peer == vtep(peer)).unwrap()
    }

    pub(crate) fn session(&self, node: usize, peer: usize) -> skep_dataplane::SessionStats {
        self.path(node, peer).session
    }

    pub(crate) fn dropped(&self, node: usize, reason: DropReason) -> u64 {
        self.engine(node).stats().dropped(reason)
    }

    pub(crate) fn drops(&self, node: usize) -> BTreeMap<DropReason, u64> {
        self.engine(node).stats().drops.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// What the container of a node heard since it was last asked: when and the text.
    pub(crate) fn texts(&mut self, node: usize) -> Vec<(u64, Vec<u8>)> {
        let (mine, others) = self.heard.drain(..).partition(|(_, n, port, ..)| (*n, *port) == (node, PORT));
        self.heard = others;
        let mine: Vec<_> = mine;
        mine.into_iter().map(|(at, .., frame)| (at, frame[42..].to_vec())).collect()
    }

    /// How long one container has to wait for another's words, if at most `patience`.
    pub(crate) fn round(&mut self, from: usize, to: usize, patience: u64) -> Option<u64> {
        self.texts(to);
        let (begin, text) = (self.now, format!("marker {} {from} {to}", self.now).into_bytes());
        self.say(from, to, &text);
        loop {
            if self.texts(to).iter().any(|(_, heard)| *heard == text) {
                return Some(self.now - begin);
            }
            if self.now >= begin + patience {
                return None;
            }
            self.run_for(1);
        }
    }

    /// What was in the air from one node to another, handshakes left out.
    pub(crate) fn sealed_on_wire(&self, from: usize, to: usize) -> Vec<Vec<u8>> {
        let own = self.wire.iter().filter(|(_, f, t, bytes)| (*f, *t) == (from, to) && is_of_session(bytes));
        own.map(|(.., bytes)| bytes.clone()).collect()
    }

    pub(crate) fn handshakes_on_wire(&self, from: usize, to: usize) -> Vec<Vec<u8>> {
        let own = self
            .wire
            .iter()
            .filter(|(_, f, t, bytes)| (*f, *t) == (from, to) && bytes[7] == 1 && !is_of_session(bytes));
        own.map(|(.., bytes)| bytes.clone()).collect()
    }
}

pub(crate) fn is_of_session(datagram: &[u8]) -> bool {
    datagram.len() >= 40 && datagram[7] == 1 && datagram[8..12] != [0; 4]
}

pub(crate) fn udp(from: Ipv4Addr, to: Ipv4Addr, text: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(MacAddr::for_ip(from).0, MacAddr::for_ip(to).0);
    let mut frame = Vec::new();
    builder.ipv4(from.octets(), to.octets(), 64).udp(4000, 53).write(&mut frame, text).unwrap();
    // The DF bit that the builder sets.
    frame[20] = 0;
    crate::sim::resum(&mut frame);
    frame
}

/// Numbers without pattern; xorshift64*.
pub(crate) fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |bound| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
