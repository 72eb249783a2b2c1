//! What the engine says itself: resets and ICMP errors, to whoever sent what cannot go on.

use super::Pass;
use super::reset::Reset;
use crate::engine::Output;
use crate::ids::{MacAddr, PortId};
use crate::nat::flow::Ends;
use crate::packet::{Packet, Transport};
use crate::verdict::DropReason;
use crate::wire::icmpv4::{self, Error, Message};
use crate::wire::tcp::Segment;
use crate::wire::vnet::VnetHdr;
use crate::wire::{ethernet, ipv4, tcp};
use std::net::Ipv4Addr;

/// RFC 1812 §4.3.2.3: an error quotes as much as fits without exceeding 576 bytes.
const MAX_ERROR_LEN: usize = 576;
const MAX_QUOTE_LEN: usize = MAX_ERROR_LEN - ipv4::MIN_HEADER_LEN - icmpv4::HEADER_LEN;

const IP_AT: usize = ethernet::HEADER_LEN;
const PAYLOAD_AT: usize = IP_AT + ipv4::MIN_HEADER_LEN;

/// What an ICMP error says of the packet it is about.
pub(super) struct Quote {
    src: Ipv4Addr,
    src_mac: MacAddr,
    dst_mac: MacAddr,
    may_be_answered: bool,
    bytes: [u8; MAX_QUOTE_LEN],
    len: usize,
}

impl Quote {
    pub(super) fn of(packet: &Packet<'_>) -> Self {
        let mut bytes = [0; MAX_QUOTE_LEN];
        let len = packet.ip.total_len.min(MAX_QUOTE_LEN);
        bytes[..len].copy_from_slice(&packet.ip_bytes()[..len]);
        Self {
            src: packet.ip.src,
            src_mac: packet.src_mac(),
            dst_mac: packet.dst_mac(),
            may_be_answered: packet.ip.offset == 0 && !is_error(packet),
            bytes,
            len,
        }
    }
}

/// RFC 1122 §3.2.2: no error is ever about an error. Of ICMP, only the queries known here are none.
fn is_error(packet: &Packet<'_>) -> bool {
    let is_query = || {
        let message = icmpv4::parse(packet.payload());
        matches!(message, Some(Message::EchoRequest { .. } | Message::EchoReply { .. }))
    };
    packet.ip.protocol == ipv4::ICMP && !is_query()
}

impl<O: Output> Pass<'_, O> {
    /// Tells the sender that its packet goes nowhere: a reset for TCP, an ICMP error for the rest.
    /// Nothing answers a reset, a ping or an error. Returns `reason`, for the drop to be counted.
    pub(super) fn refuse(
        &mut self,
        port: PortId,
        packet: &Packet<'_>,
        speaker: Ipv4Addr,
        transport: &Transport,
        reason: DropReason,
    ) -> DropReason {
        match (transport, reason) {
            // A full table is no statement about the service: the client tries again.
            (_, DropReason::FlowTableFull | DropReason::FlowShare | DropReason::ClientPortsExhausted) => {}
            (Transport::Tcp(segment), _) => self.reset(port, packet, segment),
            (Transport::IcmpError, _) => {}
            (_, DropReason::NoRoute) => self.icmp_error(port, packet, speaker, Error::NetUnreachable),
            (Transport::Udp { .. }, _) => self.icmp_error(port, packet, speaker, Error::PortUnreachable),
            (Transport::Ping { .. } | Transport::Pong { .. } | Transport::Other, _) => {}
        }
        reason
    }

    /// RFC 9293 §3.10.7.1: a reset that the sender of `segment` accepts.
    fn reset(&mut self, port: PortId, packet: &Packet<'_>, segment: &Segment) {
        if segment.has(tcp::RST) || !self.may_answer(port) {
            return;
        }
        let (seq, ack, flags) = if segment.has(tcp::ACK) {
            (segment.ack, 0, tcp::RST)
        } else {
            (0, segment.end(), tcp::RST | tcp::ACK)
        };
        let reset = Reset {
            src_mac: packet.dst_mac(),
            dst_mac: packet.src_mac(),
            ends: Ends {
                src: packet.ip.dst,
                src_port: segment.dst_port,
                dst: packet.ip.src,
                dst_port: segment.src_port,
            },
            seq,
            ack,
            flags,
        };
        self.write(port, VnetHdr::default(), &reset.frame());
    }

    pub(super) fn icmp_error(&mut self, port: PortId, packet: &Packet<'_>, speaker: Ipv4Addr, error: Error) {
        self.tell(port, &Quote::of(packet), speaker, error);
    }

    pub(super) fn tell(&mut self, port: PortId, quote: &Quote, speaker: Ipv4Addr, error: Error) {
        if !quote.may_be_answered || !self.may_answer(port) {
            return;
        }
        let mut frame = [0; ethernet::HEADER_LEN + MAX_ERROR_LEN];
        let end = PAYLOAD_AT + icmpv4::HEADER_LEN + quote.len;
        frame[PAYLOAD_AT + icmpv4::HEADER_LEN..end].copy_from_slice(&quote.bytes[..quote.len]);
        icmpv4::write_error(&mut frame[PAYLOAD_AT..end], error);
        ipv4::write(&mut frame[IP_AT..], ipv4::ICMP, end - IP_AT, speaker, quote.src);
        ethernet::write(&mut frame, quote.src_mac, quote.dst_mac, ethernet::IPV4);
        self.write(port, VnetHdr::default(), &frame[..end]);
    }

    fn may_answer(&mut self, port: PortId) -> bool {
        let may = self.index.seat(port).is_some_and(|seat| self.answers.allow(seat.at, self.now));
        if !may {
            self.counters.dropped(DropReason::AnswerSuppressed);
        }
        may
    }
}
