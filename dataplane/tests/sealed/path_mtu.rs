//! Paths that carry less than the interface: what is sent fits, and whoever must not be cut is told.

use crate::world::*;
use etherparse::{Ipv4Slice, NetSlice, SlicedPacket, TransportSlice};
use skep_dataplane::{DropReason, VnetHdr};

/// Nothing larger than `width` bytes arrives, outer headers included, from a certain time on.
fn narrow(width: usize, since: u64) -> impl FnMut(usize, usize, u64, Vec<u8>) -> Option<Vec<u8>> {
    move |_, _, at, bytes| (at < since || bytes.len() + 28 <= width).then_some(bytes)
}

#[test]
fn each_path_is_measured_and_reported() {
    let mut world = World::new(3).fated(|from, to, _, bytes| {
        let width = if from + to == 4 { 1_400 } else { 1_500 };
        (bytes.len() + 28 <= width).then_some(bytes)
    });
    world.run(5 * SECOND);
    assert_eq!(world.path(1, 2).mtu, 1_500);
    assert_eq!([world.path(1, 3).mtu, world.path(3, 1).mtu], [1_400, 1_400]);
}

#[test]
fn what_may_be_cut_is_cut_to_fit_also_when_the_path_becomes_narrower() {
    let mut world = World::pair();
    world.fate = Box::new(narrow(1_300, world.now + 2 * SECOND));
    let text = vec![7; 1_390];
    let begin = world.now;
    let mut lost_since = None;
    let mut longest = 0;
    while world.now < begin + 10 * SECOND {
        world.heard.clear();
        world.say(1, 2, &text);
        world.run_for(20);
        let bytes: usize = world.heard.iter().map(|(.., frame)| frame.len() - 34).sum();
        let is_whole = bytes == text.len() + 8;
        match (is_whole, lost_since) {
            (false, None) => lost_since = Some(world.now),
            (true, Some(since)) => {
                longest = longest.max(world.now - since);
                lost_since = None;
            }
            _ => {}
        }
    }
    assert_eq!(lost_since, None);
    assert!((1..=1_300).contains(&longest), "whole datagrams again after {longest} ms");
    assert!(world.path(1, 2).mtu <= 1_300);
}

#[test]
fn what_must_not_be_cut_is_answered_with_the_size_that_fits() {
    let mut world = World::new(2).fated(narrow(1_300, 0));
    world.run(5 * SECOND);
    let limit = world.path(1, 2).mtu - 82;
    for (size, fits) in [(usize::from(limit) - 28, true), (usize::from(limit) - 27, false)] {
        world.heard.clear();
        let mut frame = udp(container(1), container(2), &vec![7; size]);
        frame[20] = 0x40;
        crate::sim::resum(&mut frame);
        world.frame(1, PORT, VnetHdr::default(), &frame);
        world.run_for(5);
        let (_, node, .., heard) = world.heard.pop().unwrap();
        assert_eq!(node == 2, fits, "{size}");
        if !fits {
            let sliced = SlicedPacket::from_ethernet(&heard).unwrap();
            let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("{sliced:?}") };
            assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 4));
            assert_eq!(icmp.bytes5to8()[2..], limit.to_be_bytes());
            assert_eq!(icmp.payload()[..20], frame[14..34], "about the packet as it was sent");
        }
    }
    assert_eq!(world.dropped(1, DropReason::FragmentationNeeded), 1);
}

fn syn(mss: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(
        skep_dataplane::ids::MacAddr::for_ip(container(1)).0,
        skep_dataplane::ids::MacAddr::for_ip(container(2)).0,
    );
    let mut frame = Vec::new();
    let tcp = builder.ipv4(container(1).octets(), container(2).octets(), 64).tcp(4000, 80, 1, 65_000).syn();
    let options = [etherparse::TcpOptionElement::MaximumSegmentSize(mss)];
    tcp.options(&options).unwrap().write(&mut frame, b"").unwrap();
    frame
}

