//! Giving a packet other ends, with every checksum that covers them.

use super::flow::Ends;
use crate::packet::{Packet, Transport};
use crate::wire::checksum::Delta;
use crate::wire::{icmpv4, ipv4, put_u16, tcp, u16_at, udp};
use std::net::Ipv4Addr;

/// Replaces addresses and ports. A checksum that was wrong stays wrong by as much.
pub(crate) fn rewrite(packet: &mut Packet<'_>, transport: &Transport, ends: Ends) {
    let addresses = Delta::default().ip(packet.ip.src, ends.src).ip(packet.ip.dst, ends.dst);
    set_addresses(packet, ends.src, ends.dst);
    let is_partial = packet.offload.is_partial();
    let payload = packet.payload_mut();
    match transport {
        Transport::Tcp(segment) => {
            let ports = addresses.word(segment.src_port, ends.src_port).word(segment.dst_port, ends.dst_port);
            set_ports(payload, ends);
            let old = u16_at(payload, tcp::CHECKSUM);
            let new = if is_partial { addresses.partial(old) } else { ports.full(old) };
            put_u16(payload, tcp::CHECKSUM, new);
        }
        Transport::Udp { src_port, dst_port } => {
            let ports = addresses.word(*src_port, ends.src_port).word(*dst_port, ends.dst_port);
            set_ports(payload, ends);
            let old = u16_at(payload, udp::CHECKSUM);
            let new = match old {
                _ if is_partial => addresses.partial(old),
                // RFC 768: no checksum was made, so there is none to keep right.
                0 => 0,
                _ => udp::nonzero(ports.full(old)),
            };
            put_u16(payload, udp::CHECKSUM, new);
        }
        Transport::Ping { id } => set_identifier(payload, *id, ends.src_port),
        Transport::Pong { id } => set_identifier(payload, *id, ends.dst_port),
        Transport::IcmpError | Transport::Other => {}
    }
}

/// Replaces the addresses of a packet whose transport header is elsewhere, or covers no addresses.
pub(crate) fn set_addresses(packet: &mut Packet<'_>, src: Ipv4Addr, dst: Ipv4Addr) {
    ipv4::set_addresses(packet.ip_bytes_mut(), src, dst);
    packet.ip.src = src;
    packet.ip.dst = dst;
}

fn set_ports(header: &mut [u8], ends: Ends) {
    put_u16(header, 0, ends.src_port);
    put_u16(header, 2, ends.dst_port);
}

/// ICMP's checksum covers no pseudo-header (RFC 792).
fn set_identifier(message: &mut [u8], old: u16, new: u16) {
    put_u16(message, icmpv4::IDENTIFIER, new);
    let checksum = Delta::default().word(old, new).full(u16_at(message, icmpv4::CHECKSUM));
    put_u16(message, icmpv4::CHECKSUM, checksum);
}
