use super::*;
use crate::packet::Packet;
use crate::segment::{Sums, pieces};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];
const PORT: PortId = PortId(3);
const ROOM: usize = 64;

/// A super-frame as a kernel hands it over, behind room for headers.
pub(super) fn super_frame(is_tcp: bool, flags: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let transport_header = if is_tcp { tcp::MIN_HEADER_LEN + options } else { udp::HEADER_LEN };
    let mut buf = vec![0; ROOM + TRANSPORT_AT + transport_header];
    buf.extend_from_slice(payload);
    let frame = &mut buf[ROOM..];
    let ip_len = frame.len() - IP_AT;
    ethernet::write(frame, crate::ids::MacAddr([2; 6]), crate::ids::MacAddr([4; 6]), ethernet::IPV4);
    let protocol = if is_tcp { ipv4::TCP } else { ipv4::UDP };
    ipv4::write(&mut frame[IP_AT..], protocol, ip_len, ENDS[0], ENDS[1]);
    let transport_len = ip_len - ipv4::MIN_HEADER_LEN;
    let place = if is_tcp {
        tcp::write(&mut frame[TRANSPORT_AT..], 1000, 80, u32::MAX - 2000, 77, flags);
        frame[TRANSPORT_AT + 12] = (transport_header * 4) as u8;
        frame[TRANSPORT_AT + tcp::MIN_HEADER_LEN..TRANSPORT_AT + transport_header].fill(1);
        tcp::CHECKSUM
    } else {
        put_u16(frame, TRANSPORT_AT, 1000);
        put_u16(frame, TRANSPORT_AT + 2, 53);
        put_u16(frame, TRANSPORT_AT + udp::LENGTH, transport_len as u16);
        udp::CHECKSUM
    };
    let sum = checksum::pseudo_header(ENDS[0], ENDS[1], protocol, transport_len);
    put_u16(frame, TRANSPORT_AT + place, sum);
    buf
}

fn vnet(is_tcp: bool, size: usize) -> VnetHdr {
    VnetHdr {
        flags: VnetHdr::NEEDS_CSUM,
        gso_type: if is_tcp { VnetHdr::GSO_TCPV4 } else { VnetHdr::GSO_UDP_L4 },
        hdr_len: 0,
        gso_size: size as u16,
        csum_start: TRANSPORT_AT as u16,
        csum_offset: if is_tcp { tcp::CHECKSUM } else { udp::CHECKSUM } as u16,
    }
}

/// The frames a super-frame is cut into, each with the header its receiver's TAP gets.
fn cut(buf: &mut [u8], vnet: VnetHdr, sums: Sums) -> Vec<(VnetHdr, Vec<u8>)> {
    let packet = Packet::of_port(buf, ROOM, vnet, 1500).unwrap();
    let mut frames = Vec::new();
    pieces(packet, sums, |buf, range, _| {
        let partial = VnetHdr { gso_type: VnetHdr::GSO_NONE, gso_size: 0, ..vnet };
        let whole = VnetHdr::default();
        frames.push((if sums == Sums::Partial { partial } else { whole }, buf[range].to_vec()));
    });
    frames
}

/// Everything that is written of these, in its order.
fn merge_all(frames: &[(VnetHdr, Vec<u8>)]) -> Vec<(VnetHdr, Vec<u8>)> {
    let mut merge = Merge::new();
    let mut merged = Vec::new();
    let mut out = |_, vnet, frame: &[u8]| merged.push((vnet, frame.to_vec()));
    for (vnet, frame) in frames {
        merge.offer(PORT, true, *vnet, frame, &mut out);
    }
    merge.finish(&mut out);
    merged
}

/// Whether the frame is written at once, by itself.
fn is_alone(merge: &mut Merge, vnet: VnetHdr, frame: &[u8]) -> bool {
    let mut last = Vec::new();
    merge.offer(PORT, true, vnet, frame, &mut |_, _, frame| last = frame.to_vec());
    last == frame
}

/// How many frames are written because of this one.
fn written(merge: &mut Merge, vnet: VnetHdr, frame: &[u8]) -> usize {
    let mut count = 0;
    merge.offer(PORT, true, vnet, frame, &mut |_, _, _| count += 1);
    count
}

