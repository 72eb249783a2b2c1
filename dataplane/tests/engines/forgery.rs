//! What a container, or somebody on the underlay, makes up: counted under its reason, and heard by nobody.

use crate::sim::*;
use skep_dataplane::ids::MacAddr;
use skep_dataplane::snapshot::ServicePorts;
use skep_dataplane::{DropReason, VnetHdr};

const LIAR: &str = "10.1.0.3";
const VICTIM: &str = "10.1.0.4";
const FAR: &str = "10.1.0.5";
const VIP: &str = "10.1.0.2";
const GATEWAY: &str = "10.1.0.1";
/// Frames of each kind, of which each differs from the last.
const EACH: u32 = 5_000;

/// The liar and a victim on node 1, another victim on node 2, and another network on both.
fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", GATEWAY)
        .container(LIAR, 1, 1)
        .container(VICTIM, 1, 2)
        .container(FAR, 2, 1)
        .service(VIP, &[FAR], ServicePorts::All);
    let other =
        Overlay::new(4098, "10.2.0.0/24", "10.2.0.1").container("10.2.0.3", 1, 3).container("10.2.0.4", 2, 2);
    Sim::new(2, vec![overlay, other])
}

fn mac(address: &str) -> [u8; 6] {
    MacAddr::for_ip(ip(address)).0
}

fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

/// From the liar's own MAC.
fn own(dst: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(dst, mac(LIAR), ethertype, payload)
}

fn arp(operation: u8, sender_mac: [u8; 6], sender: &str, target: &str) -> Vec<u8> {
    let payload = [
        &[0, 1, 8, 0, 6, 4, 0, operation][..],
        &sender_mac,
        &ip(sender).octets(),
        &mac(target),
        &ip(target).octets(),
    ];
    own([0xff; 6], 0x0806, &payload.concat())
}

/// ICMPv6 from any address to all nodes.
fn ndp(kind: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    own([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet)
}

/// Each kind of forgery, the reason it goes no further, and a frame of it.
fn forgeries() -> Vec<(&'static str, DropReason, Vec<u8>)> {
    let udp = |src: &str| from_to(src, VICTIM).by(LIAR).udp(67, 68, &[0; 240]);
    let honest = from_to(LIAR, VICTIM).udp(4000, 53, b"?");
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = honest.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let mut jumbo = from_to(LIAR, VICTIM).udp(4000, 53, &[0; 8_950]);
    jumbo[20] = 0x40;
    resum(&mut jumbo);
    let mut longer_than_it_is = honest.clone();
    longer_than_it_is[16..18].copy_from_slice(&9000u16.to_be_bytes());
    resum(&mut longer_than_it_is);
    let mut dhcp = udp(GATEWAY);
    dhcp[..6].fill(0xff);
    let zero = "0.0.0.0";
    vec![
        ("an ARP reply for another's address", DropReason::ArpUnsolicited, arp(2, mac(LIAR), VICTIM, FAR)),
        ("an ARP reply for its own", DropReason::ArpUnsolicited, arp(2, mac(LIAR), LIAR, VICTIM)),
        ("an announcement", DropReason::ArpGratuitous, arp(1, mac(LIAR), VICTIM, VICTIM)),
        ("an announcement of the gateway", DropReason::ArpGratuitous, arp(1, mac(LIAR), GATEWAY, GATEWAY)),
        ("an ARP probe", DropReason::ArpProbe, arp(1, mac(LIAR), zero, VICTIM)),
        ("a question in another's name", DropReason::SpoofedSource, arp(1, mac(LIAR), VICTIM, FAR)),
        ("a question with another's MAC", DropReason::SpoofedMac, arp(1, mac(VICTIM), LIAR, FAR)),
        ("a neighbour advertisement", DropReason::Ipv6, ndp(136)),
        ("a router advertisement", DropReason::Ipv6, ndp(134)),
        ("a redirect", DropReason::Ipv6, ndp(137)),
        ("another's MAC", DropReason::SpoofedMac, with(6, &mac(VICTIM))),
        ("the gateway's MAC", DropReason::SpoofedMac, with(6, &mac(GATEWAY))),
        ("a group's MAC as the source", DropReason::SpoofedMac, with(6, &[1, 0, 0x5e, 0, 0, 1])),
        ("another's address", DropReason::SpoofedSource, from_to(FAR, VICTIM).by(LIAR).udp(1, 2, b"x")),
        ("a service's address", DropReason::SpoofedSource, from_to(VIP, VICTIM).by(LIAR).udp(1, 2, b"x")),
        (
            "the outside's address",
            DropReason::SpoofedSource,
            from_to("8.8.8.8", VICTIM).by(LIAR).udp(53, 2, b"x"),
        ),
        (
            "another network's address",
            DropReason::SpoofedSource,
            from_to("10.2.0.3", VICTIM).by(LIAR).udp(1, 2, b"x"),
        ),
        ("a DHCP offer", DropReason::Broadcast, dhcp),
        ("a DHCP offer from the gateway to one", DropReason::SpoofedSource, udp(GATEWAY)),
        (
            "STP",
            DropReason::UnknownEthertype,
            own([1, 0x80, 0xc2, 0, 0, 0], 38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]),
        ),
        ("LLDP", DropReason::UnknownEthertype, own([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, &[2, 7, 4])),
        ("LLC", DropReason::UnknownEthertype, own(mac(VICTIM), 3, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])),
        ("a VLAN tag", DropReason::UnknownEthertype, with(12, &[0x81, 0, 0x0f, 0xa1, 8, 0])),
        ("two of them", DropReason::UnknownEthertype, with(12, &[0x88, 0xa8, 0x0f, 0xa2, 0x81, 0])),
        ("MPLS", DropReason::UnknownEthertype, with(12, &[0x88, 0x47])),
        ("PPPoE", DropReason::UnknownEthertype, with(12, &[0x88, 0x64])),
        ("multicast", DropReason::Multicast, with(0, &[1, 0, 0x5e, 0, 0, 251])),
        ("another network's MAC", DropReason::UnknownDestination, with(0, &mac("10.2.0.3"))),
        ("one's address and another's MAC", DropReason::WrongDestination, with(0, &mac(FAR))),
        ("a jumbo that must not be cut", DropReason::FragmentationNeeded, jumbo),
        ("a jumbo that is none", DropReason::Truncated, longer_than_it_is),
        ("IPv4 that is none", DropReason::IpHeader, with(14, &[0x65])),
        ("nothing but a header", DropReason::Truncated, own(mac(VICTIM), 0x0800, &[])),
        ("less than a header", DropReason::Truncated, honest[..13].to_vec()),
    ]
}

