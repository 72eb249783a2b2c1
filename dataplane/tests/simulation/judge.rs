//! What comes out of an engine is held against what the model says of what went in.

mod own_words;
mod pieces;

use crate::model::{Place, Port, Way};
use crate::packet::{Body, Frame, Packet, Proto, ip_at, read};
use crate::probe::{id_in, is_whole};
use crate::run::Run;
use crate::world::{MTU, Node};
use skep_dataplane::VnetHdr;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What an engine was given.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The time, or a snapshot.
    Nothing,
    /// Probes that a port sent at once.
    Port { port: u32, probes: Vec<u64> },
    /// A datagram from another node, and which probes it may carry.
    Datagram { from: Node, bytes: Vec<u8>, probes: Vec<u64> },
}

impl Input {
    pub(crate) fn probes(&self) -> Vec<u64> {
        match self {
            Self::Nothing => vec![],
            Self::Port { probes, .. } | Self::Datagram { probes, .. } => probes.clone(),
        }
    }
}

/// Something that came out: where to, and which part of a packet.
#[derive(Clone, Debug)]
struct Part {
    place: Place,
    /// As far as it shows its ports: a later piece does not.
    packet: Option<Packet>,
    ips: (Ipv4Addr, Ipv4Addr),
    /// From, to; of the stream's payload, or of the IP packet's.
    span: (usize, usize),
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A datagram, a ping.
    Whole,
    Stream,
    Piece {
        more: bool,
    },
}

impl Run {
    pub(crate) fn judge(
        &mut self,
        node: Node,
        input: Input,
        frames: &[(u32, VnetHdr, Vec<u8>)],
        datagrams: &[(Node, Vec<u8>)],
    ) {
        let mut seen = Vec::new();
        for (port, vnet, frame) in frames {
            let frame = read(*vnet, frame);
            seen.push((
                Place::Port(*port),
                frame.unwrap_or_else(|wrong| panic!("to port {port}: {wrong}; {input:?}")),
            ));
        }
        for (to, bytes) in datagrams.iter().filter(|(_, bytes)| !is_path_probe(bytes)) {
            let frame = self.read_datagram(bytes, &input.probes());
            seen.push((Place::Node(*to), frame));
        }
        if let Input::Datagram { from, bytes, .. } = &input
            && let Some(reset) = self.bare_reset(bytes)
        {
            self.judge_reset(node, *from, &reset, &seen);
            return;
        }
        let parts = self.sort_out(node, seen, &input);
        match input {
            Input::Nothing => assert!(parts.is_empty(), "out of nothing: {parts:?}"),
            Input::Port { port, probes } => self.judge_sent(node, port, &probes, parts),
            Input::Datagram { from, bytes, probes } => self.judge_arrived(node, from, &bytes, &probes, parts),
        }
    }

    /// A datagram's network, and the endpoints its frame is from and for.
    fn ends(&self, bytes: &[u8], frame: &Frame) -> (usize, Ipv4Addr, Ipv4Addr) {
        let owner = |mac: skep_dataplane::ids::MacAddr| ip_at(&mac.0, 2);
        let vni = u32::from(bytes[4]) << 16 | u32::from(bytes[5]) << 8 | u32::from(bytes[6]);
        let net = self.nets.iter().position(|net| net.vni == vni).unwrap();
        (net, owner(frame.src_mac), owner(frame.dst_mac))
    }

    /// A datagram is a frame of its network, whole and no larger than the network allows.
    fn read_datagram(&self, bytes: &[u8], probes: &[u64]) -> Frame {
        let vni = u32::from(bytes[4]) << 16 | u32::from(bytes[5]) << 8 | u32::from(bytes[6]);
        assert_eq!((bytes[0..4].to_vec(), bytes[7]), (vec![8, 0, 0, 0], 0), "VXLAN header");
        assert!(self.nets.iter().any(|net| net.vni == vni), "VNI {vni} is nobody's");
        for id in probes {
            assert_eq!(vni, self.nets[self.probes[id].net].vni, "probe {id} left in another network");
        }
        let frame =
            read(VnetHdr::default(), &bytes[8..]).unwrap_or_else(|wrong| panic!("to the underlay: {wrong}"));
        assert!(frame.ip_len <= usize::from(MTU), "{} bytes leave where {MTU} fit", frame.ip_len);
        frame
    }

