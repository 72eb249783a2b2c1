//! [`Pass`]: one frame's way through the switch.
//!
//! ```text
//! from a port   guard ─▶ ARP answered
//!                     └▶ size, destination ─▶ gateway ─▶ VIP / endpoint / off-subnet ─▶ hop
//! from a VTEP   tunnel ─▶ guard ─▶ endpoint / ingress task / ingress answer ─▶ hop
//! ```

mod gateway;
mod guard;
mod hop;
mod ingress;
mod neigh;
mod path;
mod reply;
mod reset;
mod target;

use crate::answers::Answers;
use crate::counters::Counters;
use crate::engine::{HEADROOM, Output};
use crate::ids::PortId;
use crate::index::{Index, NetworkIndex};
use crate::mss;
use crate::nat::Nat;
use crate::packet::Packet;
use crate::seal::Seals;
use crate::snapshot::{Endpoint, Location, Policy};
use crate::tunnel::{self, Underlay};
use crate::verdict::{DropReason, Verdict};
use crate::wire::icmpv4::Error;
use crate::wire::sealed::{self, Marks};
use crate::wire::vnet::VnetHdr;
use crate::wire::{ethernet, vxlan};
use reply::Quote;
use std::net::Ipv4Addr;

/// The engine's parts, borrowed for one frame.
pub(crate) struct Pass<'a, O> {
    pub(crate) index: &'a Index,
    pub(crate) nat: &'a mut Nat,
    pub(crate) counters: &'a mut Counters,
    pub(crate) answers: &'a mut Answers,
    pub(crate) seals: &'a mut Seals,
    /// Milliseconds since the engine's epoch.
    pub(crate) now: u64,
    pub(crate) out: &'a mut O,
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Port(PortId),
    Vtep(Ipv4Addr),
}

impl<'a, O: Output> Pass<'a, O> {
    /// `buf[HEADROOM..]` is what the port sent.
    pub(crate) fn frame(&mut self, port: PortId, vnet: VnetHdr, buf: &mut [u8]) {
        if let Some(seat) = self.index.seat(port) {
            self.counters.port_sent(seat.at, buf.len().saturating_sub(HEADROOM));
        }
        let result = self.switch_frame(port, vnet, buf);
        self.settle(result);
    }

    /// A fragment that was held, in the buffer it came in.
    pub(crate) fn held_frame(&mut self, port: PortId, buf: &mut [u8]) {
        let result = self.switch_frame(port, VnetHdr::default(), buf);
        self.settle(result);
    }

    /// `buf` is a plain datagram's whole payload, of the network with this VNI.
    pub(crate) fn plain(&mut self, from: Ipv4Addr, vni: u32, buf: &mut [u8]) {
        let result = tunnel::of_plain(self.index, from, vni)
            .and_then(|network| self.switch_peers(network, from, buf, vxlan::HEADER_LEN, None));
        self.settle_peers(from, result);
    }

    /// `buf` is an opened datagram up to its frame's end.
    pub(crate) fn opened(&mut self, from: Ipv4Addr, vni: u32, marks: Marks, buf: &mut [u8]) {
        let result = tunnel::of_sealed(self.index, from, vni, marks)
            .and_then(|network| self.switch_peers(network, from, buf, sealed::FRAME_AT, Some(marks)));
        self.settle_peers(from, result);
    }

    /// A peer's fragment that was held, behind room for a VXLAN header. It was let in when it came.
    pub(crate) fn held_datagram(&mut self, from: Ipv4Addr, vni: u32, buf: &mut [u8]) {
        let network = self.index.network(vni).filter(|network| network.has_vtep(from));
        let result = network.ok_or(DropReason::UnknownVtep).and_then(|network| {
            let marks = Marks { partial: None, ingress: network.ingress };
            let marks = (network.policy == Policy::Sealed).then_some(marks);
            self.switch_peers(network, from, buf, vxlan::HEADER_LEN, marks)
        });
        self.settle_peers(from, result);
    }

