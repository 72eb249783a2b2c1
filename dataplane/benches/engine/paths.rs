//! Every way a packet takes through the engine, in steady state.

use crate::frames::{Ends, Size};
use crate::lane::{Entry, Lane, Refill, one};
use crate::world::*;
use skep_dataplane::ids::PortId;
use skep_dataplane::seal::Suite;
use skep_dataplane::snapshot::Policy;
use skep_dataplane::{Engine, VnetHdr};
use std::net::Ipv4Addr;
use std::time::Instant;

pub(crate) struct Path {
    pub(crate) name: &'static str,
    way: Way,
}

enum Way {
    /// Port to port of one node.
    Local,
    Send(Policy, Suite),
    Receive(Policy, Suite),
    Vip(Flow),
    /// From outside, at the node the client asks; the task is on another.
    IngressEntry,
    /// From outside, at the task's node.
    IngressTask,
    Arp,
}

/// Whether packets belong to a flow that both sides are in, or open one each. Beyond its share of the table a client's
/// new flow displaces its oldest: that is what a new flow costs in the long run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    New,
    Established,
}

const CHACHA: Suite = Suite::ChaCha20Poly1305;
const AES: Suite = Suite::Aes256Gcm;

pub(crate) fn all() -> Vec<Path> {
    let path = |name, way| Path { name, way };
    vec![
        path("local", Way::Local),
        path("plain send", Way::Send(Policy::Plain, CHACHA)),
        path("plain receive", Way::Receive(Policy::Plain, CHACHA)),
        path("chacha20 send", Way::Send(Policy::Sealed, CHACHA)),
        path("chacha20 receive", Way::Receive(Policy::Sealed, CHACHA)),
        path("aes256-gcm send", Way::Send(Policy::Sealed, AES)),
        path("aes256-gcm receive", Way::Receive(Policy::Sealed, AES)),
        path("VIP, established", Way::Vip(Flow::Established)),
        path("VIP, new flow", Way::Vip(Flow::New)),
        path("ingress, at skep0", Way::IngressEntry),
        path("ingress, at the task", Way::IngressTask),
        path("ARP", Way::Arp),
    ]
}

impl Path {
    /// `None`: no packet of this size takes it. No super-frame opens a flow.
    pub(crate) fn lane(&self, size: Size) -> Option<Lane> {
        let lane = match self.way {
            Way::Arp | Way::Vip(Flow::New) if size == Size::Large => return None,
            Way::Local => send(plain(), size, CLIENT_PORT, between(CLIENT, NEIGHBOUR)),
            Way::Send(policy, suite) => {
                send(Pair::new(policy, suite), size, CLIENT_PORT, between(CLIENT, REMOTE))
            }
            Way::Receive(policy, suite) => {
                receive(Pair::new(policy, suite), size, REMOTE_PORT, between(REMOTE, CLIENT))
            }
            Way::Vip(Flow::Established) => established(size),
            Way::Vip(Flow::New) => new_flows(),
            Way::IngressEntry => ingress_entry(size),
            Way::IngressTask => ingress_task(size),
            Way::Arp => arp(),
        };
        Some(lane)
    }
}

/// The cipher is of no matter.
fn plain() -> Pair {
    Pair::new(Policy::Plain, CHACHA)
}

fn between(src: Ipv4Addr, dst: Ipv4Addr) -> Ends {
    Ends::new(src, 40_000, dst, 80)
}

/// An outside client's packet to a VIP, as the kernel of a node sends it out of `skep0`.
fn entering(node: usize, vip: Ipv4Addr) -> Ends {
    Ends { by: host(node), ..between(OUTSIDE, vip) }
}

/// What a port here sends.
fn send(pair: Pair, size: Size, port: PortId, ends: Ends) -> Lane {
    let mtu = pair.mtu;
    let vnet = ends.packet(size, mtu, &mut Vec::new());
    let refill: Refill = Box::new(move |buffers| _ = ends.packet(size, mtu, one(buffers)));
    Lane::new(pair.here, pair.now, size, Entry::Port(port, vnet), refill)
}

/// What a port there sends here, as it comes off the underlay.
fn receive(pair: Pair, size: Size, port: PortId, ends: Ends) -> Lane {
    let Pair { here, mut there, now, mtu } = pair;
    let mut frame = Vec::new();
    let refill: Refill = Box::new(move |buffers| {
        let mut sent = Kept::default();
        let vnet = ends.packet(size, mtu, &mut frame);
        there.handle_frame(port, vnet, &mut frame, now, &mut sent);
        buffers.clear();
        buffers.extend(sent.0.into_iter().map(|(_, datagram)| datagram));
    });
    Lane::new(here, now, size, Entry::Vtep(vtep(THERE)), refill)
}

fn established(size: Size) -> Lane {
    let mut pair = plain();
    let ends = between(CLIENT, VIP);
    pair.converse(size, (CLIENT_PORT, ends), (SERVER_PORT, between(CLIENT, SERVER).answer()));
    send(pair, size, CLIENT_PORT, ends)
}

fn new_flows() -> Lane {
    let Pair { here, now, .. } = plain();
    let mut src_port = 0_u16;
    let refill: Refill = Box::new(move |buffers| {
        src_port = src_port.wrapping_add(1);
        Ends { src_port, ..between(CLIENT, VIP) }.datagram(one(buffers));
    });
    let mut lane = Lane::new(here, now, Size::Small, Entry::Port(CLIENT_PORT, VnetHdr::default()), refill);
    while lane.engine.stats().flows_displaced == 0 {
        lane.run_batch();
    }
    lane
}

fn ingress_entry(size: Size) -> Lane {
    let mut pair = plain();
    let ends = entering(HERE, ingress_vip(THERE));
    open(&mut pair.here, ends, pair.now);
    send(pair, size, HOST_PORT, ends)
}

fn ingress_task(size: Size) -> Lane {
    let mut pair = plain();
    let ends = entering(THERE, ingress_vip(HERE));
    open(&mut pair.there, ends, pair.now);
    receive(pair, size, HOST_PORT, ends)
}

/// A client's SYN comes in: from here on its node takes super-frames of it.
fn open(engine: &mut Engine, ends: Ends, now: Instant) {
    let mut syn = Vec::new();
    ends.opening(false, &mut syn);
    engine.handle_frame(HOST_PORT, VnetHdr::default(), &mut syn, now, &mut Counted::default());
}

fn arp() -> Lane {
    let Pair { here, now, .. } = plain();
    let refill: Refill = Box::new(|buffers| _ = between(CLIENT, NEIGHBOUR).arp(one(buffers)));
    Lane::new(here, now, Size::Small, Entry::Port(CLIENT_PORT, VnetHdr::default()), refill)
}
