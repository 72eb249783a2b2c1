//! Super-frames all the way: cut, sealed or not, lost, repeated and out of order on the underlay, put together again.
//!
//! A receiver's kernel cuts what it is handed (a model of that is here) into the very segments that it would have got one
//! by one.

use crate::offload::{partial, tcp_offload, udp_offload, with_options};
use crate::sim::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use skep_dataplane::ids::PortId;
use skep_dataplane::snapshot::{L4, Policy, ServicePorts};
use skep_dataplane::{Merge, VnetHdr};
use std::collections::BTreeMap;

const CLIENT: &str = "10.1.0.3";
const VIP: &str = "10.1.0.2";
const SERVER: &str = "10.1.0.5";
const OUTSIDE: &str = "198.51.100.7";
const INGRESS_VIP: &str = "10.255.0.2";
const INGRESS_TASK: &str = "10.255.0.5";
const INGRESS_NODE: &str = "10.255.0.3";

type Framed = (VnetHdr, Vec<u8>);
/// Headers and payload of each.
type Segments = Vec<(Vec<u8>, Vec<u8>)>;

/// One super-frame that is sent.
#[derive(Clone, Debug)]
struct Burst {
    /// Which of four flows: straight to the server, by its VIP, datagrams, or from outside.
    flow: usize,
    len: usize,
    size: u16,
    options: usize,
    ip_options: bool,
    is_last_of_write: bool,
    /// As a program that closes its side: the end of the connection is a segment of its own.
    is_end: bool,
    /// As a kernel that says at once what it heard, and then what its program answers.
    is_heard_before: bool,
}

fn burst() -> impl Strategy<Value = Burst> {
    let size = prop::sample::select(vec![300u16, 1_000, 1_600]);
    // A write of whole segments can be followed by more on the same ones.
    let len = prop_oneof![(1usize..20_000).prop_map(Err), (1usize..12).prop_map(Ok)];
    (0usize..4, len, size, 0usize..=3, 0u8..4, any::<bool>(), 0u8..4, any::<bool>()).prop_map(
        |(flow, len, size, options, ip_options, is_last_of_write, is_end, is_heard_before)| Burst {
            flow,
            len: len.map_or_else(|bytes| bytes, |segments| segments * usize::from(size)),
            size,
            options: options * 4,
            ip_options: ip_options == 0,
            is_last_of_write,
            is_end: is_end == 0,
            is_heard_before,
        },
    )
}

fn sim(policy: Policy) -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container(CLIENT, 1, 1)
        .container(SERVER, 2, 1)
        .service(VIP, &[SERVER], ServicePorts::All);
    let ingress = Overlay { ingress: true, ..Overlay::new(4096, "10.255.0.0/24", "10.255.0.1") }
        .host(INGRESS_NODE, 1, 9)
        .container(INGRESS_TASK, 2, 2)
        .service(INGRESS_VIP, &[INGRESS_TASK], ServicePorts::Only(vec![(L4::Tcp, 82)]));
    Sim::with(policy, 2, vec![overlay, ingress])
}

/// Sends it and returns how far the stream has come.
fn send(sim: &mut Sim, burst: &Burst, done: usize) -> usize {
    let payload: Vec<u8> = (done..done + burst.len).map(|n| (n * 31 + n / 97) as u8).collect();
    let seq = (u32::MAX - 5_000).wrapping_add(done as u32);
    let flags = if burst.is_last_of_write { "PA" } else { "A" };
    let (node_port, make, port) = match burst.flow {
        0 => (1, from_to(CLIENT, SERVER), 80),
        1 => (1, from_to(CLIENT, VIP), 81),
        2 => (1, from_to(CLIENT, SERVER), 53),
        _ => (9, from_to(OUTSIDE, INGRESS_VIP).by(INGRESS_NODE), 82),
    };
    let (mut frame, vnet) = match burst.flow {
        2 => (make.udp(4000, port, &payload), udp_offload(burst.size)),
        _ => {
            let frame = make.tcp(4000, port, flags, seq, 1, &payload);
            (with_options(frame, &[1; 40][..burst.options]), tcp_offload(burst.size))
        }
    };
    let bare = |sim: &mut Sim, flags, seq| {
        let mut bare = with_options(make.tcp(4000, port, flags, seq, 1, b""), &[1; 40][..burst.options]);
        partial(&mut bare);
        let header = VnetHdr { gso_type: VnetHdr::GSO_NONE, gso_size: 0, ..tcp_offload(0) };
        sim.send_offloaded(1, node_port, header, &bare);
    };
    if burst.is_heard_before && burst.flow != 2 {
        bare(sim, "A", seq);
    }
    let mut vnet = vnet;
    if burst.ip_options {
        frame.splice(34..34, [1, 1, 1, 0]);
        frame[14] = 0x46;
        let len = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        resum(&mut frame);
        vnet.csum_start += 4;
    }
    if burst.len <= usize::from(burst.size) {
        (vnet.gso_type, vnet.gso_size) = (VnetHdr::GSO_NONE, 0);
    }
    partial(&mut frame);
    sim.send_offloaded(1, node_port, vnet, &frame);
    if burst.is_end && burst.flow != 2 {
        bare(sim, "FA", seq.wrapping_add(burst.len as u32));
    }
    done + burst.len
}

