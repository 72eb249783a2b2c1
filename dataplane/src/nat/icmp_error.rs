//! ICMP errors about translated packets (RFC 5508 §4): the packet an error quotes is put back to what
//! its sender had sent, and the error's own addresses with it.

use super::flow::{Direction, Ends, Flow, Tuple};
use super::rewrite::set_addresses;
use crate::packet::Packet;
use crate::snapshot::L4;
use crate::verdict::DropReason;
use crate::wire::checksum::Delta;
use crate::wire::ipv4::{self, Header};
use crate::wire::{checksum, icmpv4, put_u16, tcp, u16_at, udp};
use std::net::Ipv4Addr;

/// The packet an error is about, as its quotation shows it.
#[derive(Clone, Copy)]
pub(crate) struct Quoted {
    ip: Header,
    src_port: u16,
    dst_port: u16,
}

impl Quoted {
    /// Reads the quotation of an ICMP error. `Ok(None)`: about something that has no flow.
    pub(crate) fn parse(packet: &Packet<'_>) -> Result<Option<Self>, DropReason> {
        let message = packet.payload();
        // The message is summed anew after the change, which must not hide that it arrived broken.
        if checksum::sum(message) != 0xffff {
            return Err(DropReason::TransportMalformed);
        }
        let quotation = &message[icmpv4::HEADER_LEN..];
        let ip = ipv4::parse_quoted(quotation).map_err(|_| DropReason::TransportMalformed)?;
        let header = &quotation[ip.header_len..];
        // RFC 792 promises 64 bits of the original datagram's data.
        if ip.offset > 0 || header.len() < 8 {
            return Ok(None);
        }
        let (src_port, dst_port) = match ip.protocol {
            ipv4::TCP | ipv4::UDP => (u16_at(header, 0), u16_at(header, 2)),
            ipv4::ICMP => match icmpv4::parse(header) {
                Some(icmpv4::Message::EchoRequest { id }) => (id, 0),
                Some(icmpv4::Message::EchoReply { id }) => (0, id),
                Some(icmpv4::Message::Error | icmpv4::Message::Other) | None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(Self { ip, src_port, dst_port }))
    }

    /// The quoted packet's tuple.
    pub(crate) fn tuple(&self, vni: u32) -> Tuple {
        Tuple {
            vni,
            protocol: self.ip.protocol,
            src: self.ip.src,
            src_port: self.src_port,
            dst: self.ip.dst,
            dst_port: self.dst_port,
        }
    }

    /// The published port the quoted packet went to.
    pub(crate) fn published_port(&self) -> Option<(L4, u16)> {
        match self.ip.protocol {
            ipv4::TCP => Some((L4::Tcp, self.dst_port)),
            ipv4::UDP => Some((L4::Udp, self.dst_port)),
            _ => None,
        }
    }

    /// Makes the quotation what the receiver of the error had sent. `direction` is the error's own: a
    /// reverse one travels to the client and quotes a packet that went forward.
    pub(crate) fn translate(&self, packet: &mut Packet<'_>, flow: &Flow, direction: Direction) {
        let sent = flow.translated(direction);
        // The quoted packet went the other way, so its ends are the other way round.
        let quoted = Ends { src: sent.dst, src_port: sent.dst_port, dst: sent.src, dst_port: sent.src_port };
        // A router on the way speaks for itself; the other end of the flow speaks as the flow's.
        let from_end = match direction {
            Direction::Reverse => packet.ip.src == flow.backend,
            Direction::Forward => packet.ip.src == flow.client,
        };
        let src = if from_end { sent.src } else { packet.ip.src };
        self.rewrite(packet, src, sent.dst, quoted);
    }

    /// Without a flow: a backend's error that goes back out of the ingress it came in by.
    pub(crate) fn show_vip(&self, packet: &mut Packet<'_>, vip: Ipv4Addr) {
        let quoted = Ends { src: self.ip.src, src_port: self.src_port, dst: vip, dst_port: self.dst_port };
        let dst = packet.ip.dst;
        self.rewrite(packet, vip, dst, quoted);
    }

    fn rewrite(&self, packet: &mut Packet<'_>, src: Ipv4Addr, dst: Ipv4Addr, quoted: Ends) {
        set_addresses(packet, src, dst);
        let message = packet.payload_mut();
        let quotation = &mut message[icmpv4::HEADER_LEN..];
        ipv4::set_addresses(quotation, quoted.src, quoted.dst);
        let delta = Delta::default().ip(self.ip.src, quoted.src).ip(self.ip.dst, quoted.dst);
        self.rewrite_transport(&mut quotation[self.ip.header_len..], delta, quoted);
        icmpv4::finish(message);
    }

    fn rewrite_transport(&self, header: &mut [u8], addresses: Delta, quoted: Ends) {
        let ports =
            |delta: Delta| delta.word(self.src_port, quoted.src_port).word(self.dst_port, quoted.dst_port);
        let (place, delta) = match self.ip.protocol {
            ipv4::TCP => (tcp::CHECKSUM, ports(addresses)),
            ipv4::UDP => (udp::CHECKSUM, ports(addresses)),
            _ => {
                // An echo: one of the ports is the identifier, the other one zero on both sides.
                put_u16(header, icmpv4::IDENTIFIER, quoted.src_port | quoted.dst_port);
                let delta = ports(Delta::default());
                put_u16(header, icmpv4::CHECKSUM, delta.full(u16_at(header, icmpv4::CHECKSUM)));
                return;
            }
        };
        put_u16(header, 0, quoted.src_port);
        put_u16(header, 2, quoted.dst_port);
        // TCP's checksum is past the 64 bits that every quotation has.
        if header.len() >= place + 2 {
            let old = u16_at(header, place);
            let is_udp = self.ip.protocol == ipv4::UDP;
            let new = match old {
                0 if is_udp => 0,
                _ if is_udp => udp::nonzero(delta.full(old)),
                _ => delta.full(old),
            };
            put_u16(header, place, new);
        }
    }
}
