//! Packets in pieces: cut by the engine, and carried through VIPs and ingress.

use crate::sim::*;
use etherparse::Ipv4HeaderSlice;
use proptest::prelude::*;
use skep_dataplane::DropReason;
use skep_dataplane::ids::MacAddr;
use skep_dataplane::snapshot::{L4, ServicePorts};
use std::collections::BTreeMap;
use std::time::Duration;

const CLIENT: &str = "10.1.0.3";
const VIP: &str = "10.1.0.2";
const BACKEND: &str = "10.1.0.5";

fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container(CLIENT, 1, 1)
        .container("10.1.0.4", 1, 2)
        .container(BACKEND, 2, 1)
        .service(VIP, &[BACKEND], ServicePorts::All);
    Sim::new(2, vec![overlay])
}

/// Cuts a frame the way a kernel does, into pieces of `size` payload bytes (a multiple of 8).
fn cut(frame: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let payload = &frame[34..];
    let mut pieces = Vec::new();
    for (nth, chunk) in payload.chunks(size).enumerate() {
        let offset = nth * size;
        let more = offset + chunk.len() < payload.len();
        let mut piece = [&frame[..34], chunk].concat();
        piece[16..18].copy_from_slice(&((20 + chunk.len()) as u16).to_be_bytes());
        piece[18..20].copy_from_slice(&id.to_be_bytes());
        piece[20..22].copy_from_slice(&((offset / 8) as u16 | u16::from(more) << 13).to_be_bytes());
        resum(&mut piece);
        pieces.push(piece);
    }
    pieces
}

/// Puts fragments back together, in any order, into the frame they were.
fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut pieces = BTreeMap::new();
    let mut end = None;
    for frame in frames {
        let header = Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        let offset = usize::from(header.fragments_offset().value()) * 8;
        let payload = frame[34..].to_vec();
        if !header.more_fragments() {
            end = Some(offset + payload.len());
        }
        pieces.insert(offset, payload);
    }
    let payload: Vec<u8> = pieces.values().flatten().copied().collect();
    assert_eq!(Some(payload.len()), end, "no holes, no overlaps");
    let mut whole = [&frames[0][..34], &payload].concat();
    whole[16..18].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
    whole[20..22].fill(0);
    resum(&mut whole);
    whole
}

fn frames(sim: &mut Sim, node: usize, port: u32) -> Vec<Vec<u8>> {
    sim.received(node, port).into_iter().map(|(_, frame)| frame).collect()
}

#[test]
fn fragments_through_a_vip_follow_their_first_one() {
    let mut sim = sim();
    let whole = from_to(CLIENT, VIP).udp(4000, 53, &[5; 4000]);
    for piece in cut(&whole, 1424, 7) {
        sim.send(1, 1, &piece);
    }
    let seen = Seen::read(&join(&frames(&mut sim, 2, 1)));
    assert_eq!(seen.ends(), (ip(CLIENT), 4000, ip(BACKEND), 53));
    assert_eq!(seen.payload, [5; 4000]);

    let answer = from_to(BACKEND, CLIENT).udp(53, 4000, &[6; 4000]);
    for piece in cut(&answer, 1424, 8) {
        sim.send(2, 1, &piece);
    }
    let seen = Seen::read(&join(&frames(&mut sim, 1, 1)));
    assert_eq!(seen.ends(), (ip(VIP), 53, ip(CLIENT), 4000));
}

#[test]
fn the_gateway_answers_a_ping_in_pieces_in_any_order() {
    let mut sim = sim();
    let pieces = cut(&from_to(CLIENT, "10.1.0.1").ping(5, &[7; 4000]), 1424, 7);
    for order in [[0, 1, 2], [2, 0, 1]] {
        for nth in order {
            sim.send(1, 1, &pieces[nth]);
        }
        let pong = Seen::read(&join(&frames(&mut sim, 1, 1)));
        assert_eq!((pong.src, pong.dst, pong.icmp), (ip("10.1.0.1"), ip(CLIENT), Some((0, 0, [0, 5, 0, 1]))));
        assert_eq!(pong.payload, [7; 4000]);
        assert_eq!(pong.src_mac, MacAddr::for_ip(ip("10.1.0.1")));
        sim.advance(Duration::from_secs(60));
    }
    assert!(sim.engine(1).stats().drops.into_iter().all(|(_, n)| n == 0));
}

