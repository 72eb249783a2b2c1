//! [`Merge`]: frames for one port, one after the other, put together to the super-frame they were cut from.
//!
//! What kernel GRO would merge: segments of one TCP connection that continue each other and differ in nothing else,
//! datagrams of one UDP flow and size. Their payloads must be covered by a partial checksum, or by a full one that is
//! right. A receiver's kernel sees one frame where it would have seen forty, and what it makes of it is the same.
//!
//! More than GRO does: the bare end of a connection goes with the data before it, as if its sender had known of the end
//! when it sent that (RFC 9293 §3.10.4), and a bare acknowledgement with the data behind it. A short answer, its end and
//! the word that the question came are one frame then on all of the rest of their way.
//!
//! Frames of one flow keep their order; those of different flows may change places within a batch.

mod acknowledgements;

pub(crate) use self::acknowledgements::Acknowledgements;
use crate::ids::PortId;
use crate::wire::vnet::VnetHdr;
use crate::wire::{checksum, ethernet, ipv4, put_u16, tcp, u16_at, u32_at, udp};

/// An IPv4 packet of this size, in bytes, and its Ethernet header.
const LARGEST: usize = 65_535 + ethernet::HEADER_LEN;

/// A kernel refuses a super-frame of more datagrams (UDP_MAX_SEGMENTS of include/linux/udp.h: 128, 64 before Linux 6.9).
const MOST_DATAGRAMS: usize = 64;

const IP_AT: usize = ethernet::HEADER_LEN;
const TRANSPORT_AT: usize = IP_AT + ipv4::MIN_HEADER_LEN;

/// Places of an IPv4 header that segments of one packet may differ in: length, identification, checksum.
const TOTAL_LEN: usize = IP_AT + 2;
const FRAGMENT: usize = IP_AT + 6;
const IP_CHECKSUM: usize = IP_AT + 10;

/// The part of a frame before its payload, and what of it tells how it may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    is_tcp: bool,
    headers: usize,
    payload: usize,
    seq: u32,
    has_psh: bool,
    /// Without data before it, it only goes on what is there.
    has_fin: bool,
}

/// Whose frames must keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    port: PortId,
    protocol: u8,
    addresses: u64,
    ports: u32,
}

/// At most one super-frame that is being put together, and acknowledgements that wait for more to be said.
///
/// No flow has both: its acknowledgement is written or left out before anything of it that is younger.
#[derive(Debug)]
pub struct Merge {
    acknowledgements: Acknowledgements,
    flow: Flow,
    frame: Box<[u8]>,
    /// Bytes of it; 0: nothing.
    len: usize,
    shape: Shape,
    /// Payload bytes of each segment but the last.
    size: usize,
    count: usize,
    /// No data may follow.
    is_closed: bool,
}

impl Default for Merge {
    fn default() -> Self {
        Self::new()
    }
}

impl Merge {
    pub fn new() -> Self {
        let shape = Shape { is_tcp: false, headers: 0, payload: 0, seq: 0, has_psh: false, has_fin: false };
        Self {
            acknowledgements: Acknowledgements::new(),
            flow: Flow { port: PortId(0), protocol: 0, addresses: 0, ports: 0 },
            frame: vec![0; LARGEST].into_boxed_slice(),
            len: 0,
            shape,
            size: 0,
            count: 0,
            is_closed: false,
        }
    }

    /// Takes the frame, and hands to `out` what is due to be written: frames that nothing more can be put to.
    ///
    /// `takes_datagrams`: the port's kernel takes datagrams that were put together.
    pub fn offer(
        &mut self,
        port: PortId,
        takes_datagrams: bool,
        vnet: VnetHdr,
        frame: &[u8],
        out: &mut impl FnMut(PortId, VnetHdr, &[u8]),
    ) {
        let Some(flow) = Flow::of(port, frame) else {
            // It may belong to any of them.
            self.finish(out);
            return out(port, vnet, frame);
        };
        let shape = Shape::of(vnet, frame).filter(|shape| shape.is_tcp || takes_datagrams);
        let is_held = self.acknowledgements.offer(flow, || shape, vnet, frame, out);
        match shape {
            Some(shape) if self.continues(&flow, &shape, frame) => self.append(&shape, frame),
            Some(shape) if shape.payload > 0 => {
                self.write(out);
                self.begin(flow, shape, frame);
            }
            _ => {
                if self.flow == flow {
                    self.write(out);
                }
                if !is_held {
                    out(port, vnet, frame);
                }
            }
        }
    }

