//! [`Model`]: who may hear whom, slowly and in plain words. It shares nothing with the engine: maps of whole revisions,
//! searched from end to end.
//!
//! An address is a name for whoever holds it *in the eyes of the node that forwards*. So two nodes' eyes decide what
//! becomes of a packet between them: the sender's, when it was sent, say which node it goes to, and the receiver's, when
//! it arrives, whether that node may speak for the sender and who holds the address there. Where the two disagree, a
//! packet in flight goes nowhere, or to whoever the receiver's node knows by that name; never to anyone else.
//!
//! What the engine is free to choose (whose turn it is, which other client port) the model learns from what it sees, and
//! from then on holds the engine to it.

mod flows;
mod view;

use crate::packet::{Packet, Proto, Socket};
use crate::world::{Name, Net, Node, Virtual, World};
use flows::{Flow, Key, Turns, is_alive};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use view::{active, is_backend, is_here, is_open, opens, services_of};

/// No flow of the engine's is forgotten that was seen within this time, in microseconds: its shortest limit, for
/// connections that are not answered, is 5 s.
pub(crate) const REMEMBERED: u64 = 4_000_000;

pub(crate) struct Model {
    nets: Vec<Net>,
    views: BTreeMap<Node, World>,
    flows: BTreeMap<(Node, Key), Flow>,
    turns: BTreeMap<(Node, Name), Turns>,
    epochs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Port(u32),
    Node(Node),
}

/// One way a packet may leave a node.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) place: Place,
    pub(crate) src: Socket,
    pub(crate) dst: Socket,
    /// The client's port is whichever the engine found free.
    pub(crate) port: Port,
    effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Given,
    /// The given one would make answers ambiguous.
    Another,
    /// The flow that holds the given one may have been forgotten.
    Any,
}

#[derive(Clone, Debug)]
enum Effect {
    Nothing,
    Forward(Key),
    Reverse(Key),
    Open { key: Key, backend: Ipv4Addr, is_turn: bool },
}

impl Way {
    /// Takes a turn of a service.
    pub(crate) fn is_turn(&self) -> bool {
        matches!(self.effect, Effect::Open { is_turn: true, .. })
    }
}

impl Model {
    pub(crate) fn new(nets: Vec<Net>) -> Self {
        Self { nets, views: BTreeMap::new(), flows: BTreeMap::new(), turns: BTreeMap::new(), epochs: 0 }
    }

    pub(crate) fn view(&self, node: Node) -> &World {
        &self.views[&node]
    }

    /// The engine of a node forgot everything.
    pub(crate) fn restarted(&mut self, node: Node) {
        self.flows.retain(|(at, _), _| *at != node);
        self.turns.retain(|(at, _), _| *at != node);
    }

    /// A node sees the world otherwise. A flow lasts while both its ends are where they were, and while its service has
    /// the backend, draining or not. (Another holder of the same address on the same distant node is not told apart:
    /// no snapshot says so.)
    pub(crate) fn applied(&mut self, node: Node, view: World) {
        let old = self.views.insert(node, view).unwrap_or_default();
        let view = &self.views[&node];
        self.flows.retain(|(at, key), flow| *at != node || is_alive(&self.nets, node, &old, view, key, flow));
        // A network that leaves a node takes its services along.
        let is_known = |name: &Name| view.services.contains_key(name) && is_here(view, node, name.net);
        self.turns.retain(|(at, name), _| *at != node || is_known(name));
        for (name, service) in view.services.iter().filter(|(name, _)| is_known(name)) {
            let among = active(view, *name, service);
            let turns = self.turns.entry((node, *name)).or_default();
            if turns.among != among {
                *turns = Turns { among, ..Turns::default() };
            }
        }
    }

    /// The ways a packet may go that a port of this node sends; none: nobody may hear it.
    pub(crate) fn sent(&self, node: Node, port: u32, packet: &Packet, now: u64) -> Vec<Way> {
        let view = &self.views[&node];
        let mut seats = view.seats.iter();
        let Some((own, seat)) = seats.find(|(_, s)| (s.node, s.port) == (node, port)) else { return vec![] };
        let net = own.net;
        let is_foreign = packet.src.ip != own.ip;
        if is_foreign && !(seat.is_host && self.may_be_outside(net, packet.src.ip)) {
            return vec![];
        }
        let to = Name { net, ip: packet.dst.ip };
        let is_endpoint = view.seats.contains_key(&to);
        if is_endpoint && seat.is_host {
            return vec![]; // the outside, and the node itself, reach what is published, by its virtual address
        }
        if let Some(key) = self.answers(node, net, packet) {
            return self.back(node, key);
        }
        match view.services.get(&to) {
            _ if self.nets[net].ingress && !seat.is_host => vec![], // a task answers there, and asks nobody
            _ if is_endpoint && is_backend(view, to) => self.direct(node, net, packet, now),
            _ if is_endpoint => self.plain(node, net, packet),
            Some(service) => self.balanced(node, to, service, packet, now),
            None => vec![],
        }
    }