#[test]
fn a_fragment_that_overtook_its_first_one_waits_for_it() {
    let mut sim = sim();
    let whole = from_to(CLIENT, VIP).udp(4000, 53, &[5; 4000]);
    for piece in cut(&whole, 1424, 7).iter().rev() {
        sim.send(1, 1, piece);
    }
    assert_eq!(Seen::read(&join(&frames(&mut sim, 2, 1))).dst, ip(BACKEND));

    sim.send(1, 1, &from_to(CLIENT, VIP).udp(4000, 53, b"?"));
    sim.received(2, 1);
    let answer = from_to(BACKEND, CLIENT).udp(53, 4000, &[6; 4000]);
    for piece in cut(&answer, 1424, 8).iter().rev() {
        sim.send(2, 1, piece);
    }
    assert_eq!(Seen::read(&join(&frames(&mut sim, 1, 1))).src, ip(VIP));
}

#[test]
fn a_fragment_whose_first_one_never_comes_is_let_go() {
    let mut sim = sim();
    let whole = from_to(CLIENT, VIP).udp(4000, 53, &[5; 20_000]);
    for piece in &cut(&whole, 400, 7)[1..] {
        sim.send(1, 1, piece);
    }
    assert_eq!(sim.dropped(1, DropReason::FragmentHoldFull), 50 - 48);
    assert_eq!(sim.engine(1).poll_timeout(), Some(sim.now + Duration::from_millis(100)));
    sim.advance(Duration::from_millis(100));
    assert_eq!(sim.dropped(1, DropReason::FragmentOrphaned), 48);
    sim.assert_silent();
    assert!(sim.wire.is_empty());
}

#[test]
fn fragments_between_strangers_to_every_service_pass_in_any_order() {
    let mut sim = sim();
    let whole = from_to(CLIENT, "10.1.0.4").udp(4000, 53, &[5; 4000]);
    let mut pieces = cut(&whole, 1424, 7);
    pieces.rotate_left(1);
    for piece in &pieces {
        sim.send(1, 1, piece);
    }
    assert_eq!(frames(&mut sim, 1, 2), pieces);
}

#[test]
fn fragments_keep_the_clients_address_through_ingress() {
    let ports = ServicePorts::Only(vec![(L4::Udp, 53)]);
    let mut ingress = Overlay::new(4096, "10.0.0.0/24", "10.0.0.1")
        .host("10.0.0.251", 1, 100)
        .host("10.0.0.252", 2, 100)
        .container("10.0.0.7", 2, 1)
        .service("10.0.0.5", &["10.0.0.7"], ports);
    ingress.ingress = true;
    let mut sim = Sim::new(2, vec![ingress]);
    let client = "192.168.77.200";
    let question = from_to(client, "10.0.0.5").by("10.0.0.251").udp(4000, 53, &[5; 4000]);
    for piece in cut(&question, 1424, 7) {
        sim.send(1, 100, &piece);
    }
    let seen = Seen::read(&join(&frames(&mut sim, 2, 1)));
    assert_eq!(seen.ends(), (ip(client), 4000, ip("10.0.0.7"), 53));
    let answer = from_to("10.0.0.7", client).via("10.0.0.1").udp(53, 4000, &[6; 4000]);
    for piece in cut(&answer, 1424, 8).iter().rev() {
        sim.send(2, 1, piece);
    }
    let seen = Seen::read(&join(&frames(&mut sim, 1, 100)));
    assert_eq!(seen.ends(), (ip("10.0.0.5"), 53, ip(client), 4000));
    assert_eq!(seen.ttl, 63, "one hop, whether a fragment waited or not");
}

