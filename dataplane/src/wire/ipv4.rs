//! IPv4 (RFC 791).

use super::checksum::{self, Delta};
use super::{ip_at, put_ip, put_u16, tcp, u16_at};
use crate::verdict::DropReason;
use std::net::Ipv4Addr;

pub(crate) const MIN_HEADER_LEN: usize = 20;
pub(crate) const MAX_HEADER_LEN: usize = 60;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// A header that was checked: it is as long as it says, and so is the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes, options included.
    pub(crate) header_len: usize,
    /// Bytes, header included.
    pub(crate) total_len: usize,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) more_fragments: bool,
    /// Bytes of the original's payload before this fragment's.
    pub(crate) offset: usize,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
}

impl Header {
    pub(crate) fn is_fragment(&self) -> bool {
        self.more_fragments || self.offset > 0
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.total_len - self.header_len
    }
}

pub(crate) fn parse(packet: &[u8]) -> Result<Header, DropReason> {
    let header = parse_quoted(packet)?;
    if header.total_len > packet.len() {
        return Err(DropReason::Truncated);
    }
    if checksum::sum(&packet[..header.header_len]) != 0xffff {
        return Err(DropReason::IpChecksum);
    }
    // RFC 791 §3.2: all fragments but the last carry a multiple of 8 bytes, and no packet exceeds 65,535.
    // RFC 1858 §3.2: a TCP header in pieces hides its flags, or a later piece overwrites them.
    let payload_len = header.payload_len();
    let cuts_tcp = header.protocol == TCP && (1..tcp::MIN_HEADER_LEN).contains(&header.offset);
    if header.is_fragment()
        && (payload_len == 0
            || cuts_tcp
            || header.more_fragments && payload_len % 8 != 0
            || header.header_len + header.offset + payload_len > usize::from(u16::MAX))
    {
        return Err(DropReason::FragmentMalformed);
    }
    Ok(header)
}

/// A header quoted in an ICMP error: its packet may be cut short, and routers have been known to
/// quote a header whose checksum no longer fits.
pub(crate) fn parse_quoted(packet: &[u8]) -> Result<Header, DropReason> {
    if packet.len() < MIN_HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let total_len = usize::from(u16_at(packet, 2));
    if packet[0] >> 4 != 4 || header_len < MIN_HEADER_LEN || total_len < header_len {
        return Err(DropReason::IpHeader);
    }
    if packet.len() < header_len {
        return Err(DropReason::Truncated);
    }
    let fragment = u16_at(packet, 6);
    Ok(Header {
        header_len,
        total_len,
        id: u16_at(packet, 4),
        dont_fragment: fragment & DONT_FRAGMENT != 0,
        more_fragments: fragment & MORE_FRAGMENTS != 0,
        offset: usize::from(fragment & 0x1fff) * 8,
        ttl: packet[8],
        protocol: packet[9],
        src: ip_at(packet, 12),
        dst: ip_at(packet, 16),
    })
}

/// Replaces both addresses and keeps the header checksum right.
pub(crate) fn set_addresses(packet: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr) {
    let delta = Delta::default().ip(ip_at(packet, 12), src).ip(ip_at(packet, 16), dst);
    put_u16(packet, 10, delta.full(u16_at(packet, 10)));
    put_ip(packet, 12, src);
    put_ip(packet, 16, dst);
}

/// One hop less to live. The TTL must not be zero.
pub(crate) fn decrement_ttl(packet: &mut [u8]) {
    let old = u16_at(packet, 8);
    let new = old - 0x0100;
    put_u16(packet, 8, new);
    put_u16(packet, 10, Delta::default().word(old, new).full(u16_at(packet, 10)));
}

/// Sets length and identification, and sums the header anew.
pub(crate) fn set_len_and_id(packet: &mut [u8], header_len: usize, total_len: usize, id: u16) {
    put_u16(packet, 2, total_len as u16);
    put_u16(packet, 4, id);
    finish(packet, header_len);
}

/// Sets length and place of a fragment, and sums the header anew. `offset` is a multiple of 8 bytes.
pub(crate) fn set_fragment(
    packet: &mut [u8],
    header_len: usize,
    total_len: usize,
    offset: usize,
    more: bool,
) {
    put_u16(packet, 2, total_len as u16);
    put_u16(packet, 6, (offset / 8) as u16 | if more { MORE_FRAGMENTS } else { 0 });
    finish(packet, header_len);
}

/// Writes a header without options, for a packet the engine sends itself.
pub(crate) fn write(packet: &mut [u8], protocol: u8, total_len: usize, src: Ipv4Addr, dst: Ipv4Addr) {
    packet[..MIN_HEADER_LEN].fill(0);
    packet[0] = 0x45;
    put_u16(packet, 2, total_len as u16);
    // RFC 6864 §4.1: an atomic datagram needs no identification.
    put_u16(packet, 6, DONT_FRAGMENT);
    packet[8] = 64;
    packet[9] = protocol;
    put_ip(packet, 12, src);
    put_ip(packet, 16, dst);
    finish(packet, MIN_HEADER_LEN);
}

/// Sums the header anew.
pub(crate) fn finish(packet: &mut [u8], header_len: usize) {
    put_u16(packet, 10, 0);
    let checksum = checksum::of(&packet[..header_len]);
    put_u16(packet, 10, checksum);
}
