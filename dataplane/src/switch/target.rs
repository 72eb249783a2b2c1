//! Packets to an endpoint and to a VIP, and the fragments that follow their first ones.

use super::{Origin, Pass};
use crate::engine::{HEADROOM, Output};
use crate::ids::PortId;
use crate::index::{NetworkIndex, ServiceIndex};
use crate::nat::fragments::{FragmentKey, FragmentRoute, Piece};
use crate::nat::icmp_error::Quoted;
use crate::nat::rewrite::set_addresses;
use crate::packet::{Packet, Transport};
use crate::snapshot::Endpoint;
use crate::verdict::{DropReason, Verdict};
use crate::wire::vxlan;
use std::net::Ipv4Addr;

impl<O: Output> Pass<'_, O> {
    /// To an endpoint's own address: as it is, unless it answers a flow or would be mistaken for one.
    pub(super) fn reach_endpoint(
        &mut self,
        network: &NetworkIndex,
        origin: Origin,
        receiver: &Endpoint,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        if packet.ip.offset > 0 {
            // Only a backend's fragments may have to look as if they came from its VIP.
            return match self.follow_first(network, origin, packet)? {
                Some(verdict) => Ok(verdict),
                None if network.is_backend(packet.ip.src) => self.hold(network, origin, packet),
                None => self.hop(network, packet, None),
            };
        }
        let key = fragment_key(network, origin, packet);
        let transport = packet.transport()?;
        let via = if transport == Transport::IcmpError {
            match Quoted::parse(packet)? {
                Some(quoted) => self.nat.error_to_client(network, packet, &quoted).unwrap_or_default(),
                None => None,
            }
        } else if let Some(via) = self.nat.reply(network, packet, &transport, self.now) {
            via
        } else {
            if matches!(origin, Origin::Port(_)) && network.is_backend(receiver.ip) {
                self.nat.direct(network, packet, &transport, self.now)?;
            }
            None
        };
        self.note_first(key, packet, via)?;
        self.hop(network, packet, via)
    }

    pub(super) fn reach_vip(
        &mut self,
        network: &NetworkIndex,
        service: &ServiceIndex,
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
            self.error_to_vip(network, packet)?
        } else if let Some(via) = self.answer_to_itself(network, packet, &transport) {
            via
        } else {
            let result = self.nat.balance(network, service, packet, &transport, self.now);
            result.map_err(|reason| self.refuse(port, packet, service.vip, &transport, reason))?;
            None
        };
        self.note_first(key, packet, via)?;
        self.hop(network, packet, via)
    }

    /// A task that picked itself answers the VIP. Others are not looked for: among many flows a look costs much.
    fn answer_to_itself(
        &mut self,
        network: &NetworkIndex,
        packet: &mut Packet<'_>,
        transport: &Transport,
    ) -> Option<Option<Ipv4Addr>> {
        let may_be = network.is_backend(packet.ip.src);
        may_be.then(|| self.nat.reply(network, packet, transport, self.now)).flatten()
    }

    fn error_to_vip(
        &mut self,
        network: &NetworkIndex,
        packet: &mut Packet<'_>,
    ) -> Result<Option<Ipv4Addr>, DropReason> {
        let quoted = Quoted::parse(packet)?.ok_or(DropReason::IcmpErrorNoFlow)?;
        if let Some(via) = self.nat.error_to_client(network, packet, &quoted) {
            return Ok(via);
        }
        if self.nat.error_to_backend(network, None, packet, &quoted) {
            return Ok(None);
        }
        Err(DropReason::IcmpErrorNoFlow)
    }

    /// A later fragment of a packet whose first one must be known.
    pub(super) fn follow_or_hold(
        &mut self,
        network: &NetworkIndex,
        origin: Origin,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        match self.follow_first(network, origin, packet)? {
            Some(verdict) => Ok(verdict),
            None => self.hold(network, origin, packet),
        }
    }

    /// Sends a later fragment the way of its first one, if that came.
    pub(super) fn follow_first(
        &mut self,
        network: &NetworkIndex,
        origin: Origin,
        packet: &mut Packet<'_>,
    ) -> Result<Option<Verdict>, DropReason> {
        let key = fragment_key(network, origin, packet);
        let Some(route) = self.nat.fragments.route(&key, piece(packet), self.now)? else { return Ok(None) };
        set_addresses(packet, route.src, route.dst);
        self.hop(network, packet, route.via).map(Some)
    }

    /// Notes where a first fragment goes. `key` is the packet's as it came.
    pub(super) fn note_first(
        &mut self,
        key: FragmentKey,
        packet: &Packet<'_>,
        via: Option<Ipv4Addr>,
    ) -> Result<(), DropReason> {
        if !packet.ip.more_fragments {
            return Ok(());
        }
        let route = FragmentRoute { src: packet.ip.src, dst: packet.ip.dst, via };
        self.nat.fragments.record(key, route, piece(packet), self.now)
    }

    fn hold(
        &mut self,
        network: &NetworkIndex,
        origin: Origin,
        packet: &Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        let key = fragment_key(network, origin, packet);
        let room = match origin {
            Origin::Port(_) => HEADROOM,
            Origin::Vtep(_) => vxlan::HEADER_LEN,
        };
        let range = packet.range().start - room..packet.range().end;
        self.nat.fragments.hold(key, origin, &packet.buf[range], self.now)?;
        Ok(Verdict::Held)
    }
}

fn piece(packet: &Packet<'_>) -> Piece {
    let ip = &packet.ip;
    // Checked when it was parsed: no packet exceeds 65,535 bytes.
    let [start, end] = [ip.offset, ip.offset + ip.payload_len()].map(|at| at as u16);
    Piece { start, end, is_last: !ip.more_fragments }
}

pub(super) fn fragment_key(network: &NetworkIndex, origin: Origin, packet: &Packet<'_>) -> FragmentKey {
    let from = match origin {
        Origin::Port(_) => Ipv4Addr::UNSPECIFIED,
        Origin::Vtep(vtep) => vtep,
    };
    let ip = &packet.ip;
    FragmentKey {
        vni: network.vni.as_u32(),
        from,
        src: ip.src,
        dst: ip.dst,
        id: ip.id,
        protocol: ip.protocol,
    }
}
