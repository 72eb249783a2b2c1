//! ARP, answered from the snapshot (RFC 826). Nothing is asked, learned or flooded.

use super::{Pass, guard};
use crate::engine::Output;
use crate::ids::{MacAddr, PortId};
use crate::index::{NetworkIndex, Target};
use crate::snapshot::{Endpoint, Location};
use crate::verdict::{DropReason, Verdict};
use crate::wire::arp::{self, Arp};
use crate::wire::vnet::VnetHdr;
use crate::wire::{ethernet, vxlan};
use std::net::Ipv4Addr;

const FRAME_LEN: usize = ethernet::HEADER_LEN + arp::LEN;

impl<O: Output> Pass<'_, O> {
    pub(super) fn answer_port(
        &mut self,
        network: &NetworkIndex,
        sender: &Endpoint,
        port: PortId,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let question = question(frame)?;
        guard::source(self.index, network, sender, question.sender)?;
        if question.sender_mac != sender.mac {
            return Err(DropReason::SpoofedMac);
        }
        if question.target == sender.ip {
            return Err(DropReason::ArpGratuitous);
        }
        let mac = match network.by_ip(question.target).ok_or(DropReason::ArpUnknownAddress)? {
            Target::Endpoint(at) => network.endpoints[at].mac,
            Target::Vip(at) => MacAddr::for_ip(network.services[at].vip),
            Target::Gateway => network.gateway_mac,
        };
        answer(frame, &question, mac);
        self.write(port, VnetHdr::default(), &frame[..FRAME_LEN]);
        Ok(Verdict::Answered)
    }

    /// A peer that floods its questions, as a kernel vxlan device does, is told about the endpoints of
    /// this node only. Its frame begins at `start`, behind room for a VXLAN header.
    pub(super) fn answer_vtep(
        &mut self,
        network: &NetworkIndex,
        sender: &Endpoint,
        from: Ipv4Addr,
        datagram: &mut [u8],
        start: usize,
    ) -> Result<Verdict, DropReason> {
        let frame = &mut datagram[start..];
        let question = question(frame)?;
        if question.sender != sender.ip || question.sender_mac != sender.mac {
            return Err(DropReason::SpoofedSource);
        }
        let endpoint = network.endpoint(question.target).ok_or(DropReason::ArpUnknownAddress)?;
        if matches!(endpoint.location, Location::Remote(_)) {
            return Err(DropReason::NotLocal);
        }
        answer(frame, &question, endpoint.mac);
        // An answer goes back the way, and under the policy, the question came.
        let answer = &mut datagram[start - vxlan::HEADER_LEN..start + FRAME_LEN];
        self.underlay().encapsulate_answer(network, answer, from);
        Ok(Verdict::Answered)
    }
}

fn question(frame: &[u8]) -> Result<Arp, DropReason> {
    let arp = arp::parse(&frame[ethernet::HEADER_LEN..]).ok_or(DropReason::ArpMalformed)?;
    if !arp.is_request {
        return Err(DropReason::ArpUnsolicited);
    }
    if arp.sender.is_unspecified() {
        return Err(DropReason::ArpProbe);
    }
    if arp.sender == arp.target {
        return Err(DropReason::ArpGratuitous);
    }
    Ok(arp)
}

fn answer(frame: &mut [u8], question: &Arp, mac: MacAddr) {
    ethernet::set_dst(frame, question.sender_mac);
    ethernet::set_src(frame, mac);
    arp::answer(&mut frame[ethernet::HEADER_LEN..], question, mac);
}