proptest! {
    /// Split then merge: the one super-frame it was, byte for byte but for what a receiver does not see of it.
    #[test]
    fn what_was_cut_is_put_together_again(
        is_tcp in any::<bool>(),
        has_psh in any::<bool>(),
        options in (0usize..=10).prop_map(|words| words * 4),
        size in 100usize..1400,
        payload in prop::collection::vec(any::<u8>(), 101..20_000),
        is_partial in any::<bool>(),
    ) {
        prop_assume!(payload.len() > size && (is_tcp || payload.len() <= size * MOST_DATAGRAMS));
        let flags = if has_psh { tcp::ACK | tcp::PSH } else { tcp::ACK };
        let sent = super_frame(is_tcp, flags, options, &payload);
        let header = vnet(is_tcp, size);
        let sums = if is_partial { Sums::Partial } else { Sums::Full };
        let frames = cut(&mut sent.clone(), header, sums);
        prop_assert!(frames.len() > 1);
        let merged = merge_all(&frames);
        prop_assert_eq!(merged.len(), 1);
        let (got, frame) = &merged[0];
        prop_assert_eq!(frame, &sent[ROOM..]);
        prop_assert_eq!((got.gso_type, usize::from(got.gso_size), got.flags), (header.gso_type, size, 1));
        // And merge then split: the same pieces.
        let mut again = [vec![0; ROOM], frame.clone()].concat();
        prop_assert_eq!(cut(&mut again, header, sums), frames);
    }

    /// Whatever is offered in whatever order, the bytes of each connection come out as they went in.
    #[test]
    fn streams_that_meet_keep_their_bytes(
        order in prop::collection::vec(0usize..3, 1..80),
        lengths in prop::collection::vec(1usize..400, 80),
        spoil in prop::collection::vec(0u8..12, 80),
    ) {
        let mut merge = Merge::new();
        let mut sent = [Vec::new(), Vec::new(), Vec::new()];
        let mut got = [Vec::new(), Vec::new(), Vec::new()];
        let mut take = |port: PortId, _, frame: &[u8]| got[port.0 as usize].extend_from_slice(&frame[TRANSPORT_AT + 20..]);
        for (nth, stream) in order.iter().enumerate() {
            let payload = vec![nth as u8; if spoil[nth] < 6 { 300 } else { lengths[nth] }];
            let mut buf = super_frame(true, tcp::ACK, 0, &payload);
            let frame = &mut buf[ROOM..];
            let seq = 1000 + sent[*stream].len() as u32;
            crate::wire::put_u32(frame, TRANSPORT_AT + tcp::SEQUENCE, seq);
            // Another window, time to live or acknowledgement may not be lost.
            match spoil[nth] {
                9 => frame[TRANSPORT_AT + 14] ^= 1,
                10 => frame[IP_AT + 8] ^= 1,
                11 => frame[TRANSPORT_AT + 8] ^= 1,
                _ => {}
            }
            sent[*stream].extend_from_slice(&payload);
            let header = VnetHdr { gso_type: 0, gso_size: 0, ..vnet(true, 300) };
            merge.offer(PortId(*stream as u32), true, header, frame, &mut take);
        }
        merge.finish(&mut take);
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn any_bytes_at_all_are_no_reason_to_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..200), flags in 0u8..2) {
        let vnet = VnetHdr { flags, ..VnetHdr::default() };
        prop_assert_eq!(merge_all(&[(vnet, bytes.clone())]).len(), 1);
        merge_all(&[(vnet, bytes.clone()), (vnet, bytes)]);
    }
}

#[test]
fn what_a_receiver_must_see_by_itself_stays_so() {
    let header = VnetHdr { gso_type: 0, gso_size: 0, ..vnet(true, 300) };
    for flags in [tcp::SYN, tcp::FIN, tcp::ACK | tcp::RST, tcp::ACK | 0x40, tcp::ACK | tcp::CWR] {
        let buf = super_frame(true, flags, 0, b"data");
        assert!(is_alone(&mut Merge::new(), header, &buf[ROOM..]), "{flags:#x}");
    }
    let bare = super_frame(true, tcp::ACK | tcp::FIN, 0, b"");
    assert!(is_alone(&mut Merge::new(), header, &bare[ROOM..]), "an end without data before it");
    let mut wrong = super_frame(true, tcp::ACK, 0, b"data");
    assert!(is_alone(&mut Merge::new(), VnetHdr::default(), &wrong[ROOM..]), "a wrong checksum");
    wrong[ROOM + FRAGMENT] = 0x20;
    assert!(is_alone(&mut Merge::new(), header, &wrong[ROOM..]), "a fragment");
}

#[test]
fn after_a_push_or_a_short_one_nothing_more_is_put_on() {
    let header = VnetHdr { gso_type: 0, gso_size: 0, ..vnet(true, 300) };
    for (flags, second) in [(tcp::ACK | tcp::PSH, 300), (tcp::ACK, 299)] {
        let mut merge = Merge::new();
        let mut seq = 0u32;
        let mut next = |flags, len: usize| {
            let mut buf = super_frame(true, flags, 0, &vec![7; len]);
            crate::wire::put_u32(&mut buf[ROOM..], TRANSPORT_AT + tcp::SEQUENCE, seq);
            seq += len as u32;
            buf
        };
        for (flags, len) in [(tcp::ACK, 300), (flags, second)] {
            assert_eq!(written(&mut merge, header, &next(flags, len)[ROOM..]), 0);
        }
        assert_eq!(written(&mut merge, header, &next(tcp::ACK, 300)[ROOM..]), 1);
    }
}

