//! The gateway: answers ping, and routes only where something on this overlay says how.

use super::target::fragment_key;
use super::{Origin, Pass};
use crate::engine::Output;
use crate::ids::PortId;
use crate::index::{NetworkIndex, Target};
use crate::nat::rewrite::set_addresses;
use crate::packet::{Packet, Transport};
use crate::snapshot::{Endpoint, EndpointKind};
use crate::verdict::{DropReason, Verdict};
use crate::wire::ethernet;
use crate::wire::icmpv4::{self, Error};

impl<O: Output> Pass<'_, O> {
    /// A packet a port sent to whatever has the destination MAC.
    pub(super) fn forward(
        &mut self,
        network: &NetworkIndex,
        sender: &Endpoint,
        port: PortId,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        let target = network.by_mac(packet.dst_mac()).ok_or(DropReason::UnknownDestination)?;
        let owner = network.by_ip(packet.ip.dst);
        match target {
            Target::Gateway if owner == Some(Target::Gateway) => self.serve_gateway(network, port, packet),
            Target::Gateway => self.route(network, sender, port, packet, owner),
            Target::Endpoint(_) | Target::Vip(_) if owner == Some(target) => {
                self.reach(network, sender, port, packet, target)
            }
            Target::Endpoint(_) | Target::Vip(_) => Err(DropReason::WrongDestination),
        }
    }

    fn reach(
        &mut self,
        network: &NetworkIndex,
        sender: &Endpoint,
        port: PortId,
        packet: &mut Packet<'_>,
        target: Target,
    ) -> Result<Verdict, DropReason> {
        match target {
            Target::Gateway => self.serve_gateway(network, port, packet),
            _ if network.ingress && sender.kind == EndpointKind::Container => {
                self.leave_by_ingress(network, port, packet, target)
            }
            Target::Vip(at) => self.reach_vip(network, &network.services[at], port, packet),
            // The outside world, and the node itself, reach what is published, by its VIP.
            Target::Endpoint(_) if network.ingress => Err(DropReason::ForeignSource),
            Target::Endpoint(at) => {
                self.reach_endpoint(network, Origin::Port(port), &network.endpoints[at], packet)
            }
        }
    }

    /// One hop on. A task's routes may lead everything through the gateway, its own subnet too.
    fn route(
        &mut self,
        network: &NetworkIndex,
        sender: &Endpoint,
        port: PortId,
        packet: &mut Packet<'_>,
        owner: Option<Target>,
    ) -> Result<Verdict, DropReason> {
        if packet.ip.ttl == 1 {
            self.icmp_error(port, packet, network.gateway, Error::TimeExceeded);
            return Err(DropReason::TimeExceeded);
        }
        let verdict = match owner {
            Some(target) => self.reach(network, sender, port, packet, target)?,
            None if network.subnet.contains(&packet.ip.dst) => return Err(DropReason::UnknownDestination),
            None => self.answer_client(network, port, packet)?,
        };
        // Only what goes on has taken the hop: a held fragment comes here again.
        if matches!(verdict, Verdict::Deliver(_) | Verdict::Encapsulate(_)) {
            packet.decrement_ttl();
        }
        Ok(verdict)
    }

    /// Ping in pieces is answered piece by piece.
    fn serve_gateway(
        &mut self,
        network: &NetworkIndex,
        port: PortId,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        let origin = Origin::Port(port);
        if packet.ip.offset > 0 {
            let verdict = self.follow_or_hold(network, origin, packet)?;
            if verdict != Verdict::Held {
                ethernet::set_src(packet.frame_mut(), network.gateway_mac);
            }
            return Ok(verdict);
        }
        let key = fragment_key(network, origin, packet);
        let transport = packet.transport()?;
        if !matches!(transport, Transport::Ping { .. }) {
            return Err(self.refuse(port, packet, network.gateway, &transport, DropReason::GatewayRefused));
        }
        let asker = packet.ip.src;
        set_addresses(packet, network.gateway, asker);
        icmpv4::answer_echo(packet.payload_mut());
        self.note_first(key, packet, None)?;
        let verdict = self.hop(network, packet, None)?;
        ethernet::set_src(packet.frame_mut(), network.gateway_mac);
        Ok(verdict)
    }
}