#[test]
fn at_the_entry_a_fragment_that_overtook_its_first_one_waits_to_learn_its_service() {
    let ports = ServicePorts::Only(vec![(L4::Udp, 53)]);
    let mut ingress = Overlay::new(4096, "10.0.0.0/24", "10.0.0.1")
        .host("10.0.0.251", 1, 100)
        .host("10.0.0.252", 2, 100)
        .container("10.0.0.7", 2, 1)
        .service("10.0.0.4", &["10.0.0.7"], ports.clone())
        .service("10.0.0.5", &["10.0.0.7"], ports);
    ingress.ingress = true;
    let mut sim = Sim::new(2, vec![ingress]);
    let client = "192.168.77.200";
    sim.send(1, 100, &from_to(client, "10.0.0.5").by("10.0.0.251").udp(4000, 53, b"?"));
    sim.clear();
    let answer = from_to("10.0.0.7", client).udp(53, 4000, &[6; 4000]);
    for mut piece in cut(&answer, 1424, 8).into_iter().rev() {
        piece[..6].copy_from_slice(&MacAddr::for_ip(ip("10.0.0.251")).0);
        sim.inject(vtep(2), 1, &[&[8, 0, 0, 0, 0, 0x10, 0, 0], &piece[..]].concat());
    }
    let seen = Seen::read(&join(&frames(&mut sim, 1, 100)));
    assert_eq!(seen.ends(), (ip("10.0.0.5"), 53, ip(client), 4000));
}

#[test]
fn options_not_meant_for_every_fragment_stay_on_the_first() {
    let mut sim = sim();
    let plain = from_to(CLIENT, BACKEND).udp(4000, 53, &[5; 2000]);
    // Record route (7, on the first only) and stream identifier (136, copied), padded to 12 bytes.
    let options = [7, 7, 4, 0, 0, 0, 0, 136, 4, 0, 9, 0];
    let mut frame = [&plain[..34], &options, &plain[34..]].concat();
    frame[14] = 0x48;
    let total_len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total_len.to_be_bytes());
    resum(&mut frame);
    sim.send(1, 1, &frame);
    let frames = frames(&mut sim, 2, 1);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0][14], 0x48);
    assert_eq!(frames[0][34..46], options);
    assert_eq!(frames[1][14], 0x46);
    assert_eq!(frames[1][34..38], [136, 4, 0, 9]);
    assert_eq!(frames[0].len() - 46 + frames[1].len() - 38, 2008);
}

#[test]
fn malformed_fragments_are_dropped() {
    let mut sim = sim();
    let mut odd = from_to(CLIENT, BACKEND).udp(4000, 53, b"123");
    odd[20] = 0x20;
    resum(&mut odd);
    let mut past_the_end = from_to(CLIENT, BACKEND).udp(4000, 53, &[1; 800]);
    past_the_end[20..22].copy_from_slice(&0x1fffu16.to_be_bytes());
    resum(&mut past_the_end);
    sim.send(1, 1, &odd);
    sim.send(1, 1, &past_the_end);
    assert_eq!(sim.dropped(1, DropReason::FragmentMalformed), 2);
    assert!(sim.wire.is_empty());
}

#[test]
fn the_largest_datagram_comes_through_a_vip_in_any_order() {
    let payload: Vec<u8> = (0..65_507u32).map(|n| (n * 7 + n / 255) as u8).collect();
    let whole = from_to(CLIENT, VIP).udp(4000, 53, &payload);
    let mut pieces = cut(&whole, 1424, 7);
    assert_eq!(pieces.len(), 46 + 1);
    let mut sim = sim();
    for round in 0..20 {
        // Every seventh, backwards, from another place each time.
        let count = pieces.len();
        let shuffled =
            (0..count).map(|n| pieces[(round * 5 + (count - n) * 7) % count].clone()).collect::<Vec<_>>();
        for piece in &shuffled {
            sim.send(1, 1, piece);
        }
        let seen = Seen::read(&join(&frames(&mut sim, 2, 1)));
        assert_eq!((seen.ends(), seen.payload), ((ip(CLIENT), 4000, ip(BACKEND), 53), payload.clone()));
        pieces = cut(&whole, 1424, 8 + round as u16);
    }
    assert!(sim.engine(1).stats().drops.into_iter().all(|(_, n)| n == 0));
}