/// What is written of these segments of one connection.
fn merge_segments(segments: &[(u8, usize)]) -> Vec<(VnetHdr, Vec<u8>)> {
    let header = VnetHdr { gso_type: 0, gso_size: 0, ..vnet(true, 300) };
    let mut seq = 0u32;
    let frames: Vec<_> = segments
        .iter()
        .map(|&(flags, len)| {
            let mut buf = super_frame(true, flags, 12, &vec![7; len]);
            crate::wire::put_u32(&mut buf[ROOM..], TRANSPORT_AT + tcp::SEQUENCE, seq);
            seq += len as u32;
            (header, buf[ROOM..].to_vec())
        })
        .collect();
    merge_all(&frames)
}

#[test]
fn the_end_of_a_connection_goes_with_the_data_before_it() {
    let fin = tcp::ACK | tcp::FIN;
    for (data, size) in [
        (&[(tcp::ACK | tcp::PSH, 100)][..], 0),
        (&[(tcp::ACK, 300), (tcp::ACK, 300)], 300),
        (&[(tcp::ACK, 300), (tcp::ACK | tcp::PSH, 40)], 300),
    ] {
        let Ok([(_, mut expected)]) = <[_; 1]>::try_from(merge_segments(data)) else { panic!("{data:?}") };
        expected[TRANSPORT_AT + tcp::FLAGS] |= tcp::FIN;
        let merged = merge_segments(&[data, &[(fin, 0)]].concat());
        let [(vnet, frame)] = &merged[..] else { panic!("{data:?}: {} frames", merged.len()) };
        assert_eq!((usize::from(vnet.gso_size), frame), (size, &expected), "{data:?}");
    }
    for (segments, frames, what) in [
        (&[(tcp::ACK, 300), (fin, 20)][..], 1, "with its own data"),
        (&[(tcp::ACK, 300), (fin, 20), (fin, 0)], 2, "a second end"),
        (&[(tcp::ACK, 300), (fin, 0), (tcp::ACK, 300)], 2, "data behind the end"),
    ] {
        assert_eq!(merge_segments(segments).len(), frames, "{what}");
    }
}

#[test]
fn an_end_that_says_more_or_leaves_a_gap_stays_by_itself() {
    let header = VnetHdr { gso_type: 0, gso_size: 0, ..vnet(true, 300) };
    let data = super_frame(true, tcp::ACK, 0, &[7; 300]);
    let mut end = super_frame(true, tcp::ACK | tcp::FIN, 0, b"");
    let seq = u32_at(&data[ROOM..], TRANSPORT_AT + tcp::SEQUENCE);
    crate::wire::put_u32(&mut end[ROOM..], TRANSPORT_AT + tcp::SEQUENCE, seq.wrapping_add(300));
    let is_alone = |end: &[u8]| {
        let mut merge = Merge::new();
        assert_eq!(written(&mut merge, header, &data[ROOM..]), 0);
        is_alone(&mut merge, header, &end[ROOM..])
    };
    assert!(!is_alone(&end));
    // The acknowledgement, the window, the place in the stream.
    for (at, what) in [(TRANSPORT_AT + 11, "ack"), (TRANSPORT_AT + 15, "window"), (TRANSPORT_AT + 7, "seq")] {
        let mut other = end.clone();
        other[ROOM + at] ^= 1;
        assert!(is_alone(&other), "{what}");
    }
}

#[test]
fn datagrams_are_put_together_to_no_more_than_a_kernel_takes() {
    let payload = vec![7; 64 * (2 * MOST_DATAGRAMS + 1)];
    let frames = cut(&mut super_frame(false, 0, 0, &payload), vnet(false, 64), Sums::Partial);
    let datagrams = |(vnet, frame): &(VnetHdr, Vec<u8>)| {
        let payload = frame.len() - TRANSPORT_AT - udp::HEADER_LEN;
        if vnet.gso_size == 0 { 1 } else { payload / usize::from(vnet.gso_size) }
    };
    let merged: Vec<usize> = merge_all(&frames).iter().map(datagrams).collect();
    assert_eq!(merged, [MOST_DATAGRAMS, MOST_DATAGRAMS, 1]);
}

#[test]
fn datagrams_are_put_together_only_for_who_takes_them() {
    let header = VnetHdr { gso_type: 0, gso_size: 0, ..vnet(false, 300) };
    let datagram = super_frame(false, 0, 0, b"data");
    for takes_datagrams in [false, true] {
        let mut count = 0;
        Merge::new().offer(PORT, takes_datagrams, header, &datagram[ROOM..], &mut |_, _, _| count += 1);
        assert_eq!(count, usize::from(!takes_datagrams));
    }
}
