//! Reading frames whose every checksum has to be right.

use super::{ETHERNET, Flags, IP, Packet, Proto, Socket, ip_at, sum, u16_at, u32_at};
use skep_dataplane::VnetHdr;
use skep_dataplane::ids::MacAddr;
use std::net::Ipv4Addr;

/// A frame as it was read: a whole packet, or a piece of one.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) src_mac: MacAddr,
    pub(crate) dst_mac: MacAddr,
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) ip_len: usize,
    pub(crate) ip_id: u16,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// One packet, or the datagrams of a super-frame.
    Packets(Vec<Packet>),
    Piece {
        offset: usize,
        more: bool,
        bytes: Vec<u8>,
    },
    /// An ICMP error: type, and the IP packet it quotes.
    Error {
        kind: u8,
        quoted: Vec<u8>,
    },
}

/// Reads a frame whose every checksum has to be right; says what is wrong with it otherwise.
pub(crate) fn read(vnet: VnetHdr, frame: &[u8]) -> Result<Frame, String> {
    if frame.len() < ETHERNET + IP || frame[12..14] != [8, 0] || frame[14] != 0x45 {
        return Err(format!("no plain IPv4: {frame:02x?}"));
    }
    let mac = |at: usize| MacAddr([0, 1, 2, 3, 4, 5].map(|n| frame[at + n]));
    let ip = &frame[ETHERNET..];
    if sum(&ip[..IP], 0) != 0xffff {
        return Err("IP checksum".into());
    }
    let len = usize::from(u16_at(ip, 2));
    if len != ip.len() {
        return Err(format!("IP length {len} in a frame of {}", ip.len()));
    }
    let fragment = u16_at(ip, 6);
    let (offset, more) = (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
    let (src, dst) = (ip_at(ip, 12), ip_at(ip, 16));
    let body = if offset > 0 || more {
        Body::Piece { offset, more, bytes: ip[IP..].to_vec() }
    } else {
        read_body(vnet, ip[9], src, dst, &ip[IP..])?
    };
    Ok(Frame { dst_mac: mac(0), src_mac: mac(6), src, dst, ip_len: len, ip_id: u16_at(ip, 4), body })
}

/// Reads what an IP packet that was put together from its pieces holds.
pub(crate) fn read_assembled(
    proto: Proto,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    bytes: &[u8],
) -> Result<Packet, String> {
    match read_body(VnetHdr::default(), proto.number(), src, dst, bytes)? {
        Body::Packets(packets) if packets.len() == 1 => Ok(packets[0].clone()),
        other => Err(format!("a packet was put together to {other:?}")),
    }
}

fn read_body(vnet: VnetHdr, number: u8, src: Ipv4Addr, dst: Ipv4Addr, bytes: &[u8]) -> Result<Body, String> {
    let proto = match number {
        1 => Proto::Ping,
        6 => Proto::Tcp,
        17 => Proto::Udp,
        _ => return Err(format!("protocol {number}")),
    };
    if bytes.len() < if proto == Proto::Tcp { 20 } else { 8 } {
        return Err("a transport header cut short".into());
    }
    if proto == Proto::Ping && !matches!(bytes[0], 0 | 8) {
        return match sum(bytes, 0) {
            0xffff => Ok(Body::Error { kind: bytes[0], quoted: bytes[8..].to_vec() }),
            _ => Err("ICMP checksum".into()),
        };
    }
    let (sport, dport) = match (proto, bytes[0]) {
        (Proto::Ping, 0) => (0, u16_at(bytes, 4)),
        (Proto::Ping, _) => (u16_at(bytes, 4), 0),
        _ => (u16_at(bytes, 0), u16_at(bytes, 2)),
    };
    let options = if proto == Proto::Tcp { usize::from(bytes[12] >> 4) * 4 - 20 } else { 0 };
    let packet = Packet {
        proto,
        src: Socket { ip: src, port: sport },
        dst: Socket { ip: dst, port: dport },
        flags: if proto == Proto::Tcp { Flags(bytes[13]) } else { Flags::default() },
        seq: if proto == Proto::Tcp { u32_at(bytes, 4) } else { 0 },
        ack: if proto == Proto::Tcp { u32_at(bytes, 8) } else { 0 },
        options,
        is_pong: proto == Proto::Ping && bytes[0] == 0,
        payload: Vec::new(),
    };
    check_sum(&packet, vnet, bytes)?;
    let payload = &bytes[packet.header_len()..];
    let datagrams = match vnet.gso_type {
        VnetHdr::GSO_UDP_L4 => payload.chunks(usize::from(vnet.gso_size)).collect(),
        _ => vec![payload],
    };
    let of = |payload: &[u8]| Packet { payload: payload.to_vec(), ..packet.clone() };
    Ok(Body::Packets(datagrams.into_iter().map(of).collect()))
}

/// A complete packet has its full checksum; one whose sum is left to us, exactly the pseudo-header's.
fn check_sum(packet: &Packet, vnet: VnetHdr, bytes: &[u8]) -> Result<(), String> {
    let proto = packet.proto;
    let pseudo = packet.pseudo(bytes.len());
    let field = u16_at(bytes, proto.checksum_at());
    if proto == Proto::Udp && usize::from(u16_at(bytes, 4)) != bytes.len() {
        return Err("UDP length".into());
    }
    if vnet.flags & VnetHdr::NEEDS_CSUM == 0 {
        let has_no_size = vnet.gso_type == VnetHdr::GSO_NONE;
        let is_right = sum(bytes, pseudo) == 0xffff && !(proto == Proto::Udp && field == 0);
        return if has_no_size && is_right { Ok(()) } else { Err(format!("{proto:?} checksum {field:04x}")) };
    }
    let place = (ETHERNET + IP, proto.checksum_at());
    if (usize::from(vnet.csum_start), usize::from(vnet.csum_offset)) != place {
        return Err(format!("the checksum's place in {vnet:?}"));
    }
    if vnet.gso_type != VnetHdr::GSO_NONE && vnet.gso_size == 0 {
        return Err("a super-frame of empty segments".into());
    }
    if field == sum(&[], pseudo) { Ok(()) } else { Err(format!("partial {proto:?} checksum {field:04x}")) }
}