    /// Sets aside what the engine said itself, and tells which part of which probe the rest is.
    fn sort_out(&mut self, node: Node, seen: Vec<(Place, Frame)>, input: &Input) -> BTreeMap<u64, Vec<Part>> {
        let ids = input.probes();
        let mut parts: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
        for (place, frame) in seen {
            let ips = (frame.src, frame.dst);
            match frame.body {
                Body::Packets(packets) => {
                    for packet in packets {
                        if packet.payload.is_empty() {
                            self.check_reset(node, place, &packet, input);
                            continue;
                        }
                        let (id, part) = self.part(place, ips, packet, &ids);
                        parts.entry(id).or_default().push(part);
                    }
                }
                Body::Piece { offset, more, bytes } => {
                    let [id] = ids[..] else { panic!("a piece of one of {ids:?}") };
                    let span = (offset, offset + bytes.len());
                    let packet = (offset == 0).then(|| self.piece_packet(id, ips, &bytes));
                    let part = Part { place, packet, ips, span, kind: Kind::Piece { more } };
                    parts.entry(id).or_default().push(part);
                }
                Body::Error { kind, quoted } => self.check_error(node, place, kind, &quoted),
            }
        }
        parts
    }

    fn part(&self, place: Place, ips: (Ipv4Addr, Ipv4Addr), packet: Packet, ids: &[u64]) -> (u64, Part) {
        let is_tcp = packet.proto == Proto::Tcp;
        let id = match ids {
            [id] if is_tcp => *id,
            _ => id_in(&packet.payload).expect("a number"),
        };
        assert!(ids.contains(&id), "probe {id} comes out where {ids:?} went in: {packet:?}");
        let probe = &self.probes[&id].packet;
        let from = if is_tcp { packet.seq.wrapping_sub(probe.seq) as usize } else { 0 };
        let span = (from, from + packet.payload.len());
        let whole = &probe.payload;
        assert!(whole.get(from..span.1) == Some(&packet.payload), "probe {id} comes out changed");
        let kind = if is_tcp { Kind::Stream } else { Kind::Whole };
        (id, Part { place, packet: Some(packet), ips, span, kind })
    }

    fn judge_sent(&mut self, node: Node, port: u32, ids: &[u64], mut parts: BTreeMap<u64, Vec<Part>>) {
        for id in ids {
            let sent = self.probes[id].packet.clone();
            let ways = self.model.sent(node, port, &sent, self.now);
            let parts = parts.remove(id).unwrap_or_default();
            let Some(seen) = self.check_way(node, *id, &ways, &sent, &parts, true) else { continue };
            self.check_all_of(*id, &parts);
            if matches!(parts[0].place, Place::Node(_)) {
                self.probes.get_mut(id).unwrap().wire = Some((seen.src, seen.dst));
            }
        }
    }

    fn judge_arrived(
        &mut self,
        node: Node,
        from: Node,
        bytes: &[u8],
        ids: &[u64],
        mut parts: BTreeMap<u64, Vec<Part>>,
    ) {
        if is_path_probe(bytes) {
            assert!(parts.is_empty());
            return;
        }
        let frame = read(VnetHdr::default(), &bytes[8..]).unwrap();
        let ends = self.ends(bytes, &frame);
        match frame.body {
            Body::Packets(packets) => {
                let (id, whole) =
                    self.part(Place::Node(node), (frame.src, frame.dst), packets[0].clone(), ids);
                let arrived = packets[0].clone();
                let ways = self.model.arrived(node, from, ends, &arrived, self.now);
                let parts = parts.remove(&id).unwrap_or_default();
                if self.check_way(node, id, &ways, &arrived, &parts, true).is_some() {
                    let spans: Vec<_> = parts.iter().map(|part| (part.kind, part.span)).collect();
                    assert_eq!(
                        spans,
                        [(whole.kind, whole.span)],
                        "node {node} hands on another part of {id}"
                    );
                }
            }
            Body::Piece { offset, more, bytes } => {
                let [id] = ids[..] else { panic!("a piece of one of {ids:?}") };
                let span = (offset, offset + bytes.len());
                self.judge_piece(node, from, ends, id, (span, more), parts.remove(&id).unwrap_or_default());
            }
            Body::Error { .. } => panic!("an ICMP error between nodes: {frame:?}"),
        }
        assert!(parts.is_empty(), "more than what went in: {parts:?}");
    }

