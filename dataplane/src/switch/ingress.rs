//! Published ports, between the node a client came to and the node of its task. The ingress network leads from a node's
//! host port to tasks, by what is published, and back; nowhere else.

use super::target::fragment_key;
use super::{Origin, Pass};
use crate::engine::Output;
use crate::ids::PortId;
use crate::index::{NetworkIndex, ServiceIndex, Target};
use crate::nat::flow::{Ends, Tuple};
use crate::nat::icmp_error::Quoted;
use crate::nat::rewrite::rewrite;
use crate::packet::{Packet, Transport};
use crate::snapshot::{Endpoint, EndpointKind, L4};
use crate::verdict::{DropReason, Verdict};
use std::net::Ipv4Addr;

impl<O: Output> Pass<'_, O> {
    /// From a peer: from its host port to a task, or from a task to the host port.
    pub(super) fn arrive_by_ingress(
        &mut self,
        network: &NetworkIndex,
        sender: &Endpoint,
        receiver: &Endpoint,
        from: Ipv4Addr,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        match (&sender.kind, &receiver.kind) {
            (EndpointKind::Host, EndpointKind::Container) => {
                self.reach_ingress_task(network, receiver, from, packet)
            }
            (EndpointKind::Host, EndpointKind::Host) => Err(DropReason::ForeignSource),
            (EndpointKind::Container, EndpointKind::Container) => Err(DropReason::IngressBetweenTasks),
            (EndpointKind::Container, EndpointKind::Host) => {
                let dst = packet.ip.dst;
                if dst != receiver.ip && network.subnet.contains(&dst) {
                    return Err(DropReason::WrongDestination);
                }
                self.answer_at_entry(network, from, packet)
            }
        }
    }

    /// From a task of this node: to a client that is a node itself.
    pub(super) fn leave_by_ingress(
        &mut self,
        network: &NetworkIndex,
        port: PortId,
        packet: &mut Packet<'_>,
        target: Target,
    ) -> Result<Verdict, DropReason> {
        match target {
            Target::Endpoint(at) if network.endpoints[at].kind == EndpointKind::Host => {
                self.answer_client(network, port, packet)
            }
            Target::Endpoint(_) | Target::Vip(_) | Target::Gateway => Err(DropReason::IngressBetweenTasks),
        }
    }

    /// At the task's node: a client's packet that came in at the node of the VTEP `via`.
    fn reach_ingress_task(
        &mut self,
        network: &NetworkIndex,
        task: &Endpoint,
        via: Ipv4Addr,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        if packet.ip.dst != task.ip {
            return Err(DropReason::WrongDestination);
        }
        let origin = Origin::Vtep(via);
        if packet.ip.offset > 0 {
            return self.follow_or_hold(network, origin, packet);
        }
        let key = fragment_key(network, origin, packet);
        let transport = packet.transport()?;
        if transport == Transport::IcmpError {
            let quoted = Quoted::parse(packet)?.ok_or(DropReason::IcmpErrorNoFlow)?;
            if !self.nat.error_to_backend(network, Some(via), packet, &quoted) {
                return Err(DropReason::IcmpErrorNoFlow);
            }
        } else {
            self.nat.admit(network, via, packet, &transport, self.now)?;
        }
        self.note_first(key, packet, None)?;
        self.hop(network, packet, None)
    }

    /// At the task's node: to an address that is not a task's. Only a flow that came in from there has a way back.
    pub(super) fn answer_client(
        &mut self,
        network: &NetworkIndex,
        port: PortId,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        let origin = Origin::Port(port);
        if packet.ip.offset > 0 {
            return self.follow_or_hold(network, origin, packet);
        }
        let key = fragment_key(network, origin, packet);
        let transport = packet.transport()?;
        let via = if transport == Transport::IcmpError {
            let quoted = Quoted::parse(packet)?.ok_or(DropReason::IcmpErrorNoFlow)?;
            self.nat.error_to_client(network, packet, &quoted).ok_or(DropReason::IcmpErrorNoFlow)?
        } else {
            let via = self.nat.reply(network, packet, &transport, self.now);
            via.ok_or_else(|| self.refuse(port, packet, network.gateway, &transport, DropReason::NoRoute))?
        };
        self.note_first(key, packet, via)?;
        self.hop(network, packet, via)
    }

    /// At the node the client came to: a task's answer turns back into its VIP's. The flow tells how,
    /// but without one (this engine may be younger than the connection) the snapshot does.
    fn answer_at_entry(
        &mut self,
        network: &NetworkIndex,
        from: Ipv4Addr,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        let origin = Origin::Vtep(from);
        if packet.ip.offset > 0 {
            // Its first one tells which of its services the task speaks for.
            return self.follow_or_hold(network, origin, packet);
        }
        let key = fragment_key(network, origin, packet);
        let transport = packet.transport()?;
        if transport == Transport::IcmpError {
            return self.error_at_entry(network, packet);
        }
        if let Some(via) = self.nat.reply(network, packet, &transport, self.now) {
            self.note_first(key, packet, via)?;
            return self.hop(network, packet, via);
        }
        let Some(tuple) = Tuple::of(network.vni.as_u32(), &packet.ip, &transport) else {
            return Err(DropReason::NoFlow);
        };
        let port = match transport {
            // An answer opens nothing.
            Transport::Tcp(segment) if segment.opens() => return Err(DropReason::NoFlow),
            Transport::Tcp(_) => (L4::Tcp, tuple.src_port),
            Transport::Udp { .. } => (L4::Udp, tuple.src_port),
            Transport::Ping { .. } | Transport::Pong { .. } | Transport::IcmpError | Transport::Other => {
                return Err(DropReason::NoFlow);
            }
        };
        let service = published_by(network, packet.ip.src, port).ok_or(DropReason::NoFlow)?;
        let Tuple { src_port, dst, dst_port, .. } = tuple;
        rewrite(packet, &transport, Ends { src: service.vip, src_port, dst, dst_port });
        self.note_first(key, packet, None)?;
        self.hop(network, packet, None)
    }

    fn error_at_entry(
        &mut self,
        network: &NetworkIndex,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        let quoted = Quoted::parse(packet)?.ok_or(DropReason::IcmpErrorNoFlow)?;
        if let Some(via) = self.nat.error_to_client(network, packet, &quoted) {
            return self.hop(network, packet, via);
        }
        let port = quoted.published_port().ok_or(DropReason::IcmpErrorNoFlow)?;
        let service = published_by(network, packet.ip.src, port).ok_or(DropReason::IcmpErrorNoFlow)?;
        quoted.show_vip(packet, service.vip);
        self.hop(network, packet, None)
    }
}

/// The service that publishes `port` with `task` as a backend.
fn published_by(network: &NetworkIndex, task: Ipv4Addr, port: (L4, u16)) -> Option<&ServiceIndex> {
    network.services_of(task).find(|service| service.is_open(Some(port)))
}