    /// Hands over what is left. Nothing waits for another batch.
    pub fn finish(&mut self, out: &mut impl FnMut(PortId, VnetHdr, &[u8])) {
        self.write(out);
        self.acknowledgements.release(out);
    }

    fn append(&mut self, shape: &Shape, frame: &[u8]) {
        let end = self.len + shape.payload;
        self.frame[self.len..end].copy_from_slice(&frame[shape.headers..shape.headers + shape.payload]);
        self.len = end;
        self.count += usize::from(shape.payload > 0);
        if shape.is_tcp {
            self.frame[TRANSPORT_AT + tcp::FLAGS] |= frame[TRANSPORT_AT + tcp::FLAGS] & tcp::ENDS;
        }
        self.shape.has_fin = shape.has_fin;
        self.is_closed = shape.is_last() || shape.payload < self.size;
    }

    fn begin(&mut self, flow: Flow, shape: Shape, frame: &[u8]) {
        let len = shape.headers + shape.payload;
        self.frame[..len].copy_from_slice(&frame[..len]);
        (self.flow, self.len, self.shape, self.size, self.count) = (flow, len, shape, shape.payload, 1);
        self.is_closed = shape.is_last();
    }

    fn continues(&self, flow: &Flow, next: &Shape, frame: &[u8]) -> bool {
        if self.len == 0 || self.flow != *flow {
            return false;
        }
        let own = &self.frame[..self.shape.headers];
        let is_bare_end = next.payload == 0 && !self.shape.has_fin;
        if (self.is_closed && !is_bare_end)
            || (next.is_tcp, next.headers) != (self.shape.is_tcp, self.shape.headers)
            || next.payload > self.size
            || self.len + next.payload > LARGEST
            || (!next.is_tcp && self.count == MOST_DATAGRAMS)
        {
            return false;
        }
        let sent = (self.len - self.shape.headers) as u32;
        let is_next = !next.is_tcp || next.seq == self.shape.seq.wrapping_add(sent);
        is_next && same_but_for_place(own, &frame[..next.headers], next.is_tcp)
    }

    /// Writes what was put together, if anything.
    fn write(&mut self, out: &mut impl FnMut(PortId, VnetHdr, &[u8])) {
        let len = std::mem::take(&mut self.len);
        if len == 0 {
            return;
        }
        let (shape, is_many) = (self.shape, self.count > 1);
        let frame = &mut self.frame[..len];
        let ip_len = len - IP_AT;
        put_u16(frame, TOTAL_LEN, ip_len as u16);
        put_u16(frame, IP_CHECKSUM, 0);
        let sum = checksum::of(&frame[IP_AT..TRANSPORT_AT]);
        put_u16(frame, IP_CHECKSUM, sum);
        let (src, dst) = (crate::wire::ip_at(frame, IP_AT + 12), crate::wire::ip_at(frame, IP_AT + 16));
        let transport_len = len - TRANSPORT_AT;
        let (protocol, place, gso_type) = match shape.is_tcp {
            true => (ipv4::TCP, tcp::CHECKSUM, VnetHdr::GSO_TCPV4),
            false => {
                put_u16(frame, TRANSPORT_AT + udp::LENGTH, transport_len as u16);
                (ipv4::UDP, udp::CHECKSUM, VnetHdr::GSO_UDP_L4)
            }
        };
        put_u16(frame, TRANSPORT_AT + place, checksum::pseudo_header(src, dst, protocol, transport_len));
        let vnet = VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            gso_type: if is_many { gso_type } else { VnetHdr::GSO_NONE },
            hdr_len: shape.headers as u16,
            gso_size: if is_many { self.size as u16 } else { 0 },
            csum_start: TRANSPORT_AT as u16,
            csum_offset: place as u16,
        };
        out(self.flow.port, vnet, frame);
    }
}

impl Flow {
    /// `None`: it isn't TCP or UDP in an unfragmented IPv4 packet without options.
    fn of(port: PortId, frame: &[u8]) -> Option<Self> {
        let is_plain_ip = frame.len() >= TRANSPORT_AT + 4
            && ethernet::ethertype(frame) == ethernet::IPV4
            && frame[IP_AT] == 0x45
            && u16_at(frame, FRAGMENT) & 0x3fff == 0
            && matches!(frame[IP_AT + 9], ipv4::TCP | ipv4::UDP);
        is_plain_ip.then(|| Self {
            port,
            protocol: frame[IP_AT + 9],
            addresses: u64::from(u32_at(frame, IP_AT + 12)) << 32 | u64::from(u32_at(frame, IP_AT + 16)),
            ports: u32_at(frame, TRANSPORT_AT),
        })
    }
}