/// As `worker` does it.
fn merged(frames: &[(PortId, VnetHdr, Vec<u8>)]) -> Vec<(PortId, VnetHdr, Vec<u8>)> {
    let (mut merge, mut written) = (Merge::new(), Vec::new());
    let mut out = |port, vnet, frame: &[u8]| written.push((port, vnet, frame.to_vec()));
    for (port, vnet, frame) in frames {
        merge.offer(*port, true, *vnet, frame, &mut out);
    }
    merge.finish(&mut out);
    written
}

/// What a kernel makes of a frame: segments, each with what a socket sees of it. Written from the rules of
/// `tcp_gso_segment` and `__udp_gso_segment` (net/ipv4), and sharing nothing with the engine's own.
fn seen_by_kernel((vnet, frame): &Framed) -> Segments {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("not IPv4") };
    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    assert_eq!(usize::from(ip.header().total_len()), frame.len() - 14, "nothing behind the packet");
    if ip.header().is_fragmenting_payload() {
        // Of a datagram too large for the path: put together by nobody but the receiver.
        return vec![(frame.clone(), Vec::new())];
    }
    let ip_header = ip.header().slice();
    let size = if vnet.gso_type == VnetHdr::GSO_NONE { usize::MAX } else { usize::from(vnet.gso_size) };
    let (header, payload, is_tcp) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.slice()[..tcp.header_len()].to_vec(), tcp.payload(), true),
        Some(TransportSlice::Udp(udp)) => (udp.slice()[..8].to_vec(), udp.payload(), false),
        other => panic!("neither TCP nor UDP: {other:?}"),
    };
    check_sum(vnet, frame, ip_header);
    let count = payload.len().div_ceil(size).max(1);
    (0..count)
        .map(|nth| {
            let from = nth * size.min(payload.len());
            let part = &payload[from..payload.len().min(from.saturating_add(size))];
            let mut header = header.clone();
            if is_tcp {
                let seq = u32::from_be_bytes(header[4..8].try_into().unwrap()).wrapping_add(from as u32);
                header[4..8].copy_from_slice(&seq.to_be_bytes());
                header[13] &= if nth + 1 < count { !0x09 } else { 0xff };
                header[16..18].fill(0);
            } else {
                header[4..8].fill(0);
            }
            // Length, identification and checksum follow from the rest.
            let mut network = [&frame[..14], ip_header].concat();
            network[16..20].fill(0);
            network[24..26].fill(0);
            ([network, header].concat(), part.to_vec())
        })
        .collect()
}

/// Where the end of a connection says nothing that the data before it doesn't, both are one segment to a receiver.
fn ends_with_their_data(segments: Segments) -> Segments {
    const SEQ: usize = 34 + 4;
    const FLAGS: usize = 34 + 13;
    let mut seen = Segments::new();
    for (header, payload) in segments {
        let is_tcp = header.get(23) == Some(&6) && header[14] == 0x45;
        if let Some((before, data)) = seen.last_mut()
            && is_tcp
            && payload.is_empty()
            && header.get(FLAGS) == Some(&0x11)
            && !data.is_empty()
            && before.len() == header.len()
        {
            let mut end = before.clone();
            let seq =
                u32::from_be_bytes(before[SEQ..SEQ + 4].try_into().unwrap()).wrapping_add(data.len() as u32);
            end[SEQ..SEQ + 4].copy_from_slice(&seq.to_be_bytes());
            end[FLAGS] = end[FLAGS] & !0x08 | 0x01;
            if before[FLAGS] & 0x01 == 0 && end == header {
                before[FLAGS] |= 0x01;
                continue;
            }
        }
        seen.push((header, payload));
    }
    seen
}