/// Makes a frame another one of its kind: in its last byte, where nothing is checked.
fn vary(frame: &mut [u8], n: u32) {
    if frame.len() > 42
        && let Some(last) = frame.last_mut()
    {
        *last = n as u8;
    }
}

#[test]
fn no_forgery_of_a_port_reaches_another() {
    for (what, reason, mut frame) in forgeries() {
        let mut sim = sim();
        for n in 0..EACH {
            vary(&mut frame, n);
            sim.send(1, 1, &frame);
        }
        assert_eq!(sim.dropped(1, reason), u64::from(EACH), "{what}: {:?}", drops(&sim));
        let told = sim.received(1, 1).len();
        assert!(told == 0 || reason == DropReason::FragmentationNeeded, "{what}: {told} answers");
        sim.assert_silent();
        assert!(sim.wire.is_empty(), "{what}: went to another node");
        // Nothing was learned from it.
        sim.send(1, 2, &from_to(VICTIM, LIAR).udp(1, 2, b"!"));
        assert_eq!(sim.receive(1, 1).src, ip(VICTIM), "{what}");
        sim.send(2, 1, &from_to(FAR, VICTIM).udp(1, 2, b"!"));
        assert_eq!(sim.receive(1, 2).src, ip(FAR), "{what}");
    }
}

/// Of more MACs than any table would hold.
#[test]
fn a_flood_of_source_macs_fills_nothing() {
    let mut sim = sim();
    let mut frame = from_to(LIAR, VICTIM).udp(4000, 53, b"?");
    for n in 0..100_000u32 {
        frame[8..12].copy_from_slice(&n.to_be_bytes());
        sim.send(1, 1, &frame);
    }
    // One of them is its own.
    assert!(sim.dropped(1, DropReason::SpoofedMac) >= 99_999);
    assert!(sim.received(1, 2).len() <= 1);
    sim.assert_silent();
}

fn drops(sim: &Sim) -> Vec<(DropReason, u64)> {
    sim.engine(1).stats().drops.into_iter().filter(|(_, n)| *n > 0).collect()
}

fn wrapped(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat()
}