    /// What came out of a probe went one of the ways the model knows. Returns how it looked, and has the model take note.
    fn check_way(
        &mut self,
        node: Node,
        id: u64,
        ways: &[Way],
        packet: &Packet,
        parts: &[Part],
        is_due: bool,
    ) -> Option<Packet> {
        let context = || format!("node {node}, probe {id} {:?} -> {:?}", packet.src, packet.dst);
        let Some(seen) = parts.iter().find_map(|part| part.packet.clone()) else {
            assert!(parts.is_empty() || !is_due, "{}: {parts:?}", context());
            assert!(
                ways.is_empty() || !is_due && parts.is_empty(),
                "{}: went nowhere, not {ways:?}; {}",
                context(),
                self.drops(node)
            );
            return None;
        };
        let place = parts[0].place;
        let way = ways.iter().find(|way| fits(way, place, &seen));
        let Some(way) = way else {
            panic!(
                "{}: came out at {place:?} as {:?} -> {:?}, and the ways are {ways:?}",
                context(),
                seen.src,
                seen.dst
            )
        };
        for part in parts {
            assert_eq!(
                (part.place, part.ips),
                (place, (seen.src.ip, seen.dst.ip)),
                "{}: parts ways",
                context()
            );
        }
        match self.model.took(node, way, packet, &seen, self.now) {
            Ok(epoch) => self.note_flow(id, node, epoch),
            Err(wrong) => panic!("{}: {wrong}", context()),
        }
        self.figures.turns += u64::from(way.is_turn());
        self.figures.replaced_ports += u64::from(way.port == Port::Another);
        self.spoken.insert((seen.src, seen.dst));
        Some(seen)
    }

    /// A question remembers the flows it went by.
    fn note_flow(&mut self, id: u64, node: Node, epoch: Option<u64>) {
        let probe = self.probes.get_mut(&id).unwrap();
        let flow = epoch.map(|epoch| (node, epoch));
        if probe.question.is_none() && flow.is_some_and(|flow| !probe.passed.contains(&flow)) {
            probe.passed.extend(flow);
        }
    }

    /// Every byte came out, once.
    fn check_all_of(&self, id: u64, parts: &[Part]) {
        let packet = &self.probes[&id].packet;
        let is_pieces = parts.iter().all(|part| matches!(part.kind, Kind::Piece { .. }));
        let len = packet.payload.len() + if is_pieces { packet.header_len() } else { 0 };
        let is_uniform = is_pieces || parts.iter().all(|part| part.kind == parts[0].kind);
        let spans = parts.iter().map(|part| part.span).collect();
        assert!(is_uniform && is_whole(spans, len), "probe {id} of {len} bytes comes out as {parts:?}");
        let lasts = parts.iter().filter(|part| part.kind == Kind::Piece { more: false }).count();
        assert!(!is_pieces || lasts == 1, "probe {id} has {lasts} last pieces");
    }

    fn drops(&self, node: Node) -> String {
        let drops = self.stations[node - 1].engine.stats().drops;
        format!("{:?}", drops.into_iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>())
    }
}

fn fits(way: &Way, place: Place, seen: &Packet) -> bool {
    let port = match way.port {
        Port::Given => seen.src.port == way.src.port,
        Port::Another => seen.src.port != way.src.port && seen.src.port >= 1024,
        Port::Any => true,
    };
    way.place == place && way.dst == seen.dst && way.src.ip == seen.src.ip && port
}

/// Engines watch each other in datagrams of their own.
pub(crate) fn is_path_probe(datagram: &[u8]) -> bool {
    datagram.len() >= 8 && datagram[4..8] == [0, 0, 0, 2]
}