#[test]
fn of_a_datagram_whose_fragments_overlap_nothing_more_goes_on() {
    for (start, len) in [(1416usize, 1424usize), (8, 3200), (1416, 16), (2000, 1424), (2840, 1424)] {
        let mut sim = sim();
        let whole = from_to(CLIENT, VIP).udp(4000, 53, &[5; 5000]);
        let pieces = cut(&whole, 1424, 7);
        let mut overlapping = [&whole[..34], &whole[34 + start..34 + start + len]].concat();
        overlapping[16..18].copy_from_slice(&((20 + len) as u16).to_be_bytes());
        overlapping[18..20].copy_from_slice(&7u16.to_be_bytes());
        overlapping[20..22].copy_from_slice(&((start / 8) as u16 | 0x2000).to_be_bytes());
        resum(&mut overlapping);
        for piece in [&pieces[0], &pieces[2], &overlapping, &pieces[1], &pieces[3]] {
            sim.send(1, 1, piece);
        }
        assert_eq!(frames(&mut sim, 2, 1).len(), 2, "{start}");
        assert_eq!(sim.dropped(1, DropReason::FragmentOverlap), 1 + 2);
        // The next datagram is another one.
        cut(&whole, 1424, 8).iter().for_each(|piece| sim.send(1, 1, piece));
        assert_eq!(Seen::read(&join(&frames(&mut sim, 2, 1))).payload, [5; 5000]);
    }
}

#[test]
fn fragments_that_the_network_repeats_go_on_once() {
    let mut sim = sim();
    let whole = from_to(CLIENT, VIP).udp(4000, 53, &[5; 5000]);
    let pieces = cut(&whole, 1424, 7);
    for piece in &pieces[..3] {
        sim.send(1, 1, piece);
        sim.send(1, 1, piece);
    }
    sim.send(1, 1, &pieces[3]);
    assert_eq!(sim.dropped(1, DropReason::FragmentRepeated), 3);
    assert_eq!(Seen::read(&join(&frames(&mut sim, 2, 1))).payload, [5; 5000]);
    // A sender that has come round to the same identification.
    pieces.iter().for_each(|piece| sim.send(1, 1, piece));
    assert_eq!(Seen::read(&join(&frames(&mut sim, 2, 1))).payload, [5; 5000]);
}

/// RFC 1858: what a first fragment shows is what a filter sees, so it has to show the header, and nothing may change
/// it later.
#[test]
fn a_tcp_header_comes_in_one_piece() {
    let mut sim = sim();
    for dst in [VIP, BACKEND] {
        let whole = from_to(CLIENT, dst).tcp(4000, 80, "S", 1, 0, &[5; 100]);
        for size in [8, 16] {
            cut(&whole, size, size as u16).iter().for_each(|piece| sim.send(1, 1, piece));
        }
        let later = &cut(&whole, 8, 99)[1..3];
        later.iter().for_each(|piece| sim.send(1, 1, piece));
    }
    assert_eq!(sim.dropped(1, DropReason::TransportMalformed), 4, "the first ones of 8 and 16 bytes");
    assert_eq!(sim.dropped(1, DropReason::FragmentMalformed), 2 * (2 + 1 + 2));
    let headers =
        frames(&mut sim, 2, 1).iter().filter(|frame| frame[20] & 0x1f == 0 && frame[21] < 3).count();
    assert_eq!(headers, 0);
}

