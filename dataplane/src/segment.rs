//! Finishing what the kernel left undone, in place: checksums, segments, fragments.
//!
//! A super-frame's payload stays where it is. Each piece gets its headers written in front of its own
//! payload, over the end of the piece before it, which has left by then:
//!
//! ```text
//! | headers | payload 0 | payload 1 | payload 2 |
//! |== piece 0 ==========|
//!           |  headers  ==== piece 1 |
//! ```

use crate::offload::Offload;
use crate::packet::Packet;
use crate::wire::{checksum, ethernet, ipv4, put_u16, put_u32, tcp, u32_at, udp};
use std::ops::Range;

const MAX_HEADERS: usize = ethernet::HEADER_LEN + ipv4::MAX_HEADER_LEN + tcp::MAX_HEADER_LEN;

/// What whoever takes the pieces needs of their transport checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sums {
    /// They are complete.
    Full,
    /// What the kernel left partial may stay so, where it is told.
    Partial,
}

/// Cuts a packet into frames no larger than its limit and hands each to `emit`: the buffer, where the frame is in it,
/// and where in the frame the transport header begins if its checksum is partial. Nothing before a frame is needed any
/// more.
pub(crate) fn pieces(
    packet: Packet<'_>,
    sums: Sums,
    mut emit: impl FnMut(&mut [u8], Range<usize>, Option<u16>),
) {
    let limit = packet.limit;
    let transport_at = ethernet::HEADER_LEN + packet.ip.header_len;
    let headers = packet.ip.header_len + packet.transport_header_len();
    // What has to be cut into fragments needs its checksum first: none of them could finish it.
    let stays_partial = |largest: usize| sums == Sums::Partial && largest <= limit;
    let mut fit = |buf: &mut [u8], range: Range<usize>, is_partial: bool| {
        if range.len() - ethernet::HEADER_LEN > limit {
            fragment(buf, range, limit, &mut |buf, range| emit(buf, range, None));
        } else {
            emit(buf, range, is_partial.then_some(transport_at as u16));
        }
    };
    match packet.offload {
        Offload::None => fit(packet.buf, packet.range(), false),
        Offload::Checksum => {
            let mut packet = packet;
            let is_partial = stays_partial(packet.ip.total_len);
            if !is_partial {
                complete_checksum(&mut packet);
            }
            let range = packet.range();
            fit(packet.buf, range, is_partial);
        }
        Offload::Tcp { mss, .. } => {
            let mss = usize::from(mss).min(limit.saturating_sub(headers).max(1));
            let is_partial = stays_partial(headers + mss);
            segment(packet, mss, is_partial, |buf, range| fit(buf, range, is_partial));
        }
        Offload::Udp { size } => {
            let is_partial = stays_partial(headers + usize::from(size));
            segment(packet, usize::from(size), is_partial, |buf, range| fit(buf, range, is_partial));
        }
    }
}

/// Turns the partial checksum into a full one.
fn complete_checksum(packet: &mut Packet<'_>) {
    let is_udp = packet.ip.protocol == ipv4::UDP;
    let place = if is_udp { udp::CHECKSUM } else { tcp::CHECKSUM };
    let payload = packet.payload_mut();
    // The field holds the pseudo-header's sum, so the sum over everything is the whole one.
    let full = checksum::of(payload);
    put_u16(payload, place, if is_udp { udp::nonzero(full) } else { full });
    packet.offload = Offload::None;
}

fn segment(packet: Packet<'_>, size: usize, is_partial: bool, mut emit: impl FnMut(&mut [u8], Range<usize>)) {
    let ip = packet.ip;
    let transport_len = packet.transport_header_len();
    let headers = ethernet::HEADER_LEN + ip.header_len + transport_len;
    let Range { start, end } = packet.range();
    let buf = packet.buf;
    let mut template = [0; MAX_HEADERS];
    template[..headers].copy_from_slice(&buf[start..start + headers]);

    let payload_len = end - start - headers;
    let mut done = 0;
    let mut nth: u16 = 0;
    loop {
        let len = size.min(payload_len - done);
        let is_last = done + len == payload_len;
        let at = start + done;
        let frame = &mut buf[at..at + headers + len];
        frame[..headers].copy_from_slice(&template[..headers]);
        let packet = &mut frame[ethernet::HEADER_LEN..];
        let total_len = packet.len();
        ipv4::set_len_and_id(packet, ip.header_len, total_len, ip.id.wrapping_add(nth));
        let payload = &mut packet[ip.header_len..];
        let place = if ip.protocol == ipv4::TCP {
            stamp_tcp(payload, done as u32, is_last);
            tcp::CHECKSUM
        } else {
            put_u16(payload, udp::LENGTH, (udp::HEADER_LEN + len) as u16);
            udp::CHECKSUM
        };
        stamp_checksum(payload, place, &ip, is_partial);
        emit(buf, at..at + headers + len);
        if is_last {
            return;
        }
        done += len;
        nth = nth.wrapping_add(1);
    }
}

