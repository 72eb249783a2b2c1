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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vnet::VnetHdr;
    use crate::wire::{checksum, ethernet};
    use proptest::prelude::*;

    const AT: usize = 8;

    /// A buffer with room for a VXLAN header, and a packet with right checksums.
    fn packet(protocol: u8, ends: Ends, is_partial: bool, data: &[u8]) -> Vec<u8> {
        let header_len = match protocol {
            ipv4::TCP => tcp::MIN_HEADER_LEN,
            _ => udp::HEADER_LEN,
        };
        let ip_at = AT + ethernet::HEADER_LEN;
        let payload_at = ip_at + ipv4::MIN_HEADER_LEN;
        let mut buf = vec![0; payload_at + header_len];
        buf.extend_from_slice(data);
        let total_len = buf.len() - ip_at;
        ipv4::write(&mut buf[ip_at..], protocol, total_len, ends.src, ends.dst);
        let payload = &mut buf[payload_at..];
        let place = match protocol {
            ipv4::TCP => {
                tcp::write(payload, ends.src_port, ends.dst_port, 1, 2, tcp::ACK);
                tcp::CHECKSUM
            }
            ipv4::UDP => {
                set_ports(payload, ends);
                udp::CHECKSUM
            }
            _ => {
                payload[0] = 8;
                put_u16(payload, icmpv4::IDENTIFIER, ends.src_port);
                icmpv4::finish(payload);
                return buf;
            }
        };
        let sum = if is_partial {
            checksum::pseudo_header(ends.src, ends.dst, protocol, payload.len())
        } else if protocol == ipv4::UDP {
            udp::nonzero(checksum::transport(ends.src, ends.dst, protocol, payload))
        } else {
            checksum::transport(ends.src, ends.dst, protocol, payload)
        };
        put_u16(payload, place, sum);
        buf
    }

    fn rewritten(mut buf: Vec<u8>, protocol: u8, is_partial: bool, ends: Ends) -> Vec<u8> {
        let vnet = VnetHdr {
            flags: if is_partial { VnetHdr::NEEDS_CSUM } else { 0 },
            csum_start: 34,
            csum_offset: if protocol == ipv4::TCP { 16 } else { 6 },
            ..VnetHdr::default()
        };
        let mut packet = Packet::of_port(&mut buf, AT, vnet, 65_535).unwrap();
        let transport = packet.transport().unwrap();
        rewrite(&mut packet, &transport, ends);
        buf
    }

    fn ends() -> impl Strategy<Value = Ends> {
        (any::<u32>(), any::<u16>(), any::<u32>(), any::<u16>()).prop_map(|(src, src_port, dst, dst_port)| {
            Ends { src: src.into(), src_port, dst: dst.into(), dst_port }
        })
    }

    proptest! {
        #[test]
        fn is_what_a_sender_with_those_ends_would_have_made(
            protocol in prop::sample::select(vec![ipv4::TCP, ipv4::UDP, ipv4::ICMP]),
            (from, mut to) in (ends(), ends()),
            is_partial in any::<bool>(),
            data in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let is_partial = is_partial && protocol != ipv4::ICMP;
            if protocol == ipv4::ICMP {
                to.dst_port = 0;
            }
            let sent = packet(protocol, from, is_partial, &data);
            let there = rewritten(sent.clone(), protocol, is_partial, to);
            prop_assert_eq!(&there, &packet(protocol, to, is_partial, &data));
            prop_assert_eq!(rewritten(there, protocol, is_partial, from), sent);
        }
    }
}
