//! Super-frames and partial checksums, as a TAP with `IFF_VNET_HDR` delivers them.

use crate::sim::*;
use etherparse::{Ipv4HeaderSlice, TcpHeaderSlice};
use proptest::prelude::*;
use skep_dataplane::snapshot::ServicePorts;
use skep_dataplane::{DropReason, VnetHdr};

const CLIENT: &str = "10.1.0.3";
const VIP: &str = "10.1.0.2";
const LOCAL: &str = "10.1.0.4";
const REMOTE: &str = "10.1.0.5";

fn sim(backend: &str) -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container(CLIENT, 1, 1)
        .container(LOCAL, 1, 2)
        .container(REMOTE, 2, 1)
        .service(VIP, &[backend], ServicePorts::All);
    Sim::new(2, vec![overlay])
}

/// Leaves the frame's checksum to the receiver: the field holds the pseudo-header's sum.
pub(crate) fn partial(frame: &mut [u8]) {
    let header_len = usize::from(frame[14] & 0xf) * 4;
    let l4 = 14 + header_len;
    let place = l4 + if frame[23] == 6 { 16 } else { 6 };
    let mut sum = u32::from(frame[23]) + (frame.len() - l4) as u32;
    sum += frame[26..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[place..place + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}

/// The TCP frame with these options, a multiple of four bytes; its checksum is left wrong.
pub(crate) fn with_options(mut frame: Vec<u8>, options: &[u8]) -> Vec<u8> {
    frame.splice(54..54, options.iter().copied());
    frame[46] += ((options.len() / 4) << 4) as u8;
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    resum(&mut frame);
    frame
}

/// Gives a TCP frame its full checksum.
pub(crate) fn finish(frame: &mut [u8]) {
    partial(frame);
    let mut sum: u32 =
        frame[34..].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[50..52].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

pub(crate) fn tcp_offload(mss: u16) -> VnetHdr {
    VnetHdr {
        flags: VnetHdr::NEEDS_CSUM,
        gso_type: VnetHdr::GSO_TCPV4,
        hdr_len: 9999,
        gso_size: mss,
        csum_start: 34,
        csum_offset: 16,
    }
}

pub(crate) fn udp_offload(size: u16) -> VnetHdr {
    VnetHdr { gso_type: VnetHdr::GSO_UDP_L4, csum_offset: 6, ..tcp_offload(size) }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn a_super_frame_for_a_neighbour_passes_whole() {
    let mut sim = sim(LOCAL);
    let mut frame = from_to(CLIENT, LOCAL).tcp(4000, 80, "PA", 1, 1, &payload(30_000));
    partial(&mut frame);
    sim.send_offloaded(1, 1, tcp_offload(1410), &frame);
    let expected = VnetHdr { hdr_len: 54, ..tcp_offload(1410) };
    assert_eq!(sim.received(1, 2), [(expected, frame)]);
}

#[test]
fn a_super_frame_through_a_vip_keeps_a_partial_checksum() {
    let mut sim = sim(LOCAL);
    let mut syn = from_to(CLIENT, VIP).tcp(4000, 80, "S", 1, 0, b"");
    partial(&mut syn);
    sim.send_offloaded(1, 1, VnetHdr { gso_type: 0, gso_size: 0, ..tcp_offload(0) }, &syn);
    let mut expected = from_to(CLIENT, LOCAL).tcp(4000, 80, "S", 1, 0, b"");
    partial(&mut expected);
    assert_eq!(sim.received(1, 2)[0].1, expected);
    let mut frame = from_to(CLIENT, VIP).tcp(4000, 80, "PA", 2, 1, &payload(20_000));
    partial(&mut frame);
    sim.send_offloaded(1, 1, tcp_offload(1410), &frame);
    let mut expected = from_to(CLIENT, LOCAL).tcp(4000, 80, "PA", 2, 1, &payload(20_000));
    partial(&mut expected);
    assert_eq!(sim.received(1, 2), [(VnetHdr { hdr_len: 54, ..tcp_offload(1410) }, expected)]);
}

#[test]
fn a_partial_checksum_is_completed_for_the_underlay() {
    let mut sim = sim(REMOTE);
    let mut frame = from_to(CLIENT, REMOTE).udp(4000, 53, b"hello");
    let complete = frame.clone();
    partial(&mut frame);
    sim.send_offloaded(1, 1, VnetHdr { gso_type: 0, gso_size: 0, ..udp_offload(0) }, &frame);
    assert_eq!(sim.received(2, 1), [(VnetHdr::default(), complete)]);
}

#[test]
fn a_complete_checksum_that_looks_partial_is_both() {
    let twice = |seq: u32| {
        let mut frame = from_to(CLIENT, REMOTE).tcp(4000, 80, "A", seq, 1, b"x");
        let complete = frame.clone();
        partial(&mut frame);
        (frame == complete).then_some(frame)
    };
    let frame = (0..=0xffff).find_map(twice).expect("a checksum takes every value");
    let mut sim = sim(REMOTE);
    sim.send(1, 1, &frame);
    let frames = sim.received(2, 1);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1, frame);
    assert_ne!(frames[0].0, VnetHdr::default(), "this is the one that can't be told apart");
    assert_complete(&frames[0].0, &frames[0].1);
}

fn from_peer(sim: &mut Sim, frame: &[u8]) {
    sim.inject(vtep(2), 1, &[&[8, 0, 0, 0, 0, 0x10, 1, 0], frame].concat());
}

#[test]
fn what_a_peers_kernel_left_partial_stays_partial_for_the_receiver() {
    let mut sim = sim(REMOTE);
    let mut small = from_to(REMOTE, CLIENT).tcp(80, 4000, "A", 1, 1, b"x");
    partial(&mut small);
    from_peer(&mut sim, &small);
    let checksum = VnetHdr { hdr_len: 54, gso_type: 0, gso_size: 0, ..tcp_offload(0) };
    assert_eq!(sim.received(1, 1), [(checksum, small)]);
    let mut large = from_to(REMOTE, CLIENT).tcp(80, 4000, "A", 1, 1, &payload(30_000));
    partial(&mut large);
    from_peer(&mut sim, &large);
    assert_eq!(sim.received(1, 1), [(VnetHdr { hdr_len: 54, ..tcp_offload(MTU - 40) }, large)]);
    let mut datagrams = from_to(REMOTE, CLIENT).udp(80, 4000, &payload(30_000));
    partial(&mut datagrams);
    from_peer(&mut sim, &datagrams);
    assert_eq!(sim.dropped(1, DropReason::OffloadSegmentSize), 1);
}

#[test]
fn a_partial_answer_through_a_vip_is_translated_as_one() {
    let mut sim = sim(REMOTE);
    sim.send(1, 1, &from_to(CLIENT, VIP).udp(4000, 53, b"?"));
    let mut answer = from_to(REMOTE, CLIENT).udp(53, 4000, b"!");
    partial(&mut answer);
    from_peer(&mut sim, &answer);
    let mut expected = from_to(VIP, CLIENT).udp(53, 4000, b"!");
    partial(&mut expected);
    let (vnet, frame) = sim.received(1, 1).remove(0);
    assert_eq!((vnet.flags, frame), (VnetHdr::NEEDS_CSUM, expected));
}

#[test]
fn fin_and_psh_stay_on_the_last_segment_and_cwr_on_the_first() {
    let mut sim = sim(REMOTE);
    let mut frame = from_to(CLIENT, REMOTE).tcp(4000, 80, "FPA", 1, 1, &payload(3000));
    frame[47] |= 0x80;
    partial(&mut frame);
    let ecn = VnetHdr { gso_type: VnetHdr::GSO_TCPV4 | VnetHdr::GSO_ECN, ..tcp_offload(1000) };
    sim.send_offloaded(1, 1, ecn, &frame);
    let flags: Vec<u8> = sim.received(2, 1).iter().map(|(_, frame)| frame[47]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
}

#[test]
fn segments_too_large_for_the_network_are_cut_again() {
    let mut sim = sim(REMOTE);
    let mut frame = from_to(CLIENT, REMOTE).tcp(4000, 80, "A", 1, 1, &payload(20_000));
    frame[20] = 0x40;
    resum(&mut frame);
    partial(&mut frame);
    sim.send_offloaded(1, 1, tcp_offload(8960), &frame);
    let frames = sim.received(2, 1);
    assert_eq!(frames.len(), 20_000usize.div_ceil(usize::from(MTU) - 40));
    assert!(frames.iter().all(|(_, frame)| frame.len() - 14 <= usize::from(MTU)));
}

#[test]
fn nonsense_headers_are_refused_by_name() {
    let mut sim = sim(REMOTE);
    let make = from_to(CLIENT, REMOTE);
    let tcp = make.tcp(4000, 80, "A", 1, 1, &payload(3000));
    let udp = make.udp(4000, 80, &payload(1000));
    let good = tcp_offload(1000);
    let cases = [
        (VnetHdr { gso_size: 0, ..good }, &tcp, DropReason::OffloadSegmentSize),
        (VnetHdr { gso_size: 1, ..good }, &tcp, DropReason::OffloadSegmentSize),
        (VnetHdr { gso_type: VnetHdr::GSO_TCPV6, ..good }, &tcp, DropReason::OffloadType),
        (VnetHdr { gso_type: VnetHdr::GSO_UDP_L4, ..good }, &tcp, DropReason::OffloadType),
        (VnetHdr { gso_type: VnetHdr::GSO_UDP_L4 | VnetHdr::GSO_ECN, ..good }, &udp, DropReason::OffloadType),
        (good, &udp, DropReason::OffloadType),
        (VnetHdr { flags: VnetHdr::NEEDS_CSUM | VnetHdr::RSC_INFO, ..good }, &tcp, DropReason::OffloadType),
        (VnetHdr { flags: 0, ..good }, &tcp, DropReason::OffloadChecksum),
        (VnetHdr { csum_start: 35, ..good }, &tcp, DropReason::OffloadChecksum),
        (VnetHdr { csum_offset: 6, ..good }, &tcp, DropReason::OffloadChecksum),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (vnet, frame, reason) in cases {
        sim.send_offloaded(1, 1, vnet, frame);
        *expected.entry(reason).or_insert(0) += 1;
        assert_eq!(sim.dropped(1, reason), expected[&reason], "{vnet:?}");
    }
    assert!(sim.wire.is_empty());
    sim.assert_silent();
}

/// A whole frame with its checksum done. One in 65,536 has a complete checksum that is its pseudo-header's sum too:
/// on a plain overlay it can't be told from a partial one, and completing it changes nothing.
fn assert_complete(vnet: &VnetHdr, frame: &[u8]) {
    let mut left_partial = frame.to_vec();
    partial(&mut left_partial);
    if frame == left_partial {
        let expected = VnetHdr { hdr_len: 54, gso_type: 0, gso_size: 0, ..tcp_offload(0) };
        assert_eq!(*vnet, expected);
        finish(&mut left_partial);
        assert_eq!(frame, left_partial, "neither complete nor partial");
    } else {
        assert_eq!(*vnet, VnetHdr::default());
    }
}

/// Puts segments back together the way TCP does, checking each on the way.
fn reassemble(frames: &[(VnetHdr, Vec<u8>)], seq: u32) -> Vec<u8> {
    let mut stream = Vec::new();
    for (vnet, frame) in frames {
        assert_complete(vnet, frame);
        let seen = Seen::read(frame);
        assert_eq!(seen.seq, seq.wrapping_add(stream.len() as u32));
        stream.extend(seen.payload);
    }
    stream
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tcp_segments_carry_the_stream(len in 1usize..60_000, mss in 64u16..9000, seq in any::<u32>()) {
        let mut sim = sim(REMOTE);
        let sent = payload(len);
        let mut frame = from_to(CLIENT, REMOTE).tcp(4000, 80, "PA", seq, 1, &sent);
        frame[18..20].copy_from_slice(&0xfff0u16.to_be_bytes());
        resum(&mut frame);
        partial(&mut frame);
        sim.send_offloaded(1, 1, tcp_offload(mss), &frame);
        let frames = sim.received(2, 1);
        prop_assert_eq!(reassemble(&frames, seq), sent);
        for (nth, (_, frame)) in frames.iter().enumerate() {
            let header = Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
            prop_assert_eq!(header.identification(), 0xfff0u16.wrapping_add(nth as u16));
            prop_assert!(usize::from(header.total_len()) <= usize::from(MTU));
            let tcp = TcpHeaderSlice::from_slice(&frame[34..]).unwrap();
            prop_assert_eq!(tcp.psh(), nth + 1 == frames.len());
        }
    }

    /// Whatever the options and flags: segments are what a kernel would have sent one by one.
    #[test]
    fn tcp_segments_repeat_their_header(
        options in prop::collection::vec(any::<u8>(), 0..=40),
        flags in any::<u8>(),
        mss in 1u16..3000,
        count in 1usize..20,
        short_by in 0usize..3000,
    ) {
        let options = &options[..options.len() / 4 * 4];
        // Neither a reset nor an opening carries a super-frame's data.
        let flags = flags & !0x06 | 0x10;
        let size = usize::from(mss).min(usize::from(MTU) - 40 - options.len());
        let len = (count * size).saturating_sub(short_by % size).max(1);
        let sent = payload(len.min(60_000));
        let mut frame = with_options(from_to(CLIENT, REMOTE).tcp(4000, 80, "A", 7, 9, &sent), options);
        frame[47] = flags;
        partial(&mut frame);
        let mut sim = sim(REMOTE);
        let offload = VnetHdr { gso_type: VnetHdr::GSO_TCPV4 | if flags & 0x80 != 0 { 0x80 } else { 0 }, ..tcp_offload(mss) };
        sim.send_offloaded(1, 1, offload, &frame);
        let frames = sim.received(2, 1);
        if sent.len() / usize::from(mss) > 1000 {
            return Ok(()); // more than a sender needs is refused
        }
        prop_assert_eq!(frames.len(), sent.len().div_ceil(size));
        let last = frames.len() - 1;
        for (nth, (_, piece)) in frames.iter().enumerate() {
            let part = &sent[nth * size..sent.len().min((nth + 1) * size)];
            let seq = 7 + (nth * size) as u32;
            let mut alone = with_options(from_to(CLIENT, REMOTE).tcp(4000, 80, "A", seq, 9, part), options);
            // CWR stays on the first (RFC 3168 §6.1.2), FIN and PSH on the last.
            alone[47] = flags & if nth > 0 { 0x7f } else { 0xff } & if nth < last { !0x09 } else { 0xff };
            alone[18..20].copy_from_slice(&(nth as u16).to_be_bytes());
            resum(&mut alone);
            finish(&mut alone);
            prop_assert_eq!(piece, &alone, "segment {} of {}", nth, last);
        }
    }

    #[test]
    fn udp_segments_are_the_datagrams_that_were_sent(count in 1usize..40, size in 1usize..1400, last in 0usize..1400) {
        let mut sim = sim(REMOTE);
        let last = last % size + 1;
        let sent = payload((count - 1) * size + last);
        let mut frame = from_to(CLIENT, REMOTE).udp(4000, 53, &sent);
        partial(&mut frame);
        sim.send_offloaded(1, 1, udp_offload(size as u16), &frame);
        let datagrams: Vec<_> = sim.received(2, 1).iter().map(|(_, frame)| Seen::read(frame).payload).collect();
        let expected: Vec<_> = sent.chunks(size).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(datagrams, expected);
    }
}
