//! What a node sees of a network, searched from end to end.

use crate::packet::{Packet, Proto};
use crate::world::{Name, Node, Virtual, World};
use skep_dataplane::snapshot::L4;
use std::net::Ipv4Addr;

pub(super) fn opens(packet: &Packet) -> bool {
    match packet.proto {
        Proto::Tcp => packet.flags.opens(),
        Proto::Udp => true,
        Proto::Ping => !packet.is_pong,
    }
}

pub(super) fn is_open(service: &Virtual, proto: Proto, port: u16) -> bool {
    let l4 = match proto {
        Proto::Tcp => L4::Tcp,
        Proto::Udp => L4::Udp,
        Proto::Ping => return true,
    };
    service.open.as_ref().is_none_or(|open| open.contains(&(l4, port)))
}

/// Backends that take new flows and are somewhere.
pub(super) fn active(view: &World, name: Name, service: &Virtual) -> Vec<Ipv4Addr> {
    let is_ready = |(ip, is_draining): &&(Ipv4Addr, bool)| {
        !is_draining && view.seats.contains_key(&Name { ip: *ip, ..name })
    };
    service.backends.iter().filter(is_ready).map(|(ip, _)| *ip).collect()
}

pub(super) fn services_of(view: &World, task: Name) -> impl Iterator<Item = (&Name, &Virtual)> {
    let has_it = move |(name, service): &(&Name, &Virtual)| {
        name.net == task.net && service.backends.iter().any(|(ip, _)| *ip == task.ip)
    };
    view.services.iter().filter(has_it)
}

pub(super) fn is_backend(view: &World, name: Name) -> bool {
    services_of(view, name).next().is_some()
}

/// A network is on a node while that has an endpoint on it.
pub(super) fn is_here(view: &World, node: Node, net: usize) -> bool {
    view.seats.iter().any(|(name, seat)| name.net == net && seat.node == node)
}