#[test]
fn a_connection_s_segments_fit_the_path_from_the_first_on() {
    let mut world = World::new(2).fated(narrow(1_300, 0));
    world.run(5 * SECOND);
    world.frame(1, PORT, VnetHdr::default(), &syn(1_378));
    world.run_for(5);
    let heard = world.heard.pop().unwrap().4;
    let sliced = SlicedPacket::from_ethernet(&heard).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (sliced.net, sliced.transport) else {
        panic!()
    };
    let header = tcp.to_header();
    let mss = header.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    });
    assert_eq!(mss, Some(world.path(2, 1).mtu - 82 - 40));
    assert_eq!(header.checksum, checksum(&ip, &header));
}

fn checksum(ip: &Ipv4Slice<'_>, tcp: &etherparse::TcpHeader) -> u16 {
    tcp.calc_checksum_ipv4(&ip.header().to_header(), &[]).unwrap()
}

#[test]
fn a_super_frame_is_cut_to_fit_the_path() {
    let mut world = World::new(2).fated(narrow(1_300, 0));
    world.run(5 * SECOND);
    let limit = usize::from(world.path(1, 2).mtu) - 82;
    let payload: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
    let builder = etherparse::PacketBuilder::ethernet2(
        skep_dataplane::ids::MacAddr::for_ip(container(1)).0,
        skep_dataplane::ids::MacAddr::for_ip(container(2)).0,
    );
    let mut frame = Vec::new();
    let tcp = builder.ipv4(container(1).octets(), container(2).octets(), 64).tcp(4000, 80, 1, 65_000).ack(1);
    tcp.write(&mut frame, &payload).unwrap();
    let vnet = VnetHdr {
        flags: VnetHdr::NEEDS_CSUM,
        gso_type: VnetHdr::GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1_378,
        csum_start: 34,
        csum_offset: 16,
    };
    world.frame(1, PORT, vnet, &frame);
    world.run_for(5);
    let mut heard = Vec::new();
    for (.., vnet, frame) in &world.heard {
        assert!(frame.len() - 14 <= limit, "{} bytes", frame.len());
        assert_eq!(vnet.flags, VnetHdr::NEEDS_CSUM, "the checksum travels partial");
        heard.extend_from_slice(&frame[54..]);
    }
    assert_eq!(heard, payload);
}

/// As a router hands on what a client far away sent, or what is sent a second time: no super-frame. Nobody has to be told
/// of the path then, for whom it may be told may never hear of it.
#[test]
fn a_whole_segment_is_cut_to_fit_unless_it_was_spoilt() {
    let payload: Vec<u8> = (0..1_360u32).map(|n| (n % 251) as u8).collect();
    let builder = etherparse::PacketBuilder::ethernet2(
        skep_dataplane::ids::MacAddr::for_ip(container(1)).0,
        skep_dataplane::ids::MacAddr::for_ip(container(2)).0,
    );
    let tcp = builder.ipv4(container(1).octets(), container(2).octets(), 64).tcp(4000, 80, 7, 65_000);
    let mut frame = Vec::new();
    tcp.ack(1).psh().write(&mut frame, &payload).unwrap();
    frame[20] = 0x40;
    crate::sim::resum(&mut frame);
    for spoilt in [false, true] {
        let mut world = World::new(2).fated(narrow(1_300, 0));
        world.run(5 * SECOND);
        let limit = usize::from(world.path(1, 2).mtu) - 82;
        world.heard.clear();
        frame[60] ^= u8::from(spoilt);
        world.frame(1, PORT, VnetHdr::default(), &frame);
        world.run_for(5);
        if spoilt {
            assert!(world.heard.iter().all(|(_, node, ..)| *node == 1), "pieces of it would look whole");
            assert_eq!(world.dropped(1, DropReason::FragmentationNeeded), 1);
            continue;
        }
        let mut heard = Vec::new();
        for (_, node, .., piece) in &world.heard {
            assert!(*node == 2 && piece.len() - 14 <= limit, "{} bytes", piece.len());
            let seq = u32::from_be_bytes(piece[38..42].try_into().unwrap());
            assert_eq!(seq as usize, 7 + heard.len());
            heard.extend_from_slice(&piece[54..]);
        }
        assert_eq!(heard, payload);
        assert_eq!(world.dropped(1, DropReason::FragmentationNeeded), 0);
    }
}
