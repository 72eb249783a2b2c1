//! What engines say of their own accord: resets and errors, to those they concern.

use crate::judge::Input;
use crate::model::Place;
use crate::packet::{Flags, Packet, Proto, ip_at};
use crate::probe::id_in;
use crate::run::Run;
use crate::world::Node;

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
