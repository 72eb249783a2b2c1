//! Receivers: what a port is handed is put together and has to be what was sent, by whom it seems to be, to whom it was
//! meant for. These rules know nothing of nodes or flows: they are what a user was promised.

use crate::clients::Conn;
use crate::packet::{Body, Frame, Packet, Socket, read, read_assembled};
use crate::probe::{Probe, id_in, is_whole};
use crate::run::{Event, Life, Run};
use crate::world::{Name, Node};
use skep_dataplane::VnetHdr;
use skep_dataplane::ids::MacAddr;
use std::net::Ipv4Addr;

impl Run {
    /// A frame is written to a port. What the engine says itself is judged elsewhere.
    pub(crate) fn receive(&mut self, at: (Node, u32), vnet: VnetHdr, frame: &[u8], probes: &[u64]) {
        if frame[12..14] == [8, 6] {
            return;
        }
        let frame = read(vnet, frame).unwrap();
        match &frame.body {
            Body::Packets(packets) => {
                for packet in packets.iter().filter(|packet| !packet.payload.is_empty()) {
                    self.receive_packet(at, &frame, packet, probes);
                }
            }
            Body::Piece { offset, more, bytes } => {
                let [id] = probes else { panic!("pieces of {probes:?}") };
                self.receive_piece(at, *id, &frame, *offset, (*more, bytes.clone()));
            }
            Body::Error { .. } => {}
        }
    }

    fn receive_packet(&mut self, at: (Node, u32), frame: &Frame, packet: &Packet, probes: &[u64]) {
        self.check_macs(at, frame);
        let id = match probes {
            [id] => *id,
            _ => id_in(&packet.payload).unwrap(),
        };
        let probe = self.probes.get_mut(&id).unwrap();
        let whole = &probe.packet.payload;
        let from = match probe.packet.proto {
            crate::packet::Proto::Tcp => packet.seq.wrapping_sub(probe.packet.seq) as usize,
            _ => 0,
        };
        let to = from + packet.payload.len();
        assert!(
            whole.get(from..to) == Some(&packet.payload),
            "probe {id} arrived changed: {from}..{to} of {}",
            whole.len()
        );
        let len = whole.len();
        let stream = &mut probe.got.entry(at).or_default().stream;
        // A repeated part replaces itself; engines may not cut it otherwise the second time.
        stream.retain(|part| *part != (from, to));
        stream.push((from, to));
        if is_whole(stream.clone(), len) {
            stream.clear();
            self.hear(at, id, packet.src, packet.dst);
        }
    }

    fn receive_piece(
        &mut self,
        at: (Node, u32),
        id: u64,
        frame: &Frame,
        offset: usize,
        piece: (bool, Vec<u8>),
    ) {
        self.check_macs(at, frame);
        let probe = self.probes.get_mut(&id).unwrap();
        let pieces = &mut probe.got.entry(at).or_default().pieces;
        pieces.insert(offset, piece);
        let Some((last, (false, bytes))) = pieces.last_key_value() else { return };
        let len = last + bytes.len();
        if !is_whole(pieces.iter().map(|(from, (_, bytes))| (*from, from + bytes.len())).collect(), len) {
            return;
        }
        let all: Vec<u8> = std::mem::take(pieces).into_values().flat_map(|(_, bytes)| bytes).collect();
        self.figures.assembled += 1;
        let packet = read_assembled(probe.packet.proto, frame.src, frame.dst, &all).unwrap();
        assert!(packet.payload == probe.packet.payload, "probe {id} was put together to something else");
        self.hear(at, id, packet.src, packet.dst);
    }

    /// A frame is addressed to its receiver, and comes from the neighbour that an answer would go to.
    fn check_macs(&self, at: (Node, u32), frame: &Frame) {
        let Name { net, ip } = self.actors[&at].name;
        let next = if self.model.is_outside(net, frame.src) { self.nets[net].gateway } else { frame.src };
        assert_eq!((frame.dst_mac, frame.src_mac), (MacAddr::for_ip(ip), MacAddr::for_ip(next)), "{frame:?}");
    }

