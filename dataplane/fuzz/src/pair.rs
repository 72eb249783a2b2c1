//! An engine and its peer, the wire between them in the fuzzer's hands, and a judge of what the engine makes of it.

use super::world::{self, MTU_SEALED, OVERLAY, PEERS, STRANGER, identity, overlay};
use skep_dataplane::ids::{MacAddr, PortId};
use skep_dataplane::seal::{PublicKey, SecretKey};
use skep_dataplane::snapshot::{Endpoint, EndpointKind, Location, Network, Peer, Policy, Snapshot};
use skep_dataplane::{Engine, HEADROOM, Output, VnetHdr};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FLOWS: usize = 64;
/// Datagrams of the peer that are remembered, the oldest last.
const MEMORY: usize = 64;

/// What an engine put out.
#[derive(Default)]
struct Out {
    frames: Vec<Vec<u8>>,
    datagrams: Vec<(Ipv4Addr, Vec<u8>)>,
}

impl Output for Out {
    fn frame(&mut self, _: PortId, _: VnetHdr, frame: &[u8]) {
        self.frames.push(frame.to_vec());
    }

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        self.datagrams.push((to, datagram.to_vec()));
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}
}

pub(crate) struct Pair {
    engine: Engine,
    peer: Engine,
    lives: u8,
    now: Instant,
    /// What the peer sent, the newest first.
    sent: Vec<Vec<u8>>,
    /// What the engine sent to the peer and the peer has not got yet.
    to_peer: Vec<Vec<u8>>,
    /// Frames that the peer sealed and the engine has not delivered.
    owed: Vec<Vec<u8>>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let engine = Engine::with_flow_capacity(7, identity(1), FLOWS);
        let peer = Engine::with_flow_capacity(8, identity(2), FLOWS);
        let (now, lists) = (Instant::now(), || (Vec::new(), Vec::new(), Vec::new()));
        let (sent, to_peer, owed) = lists();
        let mut pair = Self { engine, peer, lives: 0, now, sent, to_peer, owed };
        let mut out = Out::default();
        let third = Peer { vtep: PEERS[1], key: key(3) };
        let own = vec![Peer { vtep: PEERS[0], key: key(2) }, third];
        pair.engine.apply(Arc::new(snapshot(own, Some(PEERS[0]))), now, &mut out);
        pair.note(out);
        pair.introduce_peer();
        pair
    }

    /// A pair that has agreed on a session.
    pub(crate) fn in_session() -> Self {
        let mut pair = Self::new();
        for _ in 0..20 {
            pair.wait(100);
            pair.exchange();
        }
        assert!(pair.engine.stats().paths[0].session.since.is_some(), "they did not meet");
        pair
    }

    fn introduce_peer(&mut self) {
        let mut out = Out::default();
        let own = vec![Peer { vtep: OWN, key: key(1) }];
        self.peer.apply(Arc::new(snapshot(own, None)), self.now, &mut out);
        self.keep(out);
    }

    /// The peer forgets everything.
    pub(crate) fn restart_peer(&mut self) {
        self.lives = self.lives.wrapping_add(1);
        let mut life = identity(2);
        life.entropy = Zeroizing::new([self.lives ^ 0x80; 32]);
        self.peer = Engine::with_flow_capacity(8, life, FLOWS);
        self.owed.clear();
        self.introduce_peer();
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        let mut out = Out::default();
        self.engine.handle_timeout(self.now, &mut out);
        assert!(out.frames.is_empty(), "time delivers nothing");
        self.note(out);
        let mut out = Out::default();
        self.peer.handle_timeout(self.now, &mut out);
        self.keep(out);
    }

    /// All that is on its way arrives, and what comes of it, for as long as something does.
    pub(crate) fn exchange(&mut self) {
        let mut done = 0;
        for _ in 0..8 {
            for datagram in std::mem::take(&mut self.to_peer) {
                self.reach_peer(datagram);
            }
            let fresh = self.sent.len().saturating_sub(done);
            let fresh: Vec<_> = self.sent[..fresh].iter().rev().cloned().collect();
            for datagram in fresh {
                self.arrive(PEERS[0], &datagram);
            }
            done = self.sent.len();
            if self.to_peer.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn reach_nth(&mut self, nth: u8) {
        if !self.to_peer.is_empty() {
            let at = usize::from(nth) % self.to_peer.len();
            let datagram = self.to_peer.remove(at);
            self.reach_peer(datagram);
        }
    }

    fn reach_peer(&mut self, mut datagram: Vec<u8>) {
        let mut out = Out::default();
        self.peer.handle_datagram(OWN, &mut datagram, self.now, &mut out);
        self.keep(out);
    }

    /// The peer seals a frame of its container's.
    pub(crate) fn seal(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(1_000)];
        let mut udp = [0x30, 0x39, 0x23, 0x28].to_vec();
        udp.extend((text.len() as u16 + 8).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(text);
        let mut frame = MacAddr::for_ip(overlay(3)).0.to_vec();
        frame.extend(MacAddr::for_ip(overlay(5)).0);
        frame.extend([8, 0]);
        frame.extend(world::ipv4(overlay(5), overlay(3), 17, 0, &udp));
        let mut out = Out::default();
        let mut buf = [vec![0; HEADROOM], frame.clone()].concat();
        self.peer.handle_frame(PortId(1), VnetHdr::default(), &mut buf, self.now, &mut out);
        if !out.datagrams.is_empty() {
            self.owed.push(frame);
        }
        self.keep(out);
    }

    /// What the peer sent, newest first.
    pub(crate) fn recorded(&self, nth: u8) -> Option<Vec<u8>> {
        let count = self.sent.len().max(1);
        self.sent.get(usize::from(nth) % count).cloned()
    }

    /// From the peer, another member or a stranger, in turn.
    pub(crate) fn arrive_from(&mut self, who: u8, datagram: &[u8]) {
        self.arrive([PEERS[0], PEERS[1], STRANGER][usize::from(who) % 3], datagram);
    }

    /// A datagram reaches the engine. What the peer did not send, or not from there, comes to nothing.
    fn arrive(&mut self, from: Ipv4Addr, datagram: &[u8]) {
        let mut out = Out::default();
        self.engine.handle_datagram(from, &mut datagram.to_vec(), self.now, &mut out);
        let is_peers = from == PEERS[0] && self.sent.iter().any(|sent| is_as_good(sent, datagram));
        if !is_peers {
            let answered = out.datagrams.iter().filter(|(_, answer)| !is_cookie(answer)).count();
            assert!(out.frames.is_empty(), "delivered what the peer did not seal");
            assert!(answered == 0, "answered what the peer did not send");
        }
        let put_out: usize = out.datagrams.iter().map(|(_, answer)| answer.len()).sum();
        assert!(put_out <= datagram.len(), "{} bytes in made {put_out} bytes out", datagram.len());
        assert!(out.datagrams.iter().all(|(to, _)| *to == from), "another is told");
        assert!(from != STRANGER || put_out == 0, "a stranger was heard");
        for frame in &out.frames {
            let at = self.owed.iter().position(|owed| owed == frame);
            self.owed.remove(at.expect("delivers what the peer sealed, once"));
        }
        self.note(out);
    }

    /// Keeps what the peer sent.
    fn keep(&mut self, out: Out) {
        for (_, datagram) in out.datagrams {
            self.sent.insert(0, datagram);
        }
        self.sent.truncate(MEMORY);
    }

    fn note(&mut self, out: Out) {
        let to_peer = out.datagrams.into_iter().filter(|(to, _)| *to == PEERS[0]);
        self.to_peer.extend(to_peer.map(|(_, datagram)| datagram));
        let surplus = self.to_peer.len().saturating_sub(MEMORY);
        self.to_peer.drain(..surplus);
    }
}

/// Whether a datagram is one that was sent, but for a handshake's second MAC, which counts under load only.
fn is_as_good(sent: &[u8], datagram: &[u8]) -> bool {
    let covered = if sent[8..12] == [0; 4] && sent[12] < 3 { sent.len() - 16 } else { sent.len() };
    sent.len() == datagram.len() && sent[..covered] == datagram[..covered]
}

fn is_cookie(datagram: &[u8]) -> bool {
    datagram.len() == 76 && datagram[8..13] == [0, 0, 0, 0, 3]
}

fn key(n: u8) -> PublicKey {
    SecretKey::from_bytes(Zeroizing::new([n; 32])).public()
}

/// One sealed overlay: `overlay(3)` at the engine, `overlay(5)` at its peer.
fn snapshot(peers: Vec<Peer>, peer: Option<Ipv4Addr>) -> Snapshot {
    let end = |last, location| Endpoint {
        ip: overlay(last),
        mac: MacAddr::for_ip(overlay(last)),
        location,
        kind: EndpointKind::Container,
    };
    let here = Location::Local(PortId(1));
    let ends = match peer {
        Some(peer) => vec![end(3, here), end(5, Location::Remote(peer))],
        None => vec![end(3, Location::Remote(OWN)), end(5, here)],
    };
    let network =
        Network { policy: Policy::Sealed, mtu: MTU_SEALED, ..world::network(OVERLAY, overlay(0), ends) };
    Snapshot { networks: vec![network], peers, underlay_mtu: 1_500, ..Snapshot::default() }
}
