//! Packets as a kernel would make and check them, in code that shares nothing with the engine's: every checksum is
//! summed whole, a word at a time.

mod read;

pub(crate) use read::{Body, Frame, read, read_assembled};
use skep_dataplane::VnetHdr;
use skep_dataplane::ids::MacAddr;
use std::net::Ipv4Addr;
use std::ops::BitOr;

const ETHERNET: usize = 14;
const IP: usize = 20;

/// A transport and its ports; a ping has its identifier as the asker's port, and 0 as the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    Ping,
}

impl Proto {
    fn number(self) -> u8 {
        match self {
            Self::Ping => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum is in the header.
    fn checksum_at(self) -> usize {
        match self {
            Self::Ping => 2,
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const FIN: Self = Self(0x01);
    pub(crate) const SYN: Self = Self(0x02);
    pub(crate) const RST: Self = Self(0x04);
    pub(crate) const PSH: Self = Self(0x08);
    pub(crate) const ACK: Self = Self(0x10);

    pub(crate) fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Asks for a connection.
    pub(crate) fn opens(self) -> bool {
        self.has(Self::SYN) && !self.has(Self::ACK)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Socket {
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
}

/// What one packet says of itself, down to its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) proto: Proto,
    pub(crate) src: Socket,
    pub(crate) dst: Socket,
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// Bytes of TCP options: a timestamp, 12, or none.
    pub(crate) options: usize,
    /// Is a ping's answer.
    pub(crate) is_pong: bool,
    pub(crate) payload: Vec<u8>,
}

/// How the sender hands a packet over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    Whole,
    /// The checksum is the device's business.
    Unsummed,
    /// Segments or datagrams of this many bytes are the device's business.
    Super(u16),
    /// In pieces of at most this many bytes of IP payload, by the sender itself.
    Pieces(usize),
}

impl Packet {
    /// The frames that `sending` makes of it, with their virtio headers.
    pub(crate) fn frames(
        &self,
        src_mac: MacAddr,
        dst_mac: MacAddr,
        id: u16,
        sending: Sending,
    ) -> Vec<(VnetHdr, Vec<u8>)> {
        let is_partial = matches!(sending, Sending::Unsummed | Sending::Super(_));
        let segment = self.segment(is_partial);
        let whole = |offset, more, part: &[u8]| {
            let mut frame = Vec::with_capacity(ETHERNET + IP + part.len());
            frame.extend(dst_mac.0);
            frame.extend(src_mac.0);
            frame.extend([8, 0]);
            frame.extend(self.ip_header(id, offset, more, part.len()));
            frame.extend(part);
            frame
        };
        let Sending::Pieces(size) = sending else {
            return vec![(self.vnet(sending), whole(0, false, &segment))];
        };
        let size = size & !7;
        let parts = segment.chunks(size).enumerate();
        parts
            .map(|(nth, part)| {
                let more = (nth + 1) * size < segment.len();
                (VnetHdr::default(), whole(nth * size, more, part))
            })
            .collect()
    }

    pub(crate) fn header_len(&self) -> usize {
        match self.proto {
            Proto::Tcp => 20 + self.options,
            Proto::Udp | Proto::Ping => 8,
        }
    }

    fn vnet(&self, sending: Sending) -> VnetHdr {
        let (gso_type, gso_size) = match sending {
            Sending::Whole | Sending::Pieces(_) => return VnetHdr::default(),
            Sending::Unsummed => (VnetHdr::GSO_NONE, 0),
            Sending::Super(size) if self.proto == Proto::Tcp => (VnetHdr::GSO_TCPV4, size),
            Sending::Super(size) => (VnetHdr::GSO_UDP_L4, size),
        };
        VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            gso_type,
            hdr_len: (ETHERNET + IP + self.header_len()) as u16,
            gso_size,
            csum_start: (ETHERNET + IP) as u16,
            csum_offset: self.proto.checksum_at() as u16,
        }
    }

    fn ip_header(&self, id: u16, offset: usize, more: bool, len: usize) -> [u8; IP] {
        let mut header = [0; IP];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&((IP + len) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&id.to_be_bytes());
        let fragment = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        header[6..8].copy_from_slice(&fragment.to_be_bytes());
        header[8] = 64;
        header[9] = self.proto.number();
        header[12..16].copy_from_slice(&self.src.ip.octets());
        header[16..20].copy_from_slice(&self.dst.ip.octets());
        let checksum = !sum(&header, 0);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn segment(&self, is_partial: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_len() + self.payload.len());
        match self.proto {
            Proto::Tcp => {
                bytes.extend(self.src.port.to_be_bytes());
                bytes.extend(self.dst.port.to_be_bytes());
                bytes.extend(self.seq.to_be_bytes());
                bytes.extend(self.ack.to_be_bytes());
                bytes.extend([((5 + self.options / 4) << 4) as u8, self.flags.0, 0xff, 0xff, 0, 0, 0, 0]);
                if self.options == 12 {
                    // RFC 7323 §3.2 and appendix A: two no-operations, then a timestamp.
                    bytes.extend([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9]);
                }
            }
            Proto::Udp => {
                bytes.extend(self.src.port.to_be_bytes());
                bytes.extend(self.dst.port.to_be_bytes());
                bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            Proto::Ping => {
                let identifier = self.src.port | self.dst.port;
                bytes.extend([if self.is_pong { 0 } else { 8 }, 0, 0, 0]);
                bytes.extend(identifier.to_be_bytes());
                bytes.extend([0, 1]);
            }
        }
        bytes.extend(&self.payload);
        let pseudo = self.pseudo(bytes.len());
        let mut checksum = if is_partial { sum(&[], pseudo) } else { !sum(&bytes, pseudo) };
        if checksum == 0 && self.proto == Proto::Udp && !is_partial {
            checksum = 0xffff; // RFC 768
        }
        let at = self.proto.checksum_at();
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The sum of the pseudo-header, not folded; ICMP has none.
    fn pseudo(&self, len: usize) -> u32 {
        if self.proto == Proto::Ping {
            return 0;
        }
        let halves = |ip: Ipv4Addr| (ip.to_bits() >> 16) + (ip.to_bits() & 0xffff);
        halves(self.src.ip) + halves(self.dst.ip) + u32::from(self.proto.number()) + len as u32
    }
}

/// The folded one's complement sum of big-endian words (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut total = start + words.sum::<u32>();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn ip_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    u32_at(bytes, at).into()
}