    /// The way to the underlay.
    fn underlay(&mut self) -> Underlay<'_, O> {
        Underlay { seals: self.seals, counters: self.counters, now: self.now, out: self.out }
    }

    fn settle_peers(&mut self, from: Ipv4Addr, result: Result<Verdict, DropReason>) {
        if let Err(reason) = result {
            self.seals.blame(from, reason);
        }
        self.settle(result);
    }

    fn settle(&mut self, result: Result<Verdict, DropReason>) {
        match result {
            Ok(Verdict::Deliver(_) | Verdict::Encapsulate(_) | Verdict::Answered | Verdict::Held) => {}
            Err(reason) => self.counters.dropped(reason),
        }
    }

    fn switch_frame(&mut self, port: PortId, vnet: VnetHdr, buf: &mut [u8]) -> Result<Verdict, DropReason> {
        let seat = self.index.seat(port).ok_or(DropReason::UnknownPort)?;
        let (network, sender) = self.index.seated(seat);
        let frame = buf.get_mut(HEADROOM..).ok_or(DropReason::Truncated)?;
        if frame.len() < ethernet::HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        guard::mac(sender, frame)?;
        match ethernet::ethertype(frame) {
            ethernet::ARP => return self.answer_port(network, sender, port, frame),
            ethernet::IPV4 => {}
            ethernet::IPV6 => return Err(DropReason::Ipv6),
            _ => return Err(DropReason::UnknownEthertype),
        }
        guard::not_group(frame)?;
        let mut packet = Packet::of_port(buf, HEADROOM, vnet, network.mtu)?;
        guard::source(self.index, network, sender, packet.ip.src)?;
        if packet.ip.ttl == 0 {
            return Err(DropReason::TtlZero);
        }
        if packet.ip.dont_fragment && packet.largest() > packet.limit {
            let error = Error::FragmentationNeeded(u16::try_from(packet.limit).unwrap_or(u16::MAX));
            self.icmp_error(port, &packet, network.gateway, error);
            return Err(DropReason::FragmentationNeeded);
        }
        // What the sender would be told is of the packet as it sent it.
        let quote = self.is_narrow_for(network, &packet).then(|| Quote::of(&packet));
        let verdict = self.forward(network, sender, port, &mut packet)?;
        if let (Verdict::Encapsulate(vtep), Some(quote)) = (verdict, &quote) {
            self.fit_path(network, port, &mut packet, vtep, quote)?;
        }
        self.carry_out(network, verdict, packet);
        Ok(verdict)
    }

    /// A peer's frame, at `buf[start..]`. `marks` are of a sealed one.
    fn switch_peers(
        &mut self,
        network: &NetworkIndex,
        from: Ipv4Addr,
        buf: &mut [u8],
        start: usize,
        marks: Option<Marks>,
    ) -> Result<Verdict, DropReason> {
        let frame = &mut buf[start..];
        if frame.len() < ethernet::HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        let sender = guard::peer(network, from, frame)?;
        match ethernet::ethertype(frame) {
            ethernet::ARP => return self.answer_vtep(network, sender, from, buf, start),
            ethernet::IPV4 => {}
            ethernet::IPV6 => return Err(DropReason::Ipv6),
            _ => return Err(DropReason::UnknownEthertype),
        }
        guard::not_group(frame)?;
        let mut packet = match marks {
            Some(marks) => Packet::of_sealed(buf, start, marks.partial)?,
            None => Packet::of_peer(buf, start, network.mtu)?,
        };
        guard::source(self.index, network, sender, packet.ip.src)?;
        if packet.ip.ttl == 0 {
            return Err(DropReason::TtlZero);
        }
        // The answer to a SYN has to fit the way back.
        mss::clamp(&mut packet, tunnel::path_limit(self.seals, network, from));
        let verdict = self.arrive(network, sender, from, &mut packet)?;
        // Split horizon: what came from the underlay never returns to it.
        if matches!(verdict, Verdict::Encapsulate(_)) {
            return Err(DropReason::NotLocal);
        }
        self.carry_out(network, verdict, packet);
        Ok(verdict)
    }

    /// A packet of a peer's endpoint, to an endpoint of this node.
    fn arrive(
        &mut self,
        network: &NetworkIndex,
        sender: &Endpoint,
        from: Ipv4Addr,
        packet: &mut Packet<'_>,
    ) -> Result<Verdict, DropReason> {
        let receiver = guard::here(network, packet)?;
        if network.ingress {
            return self.arrive_by_ingress(network, sender, receiver, from, packet);
        }
        if packet.ip.dst != receiver.ip {
            return Err(DropReason::WrongDestination);
        }
        self.reach_endpoint(network, Origin::Vtep(from), receiver, packet)
    }

    /// Does what a verdict says.
    fn carry_out(&mut self, network: &NetworkIndex, verdict: Verdict, packet: Packet<'_>) {
        match verdict {
            Verdict::Deliver(port) => self.deliver(port, packet),
            Verdict::Encapsulate(vtep) => self.underlay().encapsulate(network, packet, vtep),
            Verdict::Answered | Verdict::Held => {}
        }
    }
}

/// Where an endpoint is, as a verdict.
fn towards(endpoint: &Endpoint) -> Verdict {
    match endpoint.location {
        Location::Local(port) => Verdict::Deliver(port),
        Location::Remote(vtep) => Verdict::Encapsulate(vtep),
    }
}
