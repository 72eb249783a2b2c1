//! Flows and turns: what the model remembers of what the engines chose.

use super::view::{is_here, is_open, services_of};
use super::{Model, Place, Port, REMEMBERED};
use crate::packet::{Packet, Proto, Socket};
use crate::world::{Name, Net, Node, World};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A client, whom it asked, and the node it came in by if that is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(super) net: usize,
    pub(super) proto: Proto,
    pub(super) client: Socket,
    pub(super) service: Socket,
    pub(super) via: Option<Node>,
}

#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// No two flows have the same.
    pub(super) epoch: u64,
    pub(super) backend: Ipv4Addr,
    /// The client, as the backend sees it.
    pub(super) source: Socket,
    /// The client's side has ended, and the backend's.
    pub(super) ended: [bool; 2],
    pub(super) was_reset: bool,
    pub(super) last_seen: u64,
}

/// Who got how many new flows since the list is what it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) among: Vec<Ipv4Addr>,
    pub(super) taken: BTreeMap<Ipv4Addr, u64>,
}

impl Model {
    pub(crate) fn has_flow(&self, node: Node, epoch: u64) -> bool {
        self.flows.iter().any(|((at, _), flow)| *at == node && flow.epoch == epoch)
    }

    /// Whether a client's port is in nobody's memory, or fresh in everybody's: what a flow is like that was silent for
    /// long is not for the model to say.
    pub(crate) fn is_certain(&self, net: usize, proto: Proto, client: Socket, now: u64) -> bool {
        let mine = |key: &Key| (key.net, key.proto, key.client) == (net, proto, client);
        self.flows.iter().all(|((_, key), flow)| !mine(key) || flow.last_seen + REMEMBERED / 2 > now)
    }

    pub(super) fn open(
        &mut self,
        node: Node,
        key: Key,
        backend: Ipv4Addr,
        source: Socket,
        now: u64,
    ) -> Result<(), String> {
        self.epochs += 1;
        let flow =
            Flow { epoch: self.epochs, backend, source, ended: [false; 2], was_reset: false, last_seen: now };
        self.flows.remove(&(node, key));
        if let Some((holder, old)) = self.holder(node, &key, backend, source) {
            if !old.was_reset && old.last_seen + REMEMBERED > now {
                return Err(format!(
                    "node {node}: answers to {key:?} could not be told from those to {holder:?}"
                ));
            }
            self.flows.remove(&(node, holder));
        }
        self.flows.insert((node, key), flow);
        Ok(())
    }

    /// Over any stretch of time in which the list does not change, no backend is two turns ahead of another.
    pub(super) fn take_turn(&mut self, node: Node, key: Key, backend: Ipv4Addr) -> Result<(), String> {
        let turns = self.turns.entry((node, Name { net: key.net, ip: key.service.ip })).or_default();
        *turns.taken.entry(backend).or_default() += 1;
        let count = |ip: &Ipv4Addr| turns.taken.get(ip).copied().unwrap_or(0);
        let most = turns.among.iter().map(count).max();
        let least = turns.among.iter().map(count).min();
        match most.zip(least) {
            Some((most, least)) if most - least <= 1 => Ok(()),
            _ => Err(format!("node {node}: unfair turns at {}: {turns:?}", key.service.ip)),
        }
    }

    /// The flow at this node whose answers would look like those of `key`.
    pub(super) fn holder(
        &self,
        node: Node,
        key: &Key,
        backend: Ipv4Addr,
        source: Socket,
    ) -> Option<(Key, &Flow)> {
        let is_it = |(at, k): &(Node, Key), flow: &Flow| {
            *at == node
                && (k.net, k.proto, k.service.port) == (key.net, key.proto, key.service.port)
                && (flow.backend, flow.source) == (backend, source)
        };
        self.flows.iter().find(|(at, flow)| is_it(at, flow)).map(|((_, key), flow)| (*key, flow))
    }

    /// Answers must not look like what the backend itself asks the client either.
    pub(super) fn asked_back(
        &self,
        node: Node,
        key: &Key,
        backend: Ipv4Addr,
        source: Socket,
        now: u64,
    ) -> Port {
        let back = Key { client: Socket { ip: backend, ..key.service }, service: source, ..*key };
        match self.flows.get(&(node, Key { via: None, ..back })) {
            Some(flow) if flow.last_seen + REMEMBERED <= now => Port::Any,
            Some(_) => Port::Another,
            None => Port::Given,
        }
    }

    /// The flow a packet is the answer of.
    pub(super) fn answers(&self, node: Node, net: usize, packet: &Packet) -> Option<Key> {
        let is_it = |(at, key): &(Node, Key), flow: &Flow| {
            (*at, key.net, key.proto) == (node, net, packet.proto)
                && (flow.backend, key.service.port) == (packet.src.ip, packet.src.port)
                && flow.source == packet.dst
        };
        let is_question = packet.proto == Proto::Ping && !packet.is_pong;
        let found = self.flows.iter().find(|(at, flow)| !is_question && is_it(at, flow));
        found.map(|((_, key), _)| *key)
    }

    /// A port's question to a service went nowhere. One for a new connection ends what is left of the last all the same.
    pub(crate) fn refused(&mut self, node: Node, net: usize, packet: &Packet) {
        let key = Key { net, proto: packet.proto, client: packet.src, service: packet.dst, via: None };
        let is_service = self.views[&node].services.contains_key(&Name { net, ip: packet.dst.ip });
        if is_service && self.continued(node, &key, packet).is_none() {
            self.flows.remove(&(node, key));
        }
    }

    /// The flow a client's packet goes on with; a new connection begins anew where the last one is over.
    pub(super) fn continued(&self, node: Node, key: &Key, packet: &Packet) -> Option<&Flow> {
        let flow = self.flows.get(&(node, *key))?;
        let is_over = flow.was_reset || flow.ended == [true; 2];
        (!(packet.flags.opens() && is_over)).then_some(flow)
    }
}

pub(super) fn is_alive(nets: &[Net], node: Node, old: &World, new: &World, key: &Key, flow: &Flow) -> bool {
    let net = key.net;
    let place = |world: &World, ip| {
        let seat = world.seats.get(&Name { net, ip })?;
        Some(if seat.node == node { Place::Port(seat.port) } else { Place::Node(seat.node) })
    };
    let stayed = |ip: Ipv4Addr| place(new, ip).is_some_and(|here| place(old, ip) == Some(here));
    let is_outside = !nets[net].subnet.contains(&key.client.ip);
    let is_direct = key.service.ip == flow.backend && key.via.is_none();
    // Clients from outside are gone with the host they came in by.
    let by = key.via.or(is_outside.then_some(node));
    let is_host = |by: Node| new.seats.iter().any(|(name, s)| name.net == net && s.is_host && s.node == by);
    let has_client = by.map_or_else(|| stayed(key.client.ip), is_host);
    let mut services = services_of(new, Name { net, ip: flow.backend });
    let is_served = is_direct
        || services.any(|(name, service)| {
            (key.via.is_some() || name.ip == key.service.ip) && is_open(service, key.proto, key.service.port)
        });
    is_here(new, node, net) && has_client && is_served && stayed(flow.backend)
}
