//! What the kernel left for us to finish in a frame, as a type that cannot hold nonsense.

use crate::verdict::DropReason;
use crate::wire::ipv4::{self, Header};
use crate::wire::vnet::VnetHdr;
use crate::wire::{checksum, ethernet, tcp, u16_at, udp};

/// A 64 KiB super-frame at the smallest segment Linux sends by default (`net.ipv4.route.min_adv_mss`,
/// 256) is 256 segments. More than this is an attempt to multiply work, not a sender's need.
const MAX_SEGMENTS: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    /// The frame is complete.
    None,
    /// The transport checksum is partial.
    Checksum,
    /// To be cut into TCP segments of `mss` payload bytes; the checksum is partial.
    Tcp { mss: u16, ecn: bool },
    /// To be cut into datagrams of `size` payload bytes; the checksum is partial.
    Udp { size: u16 },
}

impl Offload {
    /// Checks a virtio header against the packet it came with. `hdr_len` is not looked at: a kernel
    /// that forwards may put anything there.
    pub(crate) fn parse(vnet: VnetHdr, ip: &Header) -> Result<Self, DropReason> {
        if vnet.flags & VnetHdr::RSC_INFO != 0 {
            return Err(DropReason::OffloadType);
        }
        let ecn = vnet.gso_type & VnetHdr::GSO_ECN != 0;
        let protocol = match vnet.gso_type & !VnetHdr::GSO_ECN {
            VnetHdr::GSO_NONE if !ecn => return Self::parse_checksum(vnet, ip),
            VnetHdr::GSO_TCPV4 => ipv4::TCP,
            VnetHdr::GSO_UDP_L4 if !ecn => ipv4::UDP,
            _ => return Err(DropReason::OffloadType),
        };
        if ip.protocol != protocol || ip.is_fragment() {
            return Err(DropReason::OffloadType);
        }
        if Self::parse_checksum(vnet, ip)? != Self::Checksum {
            return Err(DropReason::OffloadChecksum);
        }
        let size = vnet.gso_size;
        if size == 0 || ip.payload_len() / usize::from(size) > MAX_SEGMENTS {
            return Err(DropReason::OffloadSegmentSize);
        }
        Ok(if protocol == ipv4::TCP { Self::Tcp { mss: size, ecn } } else { Self::Udp { size } })
    }

    fn parse_checksum(vnet: VnetHdr, ip: &Header) -> Result<Self, DropReason> {
        if vnet.flags & VnetHdr::NEEDS_CSUM == 0 {
            return Ok(Self::None);
        }
        let place = match ip.protocol {
            ipv4::TCP => tcp::CHECKSUM,
            ipv4::UDP => udp::CHECKSUM,
            _ => return Err(DropReason::OffloadChecksum),
        };
        let is_transport = usize::from(vnet.csum_start) == ethernet::HEADER_LEN + ip.header_len
            && usize::from(vnet.csum_offset) == place
            && ip.payload_len() >= place + 2
            && !ip.is_fragment();
        if is_transport { Ok(Self::Checksum) } else { Err(DropReason::OffloadChecksum) }
    }

    /// What a peer's kernel left undone without a word for it in RFC 7348: a vxlan device whose packets
    /// meet no hardware on their way to us (over a veth or a bridge) leaves inner checksums partial and
    /// super-frames whole. A field that holds exactly the pseudo-header's sum is such a checksum; should
    /// a full one happen to be equal, completing it gives the same value again.
    pub(crate) fn of_peer(ip: &Header, payload: &[u8], mtu: usize) -> Result<Self, DropReason> {
        let place = match ip.protocol {
            ipv4::TCP => tcp::CHECKSUM,
            ipv4::UDP => udp::CHECKSUM,
            _ => return Ok(Self::None),
        };
        let sum = checksum::pseudo_header(ip.src, ip.dst, ip.protocol, payload.len());
        if ip.is_fragment() || payload.len() < place + 2 || u16_at(payload, place) != sum {
            return Ok(Self::None);
        }
        if ip.total_len <= mtu {
            return Ok(Self::Checksum);
        }
        match tcp::parse(payload) {
            Some(segment) if ip.protocol == ipv4::TCP => {
                let mss = mtu.saturating_sub(ip.header_len + segment.header_len).max(1);
                let mss = u16::try_from(mss).unwrap_or(u16::MAX);
                Ok(Self::Tcp { mss, ecn: segment.has(tcp::CWR) })
            }
            // Where one datagram ends and the next begins got lost.
            _ => Err(DropReason::OffloadSegmentSize),
        }
    }

    /// As a peer of ours says: `partial` is where the transport header of a frame with a partial checksum begins.
    /// `None` where that is not so.
    pub(crate) fn of_sealed(ip: &Header, partial: Option<u16>) -> Option<Self> {
        let Some(at) = partial else { return Some(Self::None) };
        let place = match ip.protocol {
            ipv4::TCP => tcp::CHECKSUM,
            ipv4::UDP => udp::CHECKSUM,
            _ => return None,
        };
        let is_transport = usize::from(at) == ethernet::HEADER_LEN + ip.header_len
            && ip.payload_len() >= place + 2
            && !ip.is_fragment();
        is_transport.then_some(Self::Checksum)
    }

    /// The transport checksum holds the pseudo-header sum only.
    pub(crate) fn is_partial(self) -> bool {
        match self {
            Self::None => false,
            Self::Checksum | Self::Tcp { .. } | Self::Udp { .. } => true,
        }
    }

    /// The header for a TAP that takes the frame as it is. `transport_header_len` in bytes.
    pub(crate) fn to_vnet(self, ip: &Header, transport_header_len: usize, limit: usize) -> VnetHdr {
        let start = ethernet::HEADER_LEN + ip.header_len;
        let headers = start + transport_header_len;
        let (gso_type, gso_size, place) = match self {
            Self::None => return VnetHdr::default(),
            Self::Checksum if ip.protocol == ipv4::TCP => (VnetHdr::GSO_NONE, 0, tcp::CHECKSUM),
            Self::Checksum => (VnetHdr::GSO_NONE, 0, udp::CHECKSUM),
            Self::Tcp { mss, ecn } => {
                let fits = limit.saturating_sub(headers - ethernet::HEADER_LEN).max(1);
                let mss = mss.min(u16::try_from(fits).unwrap_or(u16::MAX));
                (VnetHdr::GSO_TCPV4 | if ecn { VnetHdr::GSO_ECN } else { 0 }, mss, tcp::CHECKSUM)
            }
            Self::Udp { size } => (VnetHdr::GSO_UDP_L4, size, udp::CHECKSUM),
        };
        VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            gso_type,
            hdr_len: headers as u16,
            gso_size,
            csum_start: start as u16,
            csum_offset: place as u16,
        }
    }
}
