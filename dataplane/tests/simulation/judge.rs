//! What comes out of an engine is held against what the model says of what went in.

mod own_words;
mod pieces;

use crate::model::{Place, Port, Way};
use crate::packet::{Body, Frame, Packet, Proto, ip_at, read};
use crate::probe::{id_in, is_whole};
use crate::run::Run;
use crate::sessions::Fate;
use crate::station::Out;
use crate::wire::{Datagram, Inner};
use crate::world::Node;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What an engine was given.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The time, or a snapshot.
    Nothing,
    /// Probes that a port sent at once.
    Port { port: u32, probes: Vec<u64> },
    /// A datagram from another node.
    Datagram { from: Node, datagram: Datagram, fate: Fate },
}

impl Input {
    pub(crate) fn probes(&self) -> Vec<u64> {
        match self {
            Self::Nothing => vec![],
            Self::Port { probes, .. } => probes.clone(),
            Self::Datagram { datagram, .. } => datagram.probes.clone(),
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

/// A frame that came out.
struct Seen {
    place: Place,
    frame: Frame,
    by: By,
    /// The probe it is a part of.
    probe: Option<u64>,
}

/// How a frame came out.
#[derive(Clone, Copy)]
enum By {
    Port,
    /// In this datagram.
    Datagram(usize),
    /// Not yet: it is this one of those that wait.
    Waiting(usize),
}

impl Run {
    /// Judges what came out of an engine, and tells which probes its datagrams carry.
    pub(crate) fn judge(&mut self, node: Node, input: Input, out: &mut Out) {
        let mut seen = self.take_apart(node, &input, out);
        let reset = match &input {
            Input::Datagram { from, datagram, fate: Fate::Read | Fate::Agreed } => {
                self.bare_reset(datagram).map(|reset| (*from, reset))
            }
            _ => None,
        };
        if let Some((from, reset)) = reset {
            self.judge_reset(node, from, &reset, &seen);
        } else {
            let parts = self.sort_out(node, &mut seen, &input);
            match input {
                Input::Nothing => assert!(parts.is_empty(), "out of nothing: {parts:?}"),
                Input::Port { port, probes } => self.judge_sent(node, port, &probes, parts),
                Input::Datagram { from, datagram, fate } => {
                    self.judge_arrived(node, from, &datagram, fate, parts);
                }
            }
        }
        self.let_wait(node, &seen, out);
    }

    /// Reads every frame that came out.
    fn take_apart(&mut self, node: Node, input: &Input, out: &mut Out) -> Vec<Seen> {
        let probes = input.probes();
        let mut seen = Vec::new();
        for (port, vnet, frame) in &out.frames {
            let frame =
                read(*vnet, frame).unwrap_or_else(|wrong| panic!("to port {port}: {wrong}; {input:?}"));
            seen.push(Seen { place: Place::Port(*port), frame, by: By::Port, probe: None });
        }
        for (at, datagram) in out.datagrams.iter_mut().enumerate() {
            self.sessions.left(node, datagram.to, &datagram.bytes);
            if self.has_waited(node, datagram) {
                continue;
            }
            let Some(inner) = datagram.inner() else { continue };
            let is_sealed = datagram.sealed.is_some();
            let frame = self.read_inner(inner, is_sealed, &probes);
            seen.push(Seen { place: Place::Node(datagram.to), frame, by: By::Datagram(at), probe: None });
        }
        assert!(
            !self.sessions.is_anyone_kept_waiting(node),
            "node {node} has a session, and frames wait for it"
        );
        for (at, (to, text)) in out.waits.iter().enumerate() {
            let frame = self.read_inner(text.inner().expect("a frame"), true, &probes);
            seen.push(Seen { place: Place::Node(*to), frame, by: By::Waiting(at), probe: None });
        }
        seen
    }

    /// Whether it carries what waited for a session: that leaves first, in its order, and as it was.
    fn has_waited(&mut self, node: Node, datagram: &mut Datagram) -> bool {
        let Some((_, text)) = datagram.sealed.as_ref().filter(|(_, text)| text.is_frame()) else {
            return false;
        };
        self.figures.sealed += 1;
        let Some(waiting) = self.sessions.next_waiting(node, datagram.to) else { return false };
        assert_eq!(*text, waiting.text, "node {node} sends something else than what waited first");
        self.figures.waited += 1;
        datagram.probes = waiting.probes;
        true
    }

    /// Notes whose probes left, and whose wait.
    fn let_wait(&mut self, node: Node, seen: &[Seen], out: &mut Out) {
        let (now, mut waits) = (self.now / 1_000, out.waits.drain(..).map(Some).collect::<Vec<_>>());
        for Seen { by, probe, .. } in seen {
            let probes: Vec<u64> = probe.iter().copied().collect();
            match *by {
                By::Port => {}
                By::Datagram(at) => out.datagrams[at].probes = probes,
                By::Waiting(at) => {
                    let (to, text) = waits[at].take().expect("each waits once");
                    self.sessions.wait(node, to, text, probes, now);
                }
            }
        }
    }

    /// A frame's network, and the endpoints it is from and for.
    fn ends(&self, vni: u32, frame: &Frame) -> (usize, Ipv4Addr, Ipv4Addr) {
        let owner = |mac: skep_dataplane::ids::MacAddr| ip_at(&mac.0, 2);
        let net = self.nets.iter().position(|net| net.vni == vni).unwrap();
        (net, owner(frame.src_mac), owner(frame.dst_mac))
    }

    /// What goes to another node is a frame of its network, whole, sealed if that is, and no larger than it allows.
    fn read_inner(&self, inner: Inner<'_>, is_sealed: bool, probes: &[u64]) -> Frame {
        let Inner { vni, vnet, frame } = inner;
        let net = self.nets.iter().find(|net| net.vni == vni);
        let net = net.unwrap_or_else(|| panic!("VNI {vni} is nobody's"));
        assert_eq!(is_sealed, net.is_sealed(), "how {net:?} travels");
        for id in probes {
            assert_eq!(vni, self.nets[self.probes[id].net].vni, "probe {id} left in another network");
        }
        let frame = read(vnet, frame).unwrap_or_else(|wrong| panic!("to the underlay: {wrong}"));
        assert!(
            frame.ip_len <= usize::from(net.mtu()),
            "{} bytes leave where {} fit",
            frame.ip_len,
            net.mtu()
        );
        frame
    }

    /// Sets aside what the engine said itself, and tells which part of which probe the rest is.
    fn sort_out(&mut self, node: Node, seen: &mut [Seen], input: &Input) -> BTreeMap<u64, Vec<Part>> {
        let ids = input.probes();
        let mut parts: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
        for Seen { place, frame, probe, .. } in seen {
            let (place, ips) = (*place, (frame.src, frame.dst));
            match &frame.body {
                Body::Packets(packets) => {
                    for packet in packets {
                        if packet.payload.is_empty() {
                            self.check_reset(node, place, packet, input);
                            continue;
                        }
                        let (id, part) = self.part(place, ips, packet.clone(), &ids);
                        parts.entry(id).or_default().push(part);
                        *probe = Some(id);
                    }
                }
                Body::Piece { offset, more, bytes } => {
                    let id = self.whose_piece(frame, &ids);
                    let span = (*offset, offset + bytes.len());
                    let packet = (*offset == 0).then(|| self.piece_packet(id, ips, bytes));
                    let part = Part { place, packet, ips, span, kind: Kind::Piece { more: *more } };
                    parts.entry(id).or_default().push(part);
                    *probe = Some(id);
                }
                Body::Error { kind, quoted } => self.check_error(node, place, *kind, quoted),
            }
        }
        parts
    }

    /// The one of some probes that a piece is of.
    fn whose_piece(&self, frame: &Frame, ids: &[u64]) -> u64 {
        let mut its = ids.iter().filter(|id| self.probes[id].ip_id == frame.ip_id);
        match (its.next(), its.next()) {
            (Some(id), None) => *id,
            _ => panic!("a piece of one of {ids:?}: {frame:?}"),
        }
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
            let Some(seen) = self.check_way(node, *id, &ways, &sent, &parts, true) else {
                self.model.refused(node, self.probes[id].net, &sent);
                continue;
            };
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
        datagram: &Datagram,
        fate: Fate,
        mut parts: BTreeMap<u64, Vec<Part>>,
    ) {
        self.figures.handshakes += u64::from(fate == Fate::Agreed);
        let inner = datagram.inner().filter(|_| matches!(fate, Fate::Read | Fate::Agreed));
        let Some(Inner { vni, vnet, frame }) = inner else {
            return assert!(parts.is_empty(), "out of {fate:?}: {parts:?}");
        };
        let (frame, ids) = (read(vnet, frame).unwrap(), &datagram.probes);
        let ends = self.ends(vni, &frame);
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
