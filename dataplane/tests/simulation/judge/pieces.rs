//! Packets in pieces.

use super::Part;
use crate::model::{Place, Way};
use crate::packet::{Packet, Proto, Socket, u16_at};
use crate::probe::{Pieces, Probe, is_whole};
use crate::run::{Event, Run};
use crate::world::Node;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Pieces that arrive within this time of each other are put together, in microseconds; an engine holds one that is
/// early for 100 ms.
const TOGETHER: u64 = 80_000;

/// Packets in pieces that an engine follows at once of one source: a further one takes the place of the oldest.
const FOLLOWED: usize = 8;

impl Run {
    /// A piece of a packet goes where the first one goes; if it comes before that, it may wait for it.
    pub(super) fn judge_piece(
        &mut self,
        node: Node,
        from: Node,
        ends: (usize, Ipv4Addr, Ipv4Addr),
        id: u64,
        ((at, end), more): ((usize, usize), bool),
        parts: Vec<Part>,
    ) {
        let (now, generation) = (self.now, self.stations[node - 1].generation);
        let probe = &self.probes[&id];
        let (src, dst) = probe.wire.expect("it was on the wire");
        let whole = Packet { src, dst, ..probe.packet.clone() };
        let ways = self.model.arrived(node, from, ends, &whole, now);
        let first_went = match at {
            0 => self.check_way(node, id, &ways, &whole, &parts, false).map(|seen| (seen.src, seen.dst)),
            _ => None,
        };
        let probe = self.probes.get_mut(&id).unwrap();
        let pieces = probe.pieces.entry(node).or_insert_with(|| Pieces {
            first_at: now,
            generation,
            arrived: BTreeMap::new(),
            first_went: None,
            is_welcome: true,
        });
        pieces.first_went = first_went.or(pieces.first_went);
        pieces.is_welcome &=
            !ways.is_empty() && pieces.generation == generation && now < pieces.first_at + TOGETHER;
        pieces.arrived.insert(at, (end, more));
        if self.is_crowded(node, id) {
            self.probes.get_mut(&id).unwrap().pieces.get_mut(&node).unwrap().is_welcome = false;
        }
        let pieces = &self.probes[&id].pieces[&node];
        let spans = pieces.arrived.iter().map(|(from, (to, _))| (*from, *to)).collect();
        let is_welcome = pieces.is_welcome;
        let followed = pieces.first_went;
        let has_last = pieces.arrived.values().any(|(_, more)| !more);
        let len = whole.header_len() + whole.payload.len();
        for part in &parts {
            let to = |place: Option<Place>, ips| place == Some(part.place) && part.ips == ips;
            let is_way = |way: &Way| to(Some(way.place), (way.src.ip, way.dst.ip));
            let follows = |(src, dst): (Socket, Socket)| {
                to(self.model.place(node, self.probes[&id].net, None, dst.ip), (src.ip, dst.ip))
            };
            // Without its first one, a piece that could have come from a service shows itself as it is.
            let is_plain = to(self.model.place(node, self.probes[&id].net, None, dst.ip), (src.ip, dst.ip));
            let is_right = ways.iter().any(is_way) || followed.is_some_and(follows) || is_plain;
            assert!(is_right, "node {node}: a piece of {id} goes astray: {part:?}; {ways:?}");
        }
        if is_welcome && has_last && is_whole(spans, len) {
            self.later(2 * TOGETHER, Event::Assembled { probe: id });
        }
    }

    /// Whether one source sends a node more packets in pieces at once than its engine follows: those of a crowd that
    /// waited for a session arrive together.
    fn is_crowded(&self, node: Node, id: u64) -> bool {
        let source = |probe: &Probe| (probe.net, probe.sender.0, probe.wire.map(|(src, _)| src.ip));
        let its = source(&self.probes[&id]);
        let is_new = |pieces: &Pieces| self.now < pieces.first_at + TOGETHER;
        let rivals = self.probes.values().filter(|probe| probe.pieces.get(&node).is_some_and(is_new));
        rivals.filter(|probe| source(probe) == its).count() > FOLLOWED
    }

    /// All pieces of a probe arrived in time where it may be heard.
    pub(crate) fn check_assembled(&self, id: u64) {
        let probe = &self.probes[&id];
        let is_certain = |(node, pieces): (&Node, &Pieces)| {
            pieces.is_welcome && self.stations[*node - 1].generation == pieces.generation
        };
        if probe.pieces.iter().all(is_certain) {
            assert!(probe.arrived > 0, "every piece of {id} arrived, and it was not put together: {probe:?}");
        }
    }

    /// What a first piece says of its packet.
    pub(super) fn piece_packet(&self, id: u64, (src, dst): (Ipv4Addr, Ipv4Addr), bytes: &[u8]) -> Packet {
        let sent = &self.probes[&id].packet;
        let (sport, dport) = match sent.proto {
            Proto::Ping if sent.is_pong => (0, u16_at(bytes, 4)),
            Proto::Ping => (u16_at(bytes, 4), 0),
            Proto::Tcp | Proto::Udp => (u16_at(bytes, 0), u16_at(bytes, 2)),
        };
        Packet { src: Socket { ip: src, port: sport }, dst: Socket { ip: dst, port: dport }, ..sent.clone() }
    }
}
