//! Plain unicast, ARP and the source checks.

use crate::sim::*;
use skep_dataplane::ids::MacAddr;
use skep_dataplane::snapshot::ServicePorts;
use skep_dataplane::{DropReason, VnetHdr};

fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container("10.1.0.3", 1, 1)
        .container("10.1.0.4", 1, 2)
        .container("10.1.0.5", 2, 1)
        .service("10.1.0.2", &["10.1.0.5"], ServicePorts::All);
    let other = Overlay::new(4098, "10.2.0.0/24", "10.2.0.1").container("10.2.0.3", 3, 1);
    Sim::new(3, vec![overlay, other])
}

fn arp(sender: &str, target: &str) -> Vec<u8> {
    let (sender, target) = (ip(sender), ip(target));
    let mut frame = vec![0xff; 6];
    frame.extend(MacAddr::for_ip(sender).0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(MacAddr::for_ip(sender).0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

#[test]
fn a_frame_reaches_a_container_of_the_same_node_untouched() {
    let mut sim = sim();
    let frame = from_to("10.1.0.3", "10.1.0.4").udp(4000, 53, b"hello");
    sim.send(1, 1, &frame);
    assert_eq!(sim.received(1, 2), [(VnetHdr::default(), frame)]);
    assert!(sim.wire.is_empty());
}

#[test]
fn a_frame_reaches_a_container_of_another_node_in_vxlan() {
    let mut sim = sim();
    let frame = from_to("10.1.0.3", "10.1.0.5").udp(4000, 53, b"hello");
    sim.send(1, 1, &frame);
    let (from, to, datagram) = sim.wire[0].clone();
    assert_eq!((from, to), (vtep(1), vtep(2)));
    assert_eq!(datagram[..8], [8, 0, 0, 0, 0, 0x10, 0x01, 0]);
    assert_eq!(datagram[8..], frame);
    assert_eq!(sim.received(2, 1), [(VnetHdr::default(), frame)]);
}

#[test]
fn arp_is_answered_for_endpoints_vips_and_the_gateway() {
    let mut sim = sim();
    for target in ["10.1.0.5", "10.1.0.4", "10.1.0.2", "10.1.0.1"] {
        sim.send(1, 1, &arp("10.1.0.3", target));
        let frames = sim.received(1, 1);
        let frame = &frames[0].1;
        assert_eq!(frame[..6], MacAddr::for_ip(ip("10.1.0.3")).0);
        assert_eq!(frame[20..22], [0, 2]);
        assert_eq!(frame[22..28], MacAddr::for_ip(ip(target)).0);
        assert_eq!(frame[28..32], ip(target).octets());
    }
    assert!(sim.wire.is_empty(), "nothing is flooded");
}

#[test]
fn arp_stays_silent_about_the_asker_and_about_nobody() {
    let mut sim = sim();
    sim.send(1, 1, &arp("10.1.0.3", "10.1.0.3"));
    let mut probe = arp("10.1.0.3", "10.1.0.3");
    probe[28..32].fill(0);
    sim.send(1, 1, &probe);
    sim.send(1, 1, &arp("10.1.0.3", "10.1.0.77"));
    let mut reply = arp("10.1.0.3", "10.1.0.4");
    reply[21] = 2;
    sim.send(1, 1, &reply);
    sim.assert_silent();
    for reason in [
        DropReason::ArpGratuitous,
        DropReason::ArpProbe,
        DropReason::ArpUnknownAddress,
        DropReason::ArpUnsolicited,
    ] {
        assert_eq!(sim.dropped(1, reason), 1, "{reason}");
    }
}

#[test]
fn a_peer_that_floods_its_question_is_told_about_local_endpoints() {
    let mut sim = sim();
    let mut question = vec![8, 0, 0, 0, 0, 0x10, 0x01, 0];
    question.extend(arp("10.1.0.5", "10.1.0.3"));
    sim.inject(vtep(2), 1, &question);
    let (_, to, answer) = &sim.wire[0];
    assert_eq!(*to, vtep(2));
    assert_eq!(answer[8 + 22..8 + 28], MacAddr::for_ip(ip("10.1.0.3")).0);
}

#[test]
fn a_port_may_only_use_its_own_addresses() {
    let mut sim = sim();
    sim.send(1, 1, &from_to("10.1.0.4", "10.1.0.5").udp(1, 2, b""));
    sim.send(1, 1, &from_to("10.1.0.4", "10.1.0.5").by("10.1.0.3").udp(1, 2, b""));
    sim.send(1, 1, &arp("10.1.0.4", "10.1.0.5"));
    sim.send(1, 77, &from_to("10.1.0.3", "10.1.0.5").udp(1, 2, b""));
    sim.assert_silent();
    assert_eq!(sim.dropped(1, DropReason::SpoofedMac), 2);
    assert_eq!(sim.dropped(1, DropReason::SpoofedSource), 1);
    assert_eq!(sim.dropped(1, DropReason::UnknownPort), 1);
}

#[test]
fn a_vtep_may_only_speak_for_its_own_endpoints_and_networks() {
    let mut sim = sim();
    let header = [8, 0, 0, 0, 0, 0x10, 0x01, 0];
    let with = |header: [u8; 8], frame: Vec<u8>| [header.to_vec(), frame].concat();
    let own = from_to("10.1.0.5", "10.1.0.3");
    sim.inject(vtep(2), 1, &with(header, from_to("10.1.0.4", "10.1.0.3").udp(1, 2, b"")));
    sim.inject(vtep(2), 1, &with(header, from_to("10.1.0.4", "10.1.0.3").by("10.1.0.5").udp(1, 2, b"")));
    sim.inject(vtep(3), 1, &with(header, own.udp(1, 2, b"")));
    sim.inject(vtep(9), 1, &with(header, own.udp(1, 2, b"")));
    sim.inject(vtep(2), 1, &with([8, 0, 0, 0, 0, 0x55, 0, 0], own.udp(1, 2, b"")));
    sim.inject(vtep(2), 1, &[0, 0, 0, 0, 0, 0x10, 1, 1]);
    sim.inject(vtep(2), 1, &with([0, 0, 0, 0, 0, 0x10, 1, 0], own.udp(1, 2, b"")));
    sim.inject(vtep(2), 1, &with([8, 0, 0, 0, 0, 0x10, 1, 2], own.udp(1, 2, b"")));
    sim.assert_silent();
    for (reason, count) in [
        (DropReason::SpoofedMac, 1),
        (DropReason::SpoofedSource, 1),
        (DropReason::UnknownVtep, 2),
        (DropReason::UnknownVni, 1),
        (DropReason::Truncated, 1),
        (DropReason::VxlanMark, 1),
        (DropReason::VxlanFlags, 1),
    ] {
        assert_eq!(sim.dropped(1, reason), count, "{reason}");
    }
    sim.inject(vtep(2), 1, &with(header, own.udp(1, 2, b"")));
    assert_eq!(sim.receive(1, 1).src, ip("10.1.0.5"));
}

#[test]
fn what_came_from_the_underlay_does_not_return_to_it() {
    let mut sim = sim();
    let frame = from_to("10.1.0.5", "10.1.0.5").via("10.1.0.5").udp(1, 2, b"");
    sim.inject(vtep(2), 1, &[&[8, 0, 0, 0, 0, 0x10, 1, 0], &frame[..]].concat());
    let vip = from_to("10.1.0.5", "10.1.0.2").udp(1, 2, b"");
    sim.inject(vtep(2), 1, &[&[8, 0, 0, 0, 0, 0x10, 1, 0], &vip[..]].concat());
    assert_eq!(sim.dropped(1, DropReason::NotLocal), 1);
    assert_eq!(sim.dropped(1, DropReason::VipFromPeer), 1);
    assert!(sim.wire.is_empty());
}

#[test]
fn broadcast_multicast_ipv6_and_strangers_are_dropped_by_name() {
    let mut sim = sim();
    let make = from_to("10.1.0.3", "10.1.0.5");
    let mut broadcast = make.udp(1, 2, b"");
    broadcast[..6].fill(0xff);
    let mut multicast = make.udp(1, 2, b"");
    multicast[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    let mut ipv6 = make.udp(1, 2, b"");
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    let mut vlan = make.udp(1, 2, b"");
    vlan[12..14].copy_from_slice(&[0x81, 0x00]);
    let mut broken = make.udp(1, 2, b"");
    broken[24] ^= 1;
    for frame in [broadcast, multicast, ipv6, vlan, broken, make.ttl(0).udp(1, 2, b"")] {
        sim.send(1, 1, &frame);
    }
    sim.send(1, 1, &from_to("10.1.0.3", "10.1.0.77").udp(1, 2, b""));
    sim.send(1, 1, &from_to("10.1.0.3", "10.1.0.77").via("10.1.0.5").udp(1, 2, b""));
    sim.assert_silent();
    for reason in [
        DropReason::Broadcast,
        DropReason::Multicast,
        DropReason::Ipv6,
        DropReason::UnknownEthertype,
        DropReason::IpChecksum,
        DropReason::TtlZero,
        DropReason::UnknownDestination,
        DropReason::WrongDestination,
    ] {
        assert_eq!(sim.dropped(1, reason), 1, "{reason}");
    }
}

#[test]
fn padding_after_the_packet_does_not_travel() {
    let mut sim = sim();
    let frame = from_to("10.1.0.3", "10.1.0.5").udp(1, 2, b"x");
    sim.send(1, 1, &[&frame[..], &[0; 17]].concat());
    assert_eq!(sim.received(2, 1), [(VnetHdr::default(), frame)]);
}

#[test]
fn ports_count_what_they_sent_and_were_handed() {
    let mut sim = sim();
    let frame = from_to("10.1.0.3", "10.1.0.4").udp(1, 2, b"x");
    sim.send(1, 1, &frame);
    let stats = sim.engine(1).stats();
    let bytes = frame.len() as u64;
    assert_eq!((stats.ports[0].1.frames_from, stats.ports[0].1.bytes_from), (1, bytes));
    assert_eq!((stats.ports[1].1.frames_to, stats.ports[1].1.bytes_to), (1, bytes));
}
