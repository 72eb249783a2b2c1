//! The last step: to a port of this node, or to the VTEP that owns the destination.

use super::{Pass, towards};
use crate::engine::Output;
use crate::ids::{MacAddr, PortId};
use crate::index::NetworkIndex;
use crate::packet::Packet;
use crate::segment::{self, Sums};
use crate::snapshot::Location;
use crate::verdict::{DropReason, Verdict};
use crate::wire::ethernet;
use crate::wire::vnet::VnetHdr;
use std::net::Ipv4Addr;

impl<O: Output> Pass<'_, O> {
    /// Addresses a packet to its destination's MAC. A foreign destination is behind the host endpoint of
    /// the VTEP `via`, or of this node.
    pub(super) fn hop(
        &self,
        network: &NetworkIndex,
        packet: &mut Packet<'_>,
        via: Option<Ipv4Addr>,
    ) -> Result<Verdict, DropReason> {
        let next = match network.endpoint(packet.ip.dst) {
            Some(endpoint) => endpoint,
            None if network.subnet.contains(&packet.ip.dst) => return Err(DropReason::UnknownDestination),
            None => network.host(via).ok_or(DropReason::NoRoute)?,
        };
        let src = packet.ip.src;
        let from_service = network.service(src).is_some();
        let from_outside = !network.subnet.contains(&src);
        let is_local = matches!(next.location, Location::Local(_));
        let frame = packet.frame_mut();
        ethernet::set_dst(frame, next.mac);
        // The receiver sees the MAC that answers it. Another node must see the sender's own.
        if is_local && from_service {
            ethernet::set_src(frame, MacAddr::for_ip(src));
        } else if is_local && from_outside {
            ethernet::set_src(frame, network.gateway_mac);
        }
        Ok(towards(next))
    }

    /// To a port. A frame that fits goes as it is, its segmentation and checksum left to the receiver.
    pub(super) fn deliver(&mut self, port: PortId, packet: Packet<'_>) {
        if packet.largest() <= packet.limit {
            let vnet = packet.offload.to_vnet(&packet.ip, packet.transport_header_len(), packet.limit);
            self.write(port, vnet, packet.frame());
            return;
        }
        segment::pieces(packet, Sums::Full, |buf, frame, _| {
            self.write(port, VnetHdr::default(), &buf[frame])
        });
    }

    pub(super) fn write(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]) {
        if let Some(seat) = self.index.seat(port) {
            self.counters.port_given(seat.at, frame.len());
        }
        self.out.frame(port, vnet, frame);
    }
}
