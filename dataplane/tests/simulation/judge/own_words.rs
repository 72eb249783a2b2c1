//! What engines say of their own accord: resets and errors, to those they concern.

use super::{Seen, fits};
use crate::judge::Input;
use crate::model::Place;
use crate::packet::{Body, Flags, Packet, Proto, ip_at, read};
use crate::probe::id_in;
use crate::run::Run;
use crate::wire::{Datagram, Inner};
use crate::world::Node;
use std::net::Ipv4Addr;

/// A reset, its network, and the endpoints it is from and for.
pub(super) struct Bare {
    ends: (usize, Ipv4Addr, Ipv4Addr),
    packet: Packet,
}

impl Run {
    /// A reset that an engine makes is for a conversation there was between these two.
    pub(super) fn check_reset(&mut self, node: Node, place: Place, packet: &Packet, input: &Input) {
        assert!(
            packet.proto == Proto::Tcp && packet.flags.has(Flags::RST),
            "made by an engine: {packet:?}; {input:?}"
        );
        let (to, from) = (packet.dst, packet.src);
        let is_known = self.spoken.contains(&(from, to))
            || self.spoken.contains(&(to, from))
            || self
                .probes
                .values()
                .any(|probe| [(to, from), (from, to)].contains(&(probe.packet.src, probe.packet.dst)));
        assert!(is_known, "node {node}: a reset about nothing: {packet:?}");
        self.figures.resets += 1;
        self.close(node, place, packet);
    }

    /// A datagram that carries nothing but a reset that an engine made on its own.
    pub(super) fn bare_reset(&self, datagram: &Datagram) -> Option<Bare> {
        let Inner { vni, vnet, frame } = datagram.inner()?;
        let frame = read(vnet, frame).ok()?;
        let ends = self.ends(vni, &frame);
        match frame.body {
            Body::Packets(packets) if packets[0].payload.is_empty() => {
                Some(Bare { ends, packet: packets[0].clone() })
            }
            Body::Packets(_) | Body::Piece { .. } | Body::Error { .. } => None,
        }
    }

    /// Such a reset goes the way of what it resets, or nowhere.
    pub(super) fn judge_reset(&mut self, node: Node, from: Node, reset: &Bare, seen: &[Seen]) {
        let ways = self.model.arrived(node, from, reset.ends, &reset.packet, self.now);
        let out = seen.iter().map(|Seen { place, frame, .. }| match &frame.body {
            Body::Packets(packets) => (*place, packets[0].clone()),
            Body::Piece { .. } | Body::Error { .. } => panic!("out of a reset: {frame:?}"),
        });
        match &out.collect::<Vec<_>>()[..] {
            [] => assert!(ways.is_empty(), "node {node}: a reset went nowhere, not {ways:?}"),
            [(place, packet)] => {
                let way = ways.iter().find(|way| fits(way, *place, packet));
                let way = way.unwrap_or_else(|| panic!("node {node}: {packet:?} at {place:?}, not {ways:?}"));
                self.model.took(node, way, &reset.packet, packet, self.now).unwrap();
                self.spoken.insert((packet.src, packet.dst));
                self.close(node, *place, packet);
            }
            more => panic!("out of one reset: {more:?}"),
        }
    }

    /// A client whose connection was reset says no more.
    fn close(&mut self, node: Node, place: Place, packet: &Packet) {
        let Place::Port(port) = place else { return };
        for conn in &mut self.conns {
            if (conn.actor, conn.client, conn.target) == ((node, port), packet.dst, packet.src) {
                conn.is_over = true;
            }
        }
    }

    /// An error that an engine sends is about a packet of its receiver's.
    pub(super) fn check_error(&mut self, node: Node, place: Place, kind: u8, quoted: &[u8]) {
        assert_eq!(kind, 3, "of the errors only `unreachable` is expected");
        let header_len = match quoted[9] {
            6 => usize::from(quoted[20 + 12] >> 4) * 4,
            _ => 8,
        };
        let id = id_in(&quoted[20 + header_len..]).expect("a number in the quotation");
        let probe = &self.probes[&id];
        let sender = (Place::Port(probe.sender.1), probe.sender.0);
        assert_eq!((place, node), sender, "an error about {id} goes to another");
        let quoted_ends = (ip_at(quoted, 12), ip_at(quoted, 16));
        assert_eq!(
            quoted_ends,
            (probe.packet.src.ip, probe.packet.dst.ip),
            "an error quotes what was not sent"
        );
        if probe.question.is_none() {
            self.conns[probe.conn].is_over = true;
        }
    }
}