/// Every network there could be, with frames its containers would take.
#[test]
fn nobody_outside_the_cluster_is_heard_whatever_the_network() {
    const ROUNDS: u32 = 244;
    let mut sim = sim();
    let strangers = ["203.0.113.9", "192.168.77.9", "10.1.0.5", "127.0.0.1"].map(ip);
    let frames = [(FAR, LIAR), (FAR, VICTIM), ("10.2.0.4", "10.2.0.3")]
        .map(|(src, dst)| from_to(src, dst).udp(53, 4000, b"do you hear me?"));
    let mut sent = 0;
    for round in 0..ROUNDS {
        let stranger = strangers[round as usize % strangers.len()];
        let mut frame = frames[round as usize % frames.len()].clone();
        vary(&mut frame, round);
        for vni in (0..4096).chain([4097, 4098, 0xff_ffff]) {
            sim.inject(stranger, 1, &wrapped(vni, &frame));
            sent += 1;
        }
    }
    assert!(sent > 1_000_000);
    sim.assert_silent();
    assert!(sim.wire.is_empty(), "not even an answer");
    let networks = 2 * u64::from(ROUNDS);
    assert_eq!(drops(&sim), [(DropReason::UnknownVni, sent - networks), (DropReason::UnknownVtep, networks)]);
}

#[test]
fn a_member_is_heard_for_its_own_endpoints_only() {
    const ROUNDS: u32 = 72_000;
    let mut sim = sim();
    let tell = |src: &str, by: &str| from_to(src, VICTIM).by(by).udp(53, 4000, b"do you hear me?");
    let mut arp_reply = arp(2, mac(FAR), FAR, VICTIM);
    arp_reply[6..12].copy_from_slice(&mac(FAR));
    let mut flooded = tell(FAR, FAR);
    flooded[..6].fill(0xff);
    let cases: [(u32, DropReason, Vec<u8>); 14] = [
        (4097, DropReason::SpoofedMac, tell(LIAR, LIAR)),
        (4097, DropReason::SpoofedMac, tell(VIP, VIP)),
        (4097, DropReason::SpoofedMac, tell(GATEWAY, GATEWAY)),
        (4097, DropReason::SpoofedMac, tell(FAR, "10.1.0.77")),
        (4097, DropReason::SpoofedMac, tell("10.2.0.4", "10.2.0.4")),
        (4097, DropReason::SpoofedSource, tell(LIAR, FAR)),
        (4097, DropReason::SpoofedSource, tell(VIP, FAR)),
        (4097, DropReason::SpoofedSource, tell("8.8.8.8", FAR)),
        (4097, DropReason::SpoofedSource, tell("10.2.0.4", FAR)),
        (4098, DropReason::SpoofedMac, tell(FAR, FAR)),
        (4097, DropReason::ArpUnsolicited, arp_reply),
        (4097, DropReason::Broadcast, flooded),
        (4097, DropReason::VipFromPeer, from_to(FAR, VIP).udp(1, 2, b"do you hear me?")),
        (4097, DropReason::VipFromPeer, from_to(FAR, GATEWAY).udp(1, 2, b"do you hear me?")),
    ];
    for (vni, reason, mut frame) in cases {
        let before = sim.dropped(1, reason);
        for n in 0..ROUNDS {
            vary(&mut frame, n);
            sim.inject(vtep(2), 1, &wrapped(vni, &frame));
        }
        assert_eq!(sim.dropped(1, reason) - before, u64::from(ROUNDS), "{reason} {:?}", drops(&sim));
    }
    sim.assert_silent();
    assert!(sim.wire.is_empty());
    sim.inject(vtep(2), 1, &wrapped(4097, &tell(FAR, FAR)));
    assert_eq!(sim.receive(1, 2).src, ip(FAR), "and for those it is");
}

/// What a guest may write into the header before its frame.
#[test]
fn a_lying_virtio_header_reaches_nobody() {
    let mut sim = sim();
    let frame = from_to(LIAR, FAR).udp(4000, 53, &[7; 3000]);
    let honest = VnetHdr {
        flags: VnetHdr::NEEDS_CSUM,
        gso_type: VnetHdr::GSO_UDP_L4,
        hdr_len: 42,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 6,
    };
    for (lie, reason) in [
        (VnetHdr { gso_size: 0, ..honest }, DropReason::OffloadSegmentSize),
        (VnetHdr { gso_size: 1, ..honest }, DropReason::OffloadSegmentSize),
        (VnetHdr { gso_type: 99, ..honest }, DropReason::OffloadType),
        (VnetHdr { gso_type: VnetHdr::GSO_TCPV4, ..honest }, DropReason::OffloadType),
        (VnetHdr { csum_start: 14, ..honest }, DropReason::OffloadChecksum),
        (VnetHdr { csum_start: 60_000, ..honest }, DropReason::OffloadChecksum),
        (VnetHdr { csum_offset: 60_000, ..honest }, DropReason::OffloadChecksum),
    ] {
        let before = sim.dropped(1, reason);
        sim.send_offloaded(1, 1, lie, &frame);
        assert_eq!(sim.dropped(1, reason) - before, 1, "{lie:?}: {:?}", drops(&sim));
    }
    sim.assert_silent();
    assert!(sim.wire.is_empty());
}