/// A port that sends beginnings, or middles, of datagrams that never end.
#[test]
fn a_flood_of_lone_fragments_costs_another_port_none_of_its_own() {
    const FLOOD: usize = 200_000;
    let mut sim = sim();
    let lone = cut(&from_to("10.1.0.4", VIP).udp(4000, 53, &[6; 64]), 32, 0);
    let whole = from_to(CLIENT, VIP).udp(4000, 53, &[5; 4000]);
    let (mut sent, mut arrived) = (0, 0);
    for n in 0..FLOOD {
        // First beginnings, then middles: each of a datagram of its own.
        let mut piece = lone[usize::from(n >= FLOOD / 2)].clone();
        piece[18..20].copy_from_slice(&(n as u16).to_be_bytes());
        resum(&mut piece);
        sim.send(1, 2, &piece);
        if n % 1000 == 0 {
            let mut pieces = cut(&whole, 1424, (n / 1000) as u16);
            if n % 2000 == 0 {
                pieces.reverse();
            }
            sim.clear();
            for piece in pieces {
                sim.send(1, 1, &piece);
                // More of the flood between one's own.
                sim.send(1, 2, &lone[1]);
            }
            let own: Vec<_> = frames(&mut sim, 2, 1).into_iter().filter(|frame| frame[29] == 3).collect();
            sent += 1;
            arrived += usize::from(own.len() == 3 && Seen::read(&join(&own)).payload == [5; 4000]);
            sim.wire.clear();
        }
        if n % 50_000 == 49_999 {
            sim.advance(Duration::from_millis(100));
        }
    }
    assert_eq!((sent, arrived), (FLOOD / 1000, FLOOD / 1000));
    assert!(sim.dropped(1, DropReason::FragmentHoldFull) > FLOOD as u64 / 4, "the cap holds");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_the_engine_cuts_joins_to_what_was_sent(len in 1430usize..60_000, via_vip in any::<bool>()) {
        let mut sim = sim();
        let payload: Vec<u8> = (0..len).map(|n| (n * 13 + n / 255) as u8).collect();
        sim.send(1, 1, &from_to(CLIENT, if via_vip { VIP } else { BACKEND }).udp(4000, 53, &payload));
        let frames = frames(&mut sim, 2, 1);
        prop_assert!(frames.len() > 1);
        prop_assert!(frames.iter().all(|frame| frame.len() - 14 <= usize::from(MTU)));
        let seen = Seen::read(&join(&frames));
        prop_assert_eq!(seen.ends(), (ip(CLIENT), 4000, ip(BACKEND), 53));
        prop_assert_eq!(seen.payload, payload);
    }

    #[test]
    fn a_fragment_cut_again_keeps_its_place(size in 1usize..60, len in 3000usize..20_000) {
        let mut sim = sim();
        let whole = from_to(CLIENT, BACKEND).udp(4000, 53, &vec![9; len]);
        for piece in cut(&whole, 1504 + size * 8, 7) {
            sim.send(1, 1, &piece);
        }
        prop_assert_eq!(Seen::read(&join(&frames(&mut sim, 2, 1))).payload, vec![9; len]);
    }
    /// In any order, some of them twice, there and back: each side gets the whole, from whom it asked.
    #[test]
    fn pieces_in_any_order_make_the_whole(
        len in 2000usize..9000,
        size in 75usize..178,
        order in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut sim = sim();
        let payload: Vec<u8> = (0..len).map(|n| (n * 13 + n / 255) as u8).collect();
        let shuffled = |whole: &[u8], id| {
            // No more than are held for one packet.
            let mut rest = cut(whole, (size * 8).max(len / 6 / 8 * 8 + 8), id);
            let mut pieces = Vec::new();
            for at in &order {
                if rest.is_empty() {
                    break;
                }
                let piece = rest.remove(at.index(rest.len()));
                if at.index(4) == 0 {
                    pieces.push(piece.clone());
                }
                pieces.push(piece);
            }
            pieces
        };
        for piece in shuffled(&from_to(CLIENT, VIP).udp(4000, 53, &payload), 7) {
            sim.send(1, 1, &piece);
        }
        let asked = Seen::read(&join(&frames(&mut sim, 2, 1)));
        prop_assert_eq!((asked.ends(), &asked.payload), ((ip(CLIENT), 4000, ip(BACKEND), 53), &payload));
        for piece in shuffled(&from_to(BACKEND, CLIENT).udp(53, 4000, &payload), 8) {
            sim.send(2, 1, &piece);
        }
        let told = Seen::read(&join(&frames(&mut sim, 1, 1)));
        prop_assert_eq!((told.ends(), &told.payload), ((ip(VIP), 53, ip(CLIENT), 4000), &payload));
    }
}