    /// Somebody got all of a probe.
    fn hear(&mut self, at: (Node, u32), id: u64, src: Socket, dst: Socket) {
        self.tell(|| format!("{at:?} heard {id} {src:?} -> {dst:?}"));
        self.figures.arrived += 1;
        let probe = self.probes.get_mut(&id).unwrap();
        probe.arrived += 1;
        assert!(probe.arrived == 1 || probe.was_doubled, "probe {id} arrived {} times", probe.arrived);
        let actor = &self.actors[&at];
        let probe = &self.probes[&id];
        assert_eq!(actor.name.net, probe.net, "probe {id} leaked into another network: {probe:?}");
        let conn = &self.conns[probe.conn];
        match probe.question {
            None => {
                self.check_question(conn, actor.name.ip, src, dst);
                if actor.life == Life::Living && !probe.packet.flags.has(crate::packet::Flags::RST) {
                    let after = self.rng.below(20_000);
                    let event =
                        Event::Answer { question: id, at, from: (dst.ip, dst.port), to: (src.ip, src.port) };
                    self.later(after, event);
                }
            }
            Some(question) => {
                let (conn, flags) = (probe.conn, probe.packet.flags);
                if self.check_answer(at, probe, src, dst) && self.actors[&at].life == Life::Living {
                    self.figures.answered += 1;
                    self.heard_answer(conn, question, flags);
                }
            }
        }
    }

    /// Only who was asked hears a question: the holder of the address, or a task of the service at some time; and it
    /// sees the client that asked, or, being that itself, the service.
    fn check_question(&self, conn: &Conn, hearer: Ipv4Addr, src: Socket, dst: Socket) {
        let asked = Name { net: conn.net, ip: conn.target.ip };
        let of_service = |ip| {
            let services = self.history.iter().filter_map(|world| world.services.get(&asked));
            services.flat_map(|service| &service.backends).any(|(backend, _)| *backend == ip)
        };
        assert!(hearer == asked.ip || of_service(hearer), "{hearer} heard what was for {asked:?}");
        assert_eq!(dst, Socket { ip: hearer, ..conn.target });
        let is_self = conn.client.ip == hearer && src.ip == asked.ip;
        assert!(src.ip == conn.client.ip || is_self, "{src:?} in place of {:?}", conn.client);
    }

    /// An answer comes to the client, from whom it asked. If an engine on the way forgot the flow in the meantime,
    /// nobody can tell any more who asked whom: then only what [`crate::model`] permits has happened. The same holds where
    /// the client's address has been given to another since, and the answerer's node, which noted nothing, knows already.
    fn check_answer(&self, at: (Node, u32), probe: &Probe, src: Socket, dst: Socket) -> bool {
        let conn = &self.conns[probe.conn];
        let actor = &self.actors[&at];
        assert!(actor.is_host || dst.ip == actor.name.ip, "{dst:?} at {actor:?}");
        let is_known = probe.passed.iter().all(|(node, epoch)| self.model.has_flow(*node, *epoch));
        // A conversation nobody noted may be taken for another of the same client's that began later.
        let is_alone = !probe.passed.is_empty() || !self.conns.iter().any(|other| other.is_like(conn));
        let place = self.world().seats.get(&self.actors[&conn.actor].name);
        let is_there = place.is_some_and(|seat| (seat.node, seat.port) == conn.actor);
        if is_known && is_alone && is_there {
            let expected = (conn.actor, conn.target, conn.client);
            assert_eq!((at, src, dst), expected, "an answer went astray: {conn:?}");
        }
        (at, src, dst) == (conn.actor, conn.target, conn.client)
    }
}

impl Conn {
    /// Has the same client with the same port, and another target or another way in.
    fn is_like(&self, other: &Self) -> bool {
        (self.net, self.proto, self.client) == (other.net, other.proto, other.client)
            && (self.target, self.actor) != (other.target, other.actor)
    }
}