/// What only acknowledges is said again by the next of its connection, if that is data or the end and differs in nothing
/// else. (Which of them are left out, and that no others are: the tests of `merge/acknowledgements`.)
fn acknowledged_by_data(segments: Segments) -> Segments {
    const FLAGS: usize = 34 + 13;
    let mut seen = Segments::new();
    for (header, payload) in segments.into_iter().rev() {
        let is_needless = seen.last().is_some_and(|(next, data): &(Vec<u8>, Vec<u8>)| {
            let is_bare =
                header.len() == 54 && header[23] == 6 && header[FLAGS] == 0x10 && payload.is_empty();
            let mut like = next.clone();
            like.get_mut(FLAGS).into_iter().for_each(|flags| *flags &= !0x09);
            is_bare && like == header && (!data.is_empty() || next[FLAGS] & 0x01 != 0)
        });
        if !is_needless {
            seen.push((header, payload));
        }
    }
    seen.reverse();
    seen
}

/// Whose order counts: addresses and ports; fragments have addresses only.
fn flow((header, payload): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
    let is_fragment = payload.is_empty() && header[20..22] != [0x40, 0] && header[20..22] != [0, 0];
    let ports = 14 + usize::from(header[14] & 0xf) * 4;
    [&header[23..24], &header[26..34], if is_fragment { &[] } else { &header[ports..ports + 4] }].concat()
}

/// A partial sum is the pseudo-header's, a full one comes out as zero.
fn check_sum(vnet: &VnetHdr, frame: &[u8], ip_header: &[u8]) {
    let transport = &frame[14 + ip_header.len()..];
    let mut sum = u32::from(ip_header[9]) + transport.len() as u32;
    let words = |bytes: &[u8]| {
        bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum::<u32>()
    };
    sum += words(&ip_header[12..20]);
    let fold = |mut sum: u32| {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    };
    if vnet.flags & VnetHdr::NEEDS_CSUM == 0 {
        assert_eq!(fold(sum + words(transport)), 0xffff, "a full checksum");
        return;
    }
    assert_eq!(usize::from(vnet.csum_start), 14 + ip_header.len());
    let place = usize::from(vnet.csum_offset);
    let partial = u16::from_be_bytes([transport[place], transport[place + 1]]);
    assert_eq!(partial, fold(sum), "a partial checksum");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_receiver_sees_the_segments_that_arrived_and_no_others(
        is_sealed in any::<bool>(),
        bursts in prop::collection::vec(burst(), 1..12),
        fate in prop::collection::vec(0u8..20, 400),
    ) {
        let mut sim = sim(if is_sealed { Policy::Sealed } else { Policy::Plain });
        for (flow, port) in [(1, 81), (3, 82)] {
            let make = if flow == 1 { from_to(CLIENT, VIP) } else { from_to(OUTSIDE, INGRESS_VIP).by(INGRESS_NODE) };
            sim.send(1, if flow == 1 { 1 } else { 9 }, &make.tcp(4000, port, "S", u32::MAX - 5_001, 0, b""));
        }
        sim.clear();
        sim.wire.clear();
        sim.is_held = true;
        let mut done = [0; 4];
        for burst in &bursts {
            done[burst.flow] = send(&mut sim, burst, done[burst.flow]);
        }
        let mut underway: Vec<_> = sim.wire.drain(..).map(|(_, _, datagram)| datagram).collect();
        prop_assert!(!underway.is_empty());
        let mut is_lossy = false;
        for (at, fate) in fate.iter().enumerate() {
            if at + 1 >= underway.len() {
                break;
            }
            match fate {
                0 => {
                    underway.remove(at);
                    is_lossy = true;
                }
                1 => underway.swap(at, at + 1),
                2 => underway.insert(at, underway[at].clone()),
                _ => {}
            }
        }
        for datagram in underway {
            sim.inject(vtep(1), 2, &datagram);
        }
        let frames = sim.all_received(2);
        prop_assert!(is_lossy || !frames.is_empty());
        let merged = merged(&frames);
        for port in [1, 2].map(PortId) {
            let by_flow = |frames: &[(PortId, VnetHdr, Vec<u8>)]| {
                let mut flows = BTreeMap::<_, Vec<_>>::new();
                for (_, vnet, frame) in frames.iter().filter(|(own, ..)| *own == port) {
                    for segment in seen_by_kernel(&(*vnet, frame.clone())) {
                        flows.entry(flow(&segment)).or_default().push(segment);
                    }
                }
                let seen = |segments| ends_with_their_data(acknowledged_by_data(segments));
                flows.into_iter().map(|(flow, segments)| (flow, seen(segments))).collect::<Vec<_>>()
            };
            let (seen, sent) = (by_flow(&merged), by_flow(&frames));
            prop_assert_eq!(seen.len(), sent.len(), "flows");
            for ((_, seen), (_, sent)) in seen.iter().zip(&sent) {
                let differs = seen.iter().zip(sent).position(|(seen, sent)| seen != sent);
                prop_assert_eq!(differs, None, "the first segment that differs, of {} and {}", seen.len(), sent.len());
                prop_assert_eq!(seen.len(), sent.len());
            }
        }
    }
}