    /// The ways a packet may go that came from the node `from`, there sent by the endpoint `by` and here addressed to
    /// the endpoint `at`.
    pub(crate) fn arrived(
        &self,
        node: Node,
        from: Node,
        (net, by, at): (usize, Ipv4Addr, Ipv4Addr),
        packet: &Packet,
        now: u64,
    ) -> Vec<Way> {
        let view = &self.views[&node];
        let seat = |ip| view.seats.get(&Name { net, ip });
        let (Some(sender), Some(receiver)) = (seat(by), seat(at)) else { return vec![] };
        if sender.node != from || receiver.node != node {
            return vec![];
        }
        let is_foreign = packet.src.ip != by;
        if is_foreign && !(sender.is_host && self.may_be_outside(net, packet.src.ip)) {
            return vec![];
        }
        let ways = if self.nets[net].ingress && sender.is_host == receiver.is_host {
            vec![] // from a host to tasks, and back
        } else if sender.is_host {
            match packet.dst.ip == at {
                true => self.admitted(node, from, net, packet, now),
                false => vec![],
            }
        } else if packet.dst.ip == at || receiver.is_host && self.is_outside(net, packet.dst.ip) {
            match self.answers(node, net, packet) {
                Some(key) => self.back(node, key),
                None if !receiver.is_host => self.plain(node, net, packet),
                None => self.by_table(node, net, packet),
            }
        } else {
            vec![]
        };
        // What came from another node goes to no third one.
        ways.into_iter().filter(|way| matches!(way.place, Place::Port(_))).collect()
    }

    /// Takes note of the way a packet went and of how it looked then: the epoch of its flow, if it has one.
    pub(crate) fn took(
        &mut self,
        node: Node,
        way: &Way,
        packet: &Packet,
        seen: &Packet,
        now: u64,
    ) -> Result<Option<u64>, String> {
        let (key, side) = match &way.effect {
            Effect::Nothing => return Ok(None),
            Effect::Forward(key) => (*key, 0),
            Effect::Reverse(key) => (*key, 1),
            Effect::Open { key, backend, is_turn } => {
                self.open(node, *key, *backend, seen.src, now)?;
                if *is_turn {
                    self.take_turn(node, *key, *backend)?;
                }
                (*key, 0)
            }
        };
        let Some(flow) = self.flows.get_mut(&(node, key)) else { return Ok(None) };
        flow.last_seen = now;
        flow.ended[side] |= packet.flags.has(crate::packet::Flags::FIN);
        flow.was_reset |= packet.flags.has(crate::packet::Flags::RST);
        Ok(Some(flow.epoch))
    }

    /// An answer is shown as coming from whom the client asked.
    fn back(&self, node: Node, key: Key) -> Vec<Way> {
        self.way(node, key.net, key.via, key.service, key.client, Port::Given, Effect::Reverse(key))
    }

    fn plain(&self, node: Node, net: usize, packet: &Packet) -> Vec<Way> {
        self.way(node, net, None, packet.src, packet.dst, Port::Given, Effect::Nothing)
    }

    /// Straight to a backend: as it is, but for a client port whose answers would be mistaken for another flow's.
    fn direct(&self, node: Node, net: usize, packet: &Packet, now: u64) -> Vec<Way> {
        let key = Key { net, proto: packet.proto, client: packet.src, service: packet.dst, via: None };
        if let Some(flow) = self.continued(node, &key, packet) {
            return self.way(node, net, None, flow.source, packet.dst, Port::Given, Effect::Forward(key));
        }
        if !opens(packet) {
            return self.plain(node, net, packet);
        }
        self.opening(node, key, packet.dst.ip, packet.src.ip, false, now)
    }