impl Shape {
    /// `None`: a frame that nothing is put together with. `frame` is of a [`Flow`].
    fn of(vnet: VnetHdr, frame: &[u8]) -> Option<Self> {
        let is_whole = usize::from(u16_at(frame, TOTAL_LEN)) == frame.len() - IP_AT;
        if !is_whole || vnet.gso_type != VnetHdr::GSO_NONE {
            return None;
        }
        let transport = &frame[TRANSPORT_AT..];
        let shape = match frame[IP_AT + 9] {
            ipv4::TCP => Self::of_tcp(transport)?,
            ipv4::UDP => Self::of_udp(transport)?,
            _ => return None,
        };
        (vnet.flags & VnetHdr::NEEDS_CSUM != 0 || is_sum_right(frame)).then_some(shape)
    }

    /// Data or its end, and no word but that it was sent and heard.
    fn of_tcp(transport: &[u8]) -> Option<Self> {
        let segment = tcp::parse(transport)?;
        let payload = transport.len() - segment.header_len;
        let (has_psh, has_fin) = (segment.has(tcp::PSH), segment.has(tcp::FIN));
        let is_data = segment.flags & !tcp::ENDS == tcp::ACK && (payload > 0 || has_fin);
        is_data.then_some(Self {
            is_tcp: true,
            headers: TRANSPORT_AT + segment.header_len,
            payload,
            seq: segment.seq,
            has_psh,
            has_fin,
        })
    }

    fn is_last(&self) -> bool {
        self.has_psh || self.has_fin
    }

    fn of_udp(transport: &[u8]) -> Option<Self> {
        let payload = transport.len().checked_sub(udp::HEADER_LEN).filter(|payload| *payload > 0)?;
        let is_summed = u16_at(transport, udp::CHECKSUM) != 0;
        let is_whole = usize::from(u16_at(transport, udp::LENGTH)) == transport.len();
        let headers = TRANSPORT_AT + udp::HEADER_LEN;
        (is_summed && is_whole).then_some(Self {
            is_tcp: false,
            headers,
            payload,
            seq: 0,
            has_psh: false,
            has_fin: false,
        })
    }
}

/// A full checksum sums to all ones together with what it covers (RFC 1071 §1).
fn is_sum_right(frame: &[u8]) -> bool {
    let (src, dst) = (crate::wire::ip_at(frame, IP_AT + 12), crate::wire::ip_at(frame, IP_AT + 16));
    let transport = &frame[TRANSPORT_AT..];
    checksum::transport(src, dst, frame[IP_AT + 9], transport) == 0
}

/// Ethernet and IPv4 headers, but for what differs from packet to packet.
fn same_ip(one: &[u8], other: &[u8]) -> bool {
    let same = |range: std::ops::Range<usize>| one[range.clone()] == other[range];
    same(0..TOTAL_LEN) && same(FRAGMENT..IP_CHECKSUM) && same(IP_CHECKSUM + 2..TRANSPORT_AT)
}

/// Whether two headers are those of neighbours: equal but for what tells one from the next.
fn same_but_for_place(one: &[u8], other: &[u8], is_tcp: bool) -> bool {
    let same = |range: std::ops::Range<usize>| one[range.clone()] == other[range];
    let ip = same_ip(one, other);
    if !is_tcp {
        // Ports; length and checksum follow from the payload.
        return ip && same(TRANSPORT_AT..TRANSPORT_AT + 4);
    }
    let flags = TRANSPORT_AT + tcp::FLAGS;
    ip && same(TRANSPORT_AT..TRANSPORT_AT + tcp::SEQUENCE)
        && same(TRANSPORT_AT + 8..flags)
        && (one[flags] ^ other[flags]) & !tcp::ENDS == 0
        && same(flags + 1..TRANSPORT_AT + tcp::CHECKSUM)
        && same(TRANSPORT_AT + tcp::CHECKSUM + 2..one.len())
        && u32_at(one, TRANSPORT_AT + 8) == u32_at(other, TRANSPORT_AT + 8)
}

#[cfg(test)]
mod tests;
