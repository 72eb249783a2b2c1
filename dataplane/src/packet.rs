//! [`Packet`]: an IPv4 frame in its buffer, and its transport header.

use crate::ids::MacAddr;
use crate::offload::Offload;
use crate::verdict::DropReason;
use crate::wire::icmpv4::{self, Message};
use crate::wire::ipv4::{self, Header};
use crate::wire::tcp::Segment;
use crate::wire::vnet::VnetHdr;
use crate::wire::{checksum, ethernet, tcp, udp};
use std::ops::Range;

/// RFC 791 §3.2: what every module forwards without fragmenting, in bytes.
const MIN_MTU: usize = 68;

/// An IPv4 frame. INVARIANT: `ip` describes the bytes, and there is room for a VXLAN header before
/// the frame.
pub(crate) struct Packet<'a> {
    pub(crate) buf: &'a mut [u8],
    start: usize,
    end: usize,
    pub(crate) ip: Header,
    pub(crate) offload: Offload,
    /// The largest IP packet it may leave as, in bytes.
    pub(crate) limit: usize,
}

impl<'a> Packet<'a> {
    /// What a port sent: `buf[start..]` is a frame with a whole Ethernet header; what follows the IP
    /// packet is padding. It may leave in packets of `mtu` bytes.
    pub(crate) fn of_port(
        buf: &'a mut [u8],
        start: usize,
        vnet: VnetHdr,
        mtu: usize,
    ) -> Result<Self, DropReason> {
        let ip = ipv4::parse(&buf[start + ethernet::HEADER_LEN..])?;
        let packet = Self::new(buf, start, ip, Offload::parse(vnet, &ip)?, mtu.max(MIN_MTU));
        if matches!(packet.offload, Offload::Tcp { .. }) && tcp::parse(packet.payload()).is_none() {
            return Err(DropReason::TransportMalformed);
        }
        Ok(packet)
    }

    /// What a peer sent, likewise. It has its size already: our TAPs take it.
    pub(crate) fn of_peer(buf: &'a mut [u8], start: usize, mtu: usize) -> Result<Self, DropReason> {
        let ip = ipv4::parse(&buf[start + ethernet::HEADER_LEN..])?;
        let mut packet = Self::new(buf, start, ip, Offload::None, usize::MAX);
        packet.offload = Offload::of_peer(&ip, packet.payload(), mtu.max(MIN_MTU))?;
        Ok(packet)
    }

    /// What a peer sealed, likewise.
    pub(crate) fn of_sealed(
        buf: &'a mut [u8],
        start: usize,
        partial: Option<u16>,
    ) -> Result<Self, DropReason> {
        let ip = ipv4::parse(&buf[start + ethernet::HEADER_LEN..])?;
        let offload = Offload::of_sealed(&ip, partial).ok_or(DropReason::SealMalformed)?;
        Ok(Self::new(buf, start, ip, offload, usize::MAX))
    }

    fn new(buf: &'a mut [u8], start: usize, ip: Header, offload: Offload, limit: usize) -> Self {
        let end = start + ethernet::HEADER_LEN + ip.total_len;
        Self { buf, start, end, ip, offload, limit }
    }

    /// Where the frame is in the buffer.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    pub(crate) fn frame(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    pub(crate) fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    pub(crate) fn ip_bytes(&self) -> &[u8] {
        &self.frame()[ethernet::HEADER_LEN..]
    }

    pub(crate) fn ip_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.frame_mut()[ethernet::HEADER_LEN..]
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.ip_bytes()[self.ip.header_len..]
    }

    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        let at = self.ip.header_len;
        &mut self.ip_bytes_mut()[at..]
    }

    pub(crate) fn dst_mac(&self) -> MacAddr {
        ethernet::dst(self.frame())
    }

    pub(crate) fn src_mac(&self) -> MacAddr {
        ethernet::src(self.frame())
    }

    pub(crate) fn decrement_ttl(&mut self) {
        ipv4::decrement_ttl(self.ip_bytes_mut());
        self.ip.ttl -= 1;
    }

    /// The largest IP packet, in bytes, it has to leave as. TCP is a stream: its segments are cut to fit.
    pub(crate) fn largest(&self) -> usize {
        match self.offload {
            Offload::None | Offload::Checksum => self.ip.total_len,
            Offload::Tcp { .. } => 0,
            Offload::Udp { size } => {
                self.ip.total_len.min(self.ip.header_len + udp::HEADER_LEN + usize::from(size))
            }
        }
    }

    /// Makes a TCP segment one that is cut to fit; false if it can't be. Its pieces get new checksums: from one that is
    /// wrong they would be right.
    pub(crate) fn becomes_stream(&mut self) -> bool {
        if self.ip.protocol != ipv4::TCP || self.ip.is_fragment() {
            return false;
        }
        let Some(segment) = tcp::parse(self.payload()) else { return false };
        let is_plain = segment.flags & (tcp::SYN | tcp::RST | tcp::URG) == 0;
        let is_whole = self.offload.is_partial()
            || checksum::transport(self.ip.src, self.ip.dst, ipv4::TCP, self.payload()) == 0;
        if is_plain && is_whole {
            self.offload = Offload::Tcp { mss: u16::MAX, ecn: segment.has(tcp::CWR) };
        }
        is_plain && is_whole
    }

    /// Bytes of the transport header that segments repeat.
    pub(crate) fn transport_header_len(&self) -> usize {
        match self.ip.protocol {
            ipv4::TCP => tcp::parse(self.payload()).map_or(tcp::MIN_HEADER_LEN, |segment| segment.header_len),
            _ => udp::HEADER_LEN,
        }
    }

    /// Must not be asked of a later fragment, which has no transport header.
    pub(crate) fn transport(&self) -> Result<Transport, DropReason> {
        let payload = self.payload();
        let parsed = match self.ip.protocol {
            ipv4::TCP => tcp::parse(payload).map(Transport::Tcp),
            ipv4::UDP => {
                udp::ports(payload).map(|(src_port, dst_port)| Transport::Udp { src_port, dst_port })
            }
            ipv4::ICMP => icmpv4::parse(payload).map(|message| match message {
                Message::EchoRequest { id } => Transport::Ping { id },
                Message::EchoReply { id } => Transport::Pong { id },
                Message::Error if !self.ip.is_fragment() => Transport::IcmpError,
                Message::Error | Message::Other => Transport::Other,
            }),
            _ => Some(Transport::Other),
        };
        parsed.ok_or(DropReason::TransportMalformed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp(Segment),
    Udp { src_port: u16, dst_port: u16 },
    Ping { id: u16 },
    Pong { id: u16 },
    IcmpError,
    Other,
}