    fn balanced(&self, node: Node, to: Name, service: &Virtual, packet: &Packet, now: u64) -> Vec<Way> {
        let view = &self.views[&node];
        let key =
            Key { net: to.net, proto: packet.proto, client: packet.src, service: packet.dst, via: None };
        if let Some(flow) = self.continued(node, &key, packet) {
            let dst = Socket { ip: flow.backend, ..packet.dst };
            return self.way(node, to.net, None, flow.source, dst, Port::Given, Effect::Forward(key));
        }
        let is_outside_ping =
            packet.proto == Proto::Ping && service.open.is_some() && self.is_outside(to.net, packet.src.ip);
        if !opens(packet) || !is_open(service, packet.proto, packet.dst.port) || is_outside_ping {
            return vec![];
        }
        let backends = active(view, to, service).into_iter();
        // A kernel takes no packet from its own address off the wire: a backend that is the client hears the service.
        let source = |backend: Ipv4Addr| if backend == packet.src.ip { to.ip } else { packet.src.ip };
        backends.flat_map(|backend| self.opening(node, key, backend, source(backend), true, now)).collect()
    }

    /// At a task's node: only published ports, from a node the client came in by.
    fn admitted(&self, node: Node, from: Node, net: usize, packet: &Packet, now: u64) -> Vec<Way> {
        let is_published = packet.proto != Proto::Ping
            && services_of(&self.views[&node], Name { net, ip: packet.dst.ip })
                .any(|(_, service)| is_open(service, packet.proto, packet.dst.port));
        if !is_published {
            return vec![];
        }
        let key = Key { net, proto: packet.proto, client: packet.src, service: packet.dst, via: Some(from) };
        match self.continued(node, &key, packet) {
            Some(flow) => {
                self.way(node, net, None, flow.source, packet.dst, Port::Given, Effect::Forward(key))
            }
            None => self.opening(node, key, packet.dst.ip, packet.src.ip, false, now),
        }
    }

    /// At the node a client came in by, which forgot the flow: the published port tells whose answer it is.
    fn by_table(&self, node: Node, net: usize, packet: &Packet) -> Vec<Way> {
        let task = Name { net, ip: packet.src.ip };
        let is_it = |service: &Virtual| {
            packet.proto != Proto::Ping
                && !packet.flags.opens()
                && is_open(service, packet.proto, packet.src.port)
        };
        let found = services_of(&self.views[&node], task).find(|(_, service)| is_it(service));
        let Some((name, _)) = found else { return vec![] };
        let src = Socket { ip: name.ip, ..packet.src };
        self.way(node, net, None, src, packet.dst, Port::Given, Effect::Nothing)
    }

    fn opening(
        &self,
        node: Node,
        key: Key,
        backend: Ipv4Addr,
        source: Ipv4Addr,
        is_turn: bool,
        now: u64,
    ) -> Vec<Way> {
        let src = Socket { ip: source, ..key.client };
        let port = match self.holder(node, &key, backend, src) {
            Some((holder, _)) if holder == key => Port::Given,
            Some((_, flow)) if flow.was_reset => Port::Given,
            Some((_, flow)) if flow.last_seen + REMEMBERED <= now => Port::Any,
            Some(_) => Port::Another,
            None => self.asked_back(node, &key, backend, src, now),
        };
        let dst = Socket { ip: backend, ..key.service };
        self.way(node, key.net, None, src, dst, port, Effect::Open { key, backend, is_turn })
    }

    #[allow(clippy::too_many_arguments, reason = "each is one part of the way, named once more right below")]
    fn way(
        &self,
        node: Node,
        net: usize,
        via: Option<Node>,
        src: Socket,
        dst: Socket,
        port: Port,
        effect: Effect,
    ) -> Vec<Way> {
        let place = self.place(node, net, via, dst.ip);
        place.map(|place| Way { place, src, dst, port, effect }).into_iter().collect()
    }

    /// Where a node finds an address; the outside is behind the host of the node the client came in by.
    pub(crate) fn place(&self, node: Node, net: usize, via: Option<Node>, ip: Ipv4Addr) -> Option<Place> {
        let view = &self.views[&node];
        let seat = match self.is_outside(net, ip) {
            false => view.seats.get(&Name { net, ip })?,
            true => {
                let host = via.unwrap_or(node);
                view.seats.iter().find(|(name, s)| name.net == net && s.is_host && s.node == host)?.1
            }
        };
        Some(if seat.node == node { Place::Port(seat.port) } else { Place::Node(seat.node) })
    }

    pub(crate) fn is_outside(&self, net: usize, ip: Ipv4Addr) -> bool {
        !self.nets[net].subnet.contains(&ip)
    }

    fn may_be_outside(&self, net: usize, ip: Ipv4Addr) -> bool {
        let is_nobody = ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback();
        self.nets[net].ingress && !is_nobody && self.nets.iter().all(|other| !other.subnet.contains(&ip))
    }
}