fn stamp_checksum(payload: &mut [u8], place: usize, ip: &ipv4::Header, is_partial: bool) {
    let sum = if is_partial {
        checksum::pseudo_header(ip.src, ip.dst, ip.protocol, payload.len())
    } else {
        put_u16(payload, place, 0);
        let full = checksum::transport(ip.src, ip.dst, ip.protocol, payload);
        if ip.protocol == ipv4::UDP { udp::nonzero(full) } else { full }
    };
    put_u16(payload, place, sum);
}

/// Makes a copy of the super-frame's TCP header the one of the segment that starts `done` bytes into
/// it. CWR stays on the first only: it answers one ECE (RFC 3168 §6.1.2). FIN and PSH stay on the last.
fn stamp_tcp(header: &mut [u8], done: u32, is_last: bool) {
    let seq = u32_at(header, tcp::SEQUENCE);
    put_u32(header, tcp::SEQUENCE, seq.wrapping_add(done));
    if done > 0 {
        header[tcp::FLAGS] &= !tcp::CWR;
    }
    if !is_last {
        header[tcp::FLAGS] &= !(tcp::FIN | tcp::PSH);
    }
}

/// Cuts a complete frame into fragments (RFC 791 §3.2); it may be a fragment already.
fn fragment(
    buf: &mut [u8],
    range: Range<usize>,
    limit: usize,
    emit: &mut impl FnMut(&mut [u8], Range<usize>),
) {
    let start = range.start;
    let Ok(ip) = ipv4::parse_quoted(&buf[start + ethernet::HEADER_LEN..range.end]) else { return };
    let mut template = [0; MAX_HEADERS];
    let mut headers = ethernet::HEADER_LEN + ip.header_len;
    template[..headers].copy_from_slice(&buf[start..start + headers]);

    let payload = start + headers;
    let payload_len = range.end - payload;
    let mut done = 0;
    while done < payload_len {
        let room = (limit + ethernet::HEADER_LEN - headers) & !7;
        let len = room.min(payload_len - done);
        let more = ip.more_fragments || done + len < payload_len;
        let at = payload + done - headers;
        let frame = &mut buf[at..at + headers + len];
        frame[..headers].copy_from_slice(&template[..headers]);
        let packet = &mut frame[ethernet::HEADER_LEN..];
        let total_len = packet.len();
        let header_len = headers - ethernet::HEADER_LEN;
        ipv4::set_fragment(packet, header_len, total_len, ip.offset + done, more);
        emit(buf, at..at + headers + len);
        if done == 0 && ip.offset == 0 {
            headers = keep_copied_options(&mut template, headers);
        }
        done += len;
    }
}

/// Drops the options that only the first fragment carries; those to be copied have the top bit set
/// (RFC 791 §3.1). Returns the new length of the headers.
fn keep_copied_options(template: &mut [u8; MAX_HEADERS], headers: usize) -> usize {
    let options = ethernet::HEADER_LEN + ipv4::MIN_HEADER_LEN;
    let mut from = options;
    let mut to = options;
    while from < headers {
        let kind = template[from];
        let len = match kind {
            0 => break,
            1 => 1,
            _ if from + 1 < headers => usize::from(template[from + 1]),
            _ => break,
        };
        if len == 0 || from + len > headers {
            break;
        }
        if kind & 0x80 != 0 {
            template.copy_within(from..from + len, to);
            to += len;
        }
        from += len;
    }
    let end = options + (to - options).next_multiple_of(4);
    template[to..end].fill(0);
    template[ethernet::HEADER_LEN] = 0x40 | ((end - ethernet::HEADER_LEN) / 4) as u8;
    end
}
