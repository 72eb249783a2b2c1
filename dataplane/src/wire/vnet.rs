//! The virtio-net header a TAP with `IFF_VNET_HDR` puts before every frame (virtio 1.2 §5.1.6).

/// What the kernel left undone in a frame: its checksum, its segmentation, or nothing (the default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where summing starts, in bytes from the Ethernet header.
    pub csum_start: u16,
    /// Where the sum goes, in bytes from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Bytes on the wire: the header without `num_buffers` (`TUNSETVNETHDRSZ` 10).
    pub const LEN: usize = 10;

    pub const NEEDS_CSUM: u8 = 1;
    pub const RSC_INFO: u8 = 4;

    pub const GSO_NONE: u8 = 0;
    pub const GSO_TCPV4: u8 = 1;
    pub const GSO_TCPV6: u8 = 4;
    pub const GSO_UDP_L4: u8 = 5;
    /// Set beside `GSO_TCPV4` when the segments carry ECN's CWR rule.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads a little-endian header (`TUNSETVNETLE`).
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: u16_at(2),
            gso_size: u16_at(4),
            csum_start: u16_at(6),
            csum_offset: u16_at(8),
        }
    }

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}
