//! TCP (RFC 9293 §3.1).

use super::{put_u16, put_u32, u16_at, u32_at};

pub(crate) const MIN_HEADER_LEN: usize = 20;
pub(crate) const MAX_HEADER_LEN: usize = 60;
pub(crate) const CHECKSUM: usize = 16;
pub(crate) const SEQUENCE: usize = 4;
pub(crate) const FLAGS: usize = 13;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
/// What the last segment of several says for all of them.
pub(crate) const ENDS: u8 = FIN | PSH;
pub(crate) const URG: u8 = 0x20;
pub(crate) const CWR: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) header_len: usize,
    /// What the segment takes of the sequence space: payload, SYN and FIN.
    pub(crate) len: u32,
}

impl Segment {
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Asks for a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// The sequence number after this segment.
    pub(crate) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len)
    }
}

/// `None` if the header does not fit in `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Option<Segment> {
    if bytes.len() < MIN_HEADER_LEN {
        return None;
    }
    let header_len = usize::from(bytes[12] >> 4) * 4;
    if header_len < MIN_HEADER_LEN || header_len > bytes.len() {
        return None;
    }
    let flags = bytes[FLAGS];
    let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    Some(Segment {
        src_port: u16_at(bytes, 0),
        dst_port: u16_at(bytes, 2),
        seq: u32_at(bytes, SEQUENCE),
        ack: u32_at(bytes, 8),
        flags,
        header_len,
        len: (bytes.len() - header_len) as u32 + control,
    })
}

/// Writes a segment without options or payload; its checksum is left zero.
pub(crate) fn write(bytes: &mut [u8], src_port: u16, dst_port: u16, seq: u32, ack: u32, flags: u8) {
    bytes[..MIN_HEADER_LEN].fill(0);
    put_u16(bytes, 0, src_port);
    put_u16(bytes, 2, dst_port);
    put_u32(bytes, SEQUENCE, seq);
    put_u32(bytes, 8, ack);
    bytes[12] = 5 << 4;
    bytes[FLAGS] = flags;
}
