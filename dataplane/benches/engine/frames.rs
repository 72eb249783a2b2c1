//! What ports send, each behind the headroom the engine asks for.

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpHeaders, PacketBuilder, PacketBuilderStep,
};
use skep_dataplane::ids::MacAddr;
use skep_dataplane::{HEADROOM, VnetHdr};
use std::net::Ipv4Addr;

/// How much one packet carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A UDP datagram of 64 bytes.
    Small,
    /// A TCP super-frame, as a container's kernel makes them: as many whole segments as go into 64 KiB.
    Large,
}

/// TCP's and IP's headers without options.
const HEADERS: u16 = 40;
/// Ethernet's and IP's, behind which the transport header begins.
const TRANSPORT_AT: u16 = 34;
const SMALL: [u8; 64] = [7; 64];

/// Who sends to whom. The MAC each way is the one of an address too.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    /// Whose MAC it carries: a host port's own, whatever the source.
    pub(crate) by: Ipv4Addr,
    /// Whose MAC it is for: the gateway's, if the destination is not on the link.
    pub(crate) via: Ipv4Addr,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
}

impl Ends {
    pub(crate) fn new(src: Ipv4Addr, src_port: u16, dst: Ipv4Addr, dst_port: u16) -> Self {
        Self { src, dst, by: src, via: dst, src_port, dst_port }
    }

    pub(crate) fn answer(self) -> Self {
        Self::new(self.dst, self.dst_port, self.src, self.src_port)
    }

    fn builder(self) -> PacketBuilderStep<IpHeaders> {
        let (by, via) = (MacAddr::for_ip(self.by), MacAddr::for_ip(self.via));
        PacketBuilder::ethernet2(by.0, via.0).ipv4(self.src.octets(), self.dst.octets(), 64)
    }

    /// A packet of a conversation that is under way, on a network whose packets have `mtu` bytes.
    pub(crate) fn packet(self, size: Size, mtu: u16, buffer: &mut Vec<u8>) -> VnetHdr {
        match size {
            Size::Small => self.datagram(buffer),
            Size::Large => self.stream(mtu, buffer),
        }
    }

    pub(crate) fn datagram(self, buffer: &mut Vec<u8>) -> VnetHdr {
        begin(buffer);
        self.builder().udp(self.src_port, self.dst_port).write(buffer, &SMALL).unwrap();
        VnetHdr::default()
    }

    fn stream(self, mtu: u16, buffer: &mut Vec<u8>) -> VnetHdr {
        let mss = mtu - HEADERS;
        let segments = (u16::MAX - HEADERS) / mss;
        begin(buffer);
        let step = self.builder().tcp(self.src_port, self.dst_port, 1_000, 65_000).ack(1).psh();
        step.write(buffer, &vec![7; usize::from(segments * mss)]).unwrap();
        VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            gso_type: VnetHdr::GSO_TCPV4,
            hdr_len: TRANSPORT_AT + 20,
            gso_size: mss,
            csum_start: TRANSPORT_AT,
            csum_offset: 16,
        }
    }

    /// A SYN, or the answer to one.
    pub(crate) fn opening(self, is_answer: bool, buffer: &mut Vec<u8>) {
        begin(buffer);
        let step = self.builder().tcp(self.src_port, self.dst_port, 999, 65_000).syn();
        let step = if is_answer { step.ack(1_000) } else { step };
        step.write(buffer, &[]).unwrap();
    }

    /// Asks for the MAC of the destination.
    pub(crate) fn arp(self, buffer: &mut Vec<u8>) -> VnetHdr {
        begin(buffer);
        let (own, target) = (MacAddr::for_ip(self.src).0, self.dst.octets());
        let question = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &own,
            &self.src.octets(),
            &[0; 6],
            &target,
        );
        PacketBuilder::ethernet2(own, MacAddr::BROADCAST.0).arp(question.unwrap()).write(buffer).unwrap();
        VnetHdr::default()
    }
}

fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADROOM, 0);
}
