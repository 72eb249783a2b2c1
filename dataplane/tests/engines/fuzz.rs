//! Whatever the bytes, the engine drops or forwards; it never panics.

use crate::sim::*;
use proptest::prelude::*;
use skep_dataplane::VnetHdr;
use skep_dataplane::snapshot::{L4, ServicePorts};

/// An overlay with a service and an ingress with a published one, on three nodes.
fn sim() -> Sim {
    let overlay = Overlay::new(4097, "10.1.0.0/24", "10.1.0.1")
        .container("10.1.0.3", 1, 1)
        .container("10.1.0.4", 1, 2)
        .container("10.1.0.5", 2, 1)
        .service("10.1.0.2", &["10.1.0.3", "10.1.0.4", "10.1.0.5"], ServicePorts::All);
    let published = ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 53)]);
    let mut ingress = Overlay::new(4096, "10.0.0.0/24", "10.0.0.1")
        .host("10.0.0.2", 1, 10)
        .host("10.0.0.3", 2, 10)
        .container("10.0.0.6", 1, 11)
        .container("10.0.0.7", 2, 11)
        .service("10.0.0.5", &["10.0.0.6", "10.0.0.7"], published);
    ingress.ingress = true;
    Sim::new(2, vec![overlay, ingress])
}

const ADDRESSES: [&str; 11] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "10.1.0.4",
    "10.1.0.5",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.5",
    "10.0.0.6",
    "10.0.0.7",
    "198.51.100.9",
];

fn address() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&ADDRESSES[..])
}

fn vnet() -> impl Strategy<Value = VnetHdr> {
    let place = prop::sample::select(vec![0u16, 14, 34, 38, 54, 9999]);
    let gso = prop::sample::select(vec![0u8, 1, 3, 4, 5, 0x81, 0x85]);
    (0u8..8, gso, any::<u16>(), 0u16..2000, place, prop::sample::select(vec![0u16, 6, 16, 2])).prop_map(
        |(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)| VnetHdr {
            flags,
            gso_type,
            hdr_len,
            gso_size,
            csum_start,
            csum_offset,
        },
    )
}

/// A frame between known addresses, of any kind, with a few bytes overwritten.
fn nearly_valid() -> impl Strategy<Value = Vec<u8>> {
    let make = (address(), address(), address(), address(), 0u8..4);
    let ports = prop::sample::select(vec![0u16, 53, 80, 4000, 65535]);
    let flags = prop::sample::select(vec!["S", "SA", "A", "R", "FA", "RA", "PA", ""]);
    let payload = prop::collection::vec(any::<u8>(), 0..3000);
    let kind = 0u8..6;
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (make, kind, ports.clone(), ports, flags, payload, damage, any::<bool>()).prop_map(
        |((src, dst, by, via, ttl), kind, from, to, flags, payload, damage, is_summed)| {
            let make = from_to(src, dst).by(by).via(via).ttl(ttl * 50);
            let mut frame = match kind {
                0 => make.tcp(from, to, flags, 1, 1, &payload),
                1 => make.udp(from, to, &payload),
                2 => make.ping(from, &payload),
                3 => make.pong(to, &payload),
                4 => make.icmp_error(3, 4, &from_to(dst, src).udp(to, from, &payload)),
                _ => make.raw(47, &payload),
            };
            for (at, byte) in damage {
                let at = at.index(frame.len().min(60));
                frame[at] = byte;
            }
            if is_summed && frame[14] & 0xf >= 5 && frame.len() >= 14 + usize::from(frame[14] & 0xf) * 4 {
                resum(&mut frame);
            }
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic(
        frames in prop::collection::vec((1u32..13, vnet(), prop::collection::vec(any::<u8>(), 0..200)), 1..20),
    ) {
        let mut sim = sim();
        for (port, vnet, bytes) in frames {
            sim.send_offloaded(1, port, vnet, &bytes);
            sim.inject(vtep(2), 1, &bytes);
        }
    }

    #[test]
    fn nearly_valid_frames_never_panic(
        frames in prop::collection::vec(
            (prop::sample::select(vec![1u32, 2, 10, 11]), prop::option::of(vnet()), nearly_valid()),
            1..40,
        ),
    ) {
        let mut sim = sim();
        for (port, vnet, frame) in frames {
            sim.send_offloaded(1, port, vnet.unwrap_or_default(), &frame);
            for vni in [[0, 0x10, 0x00], [0, 0x10, 0x01]] {
                let mut datagram = vec![8, 0, 0, 0, vni[0], vni[1], vni[2], 0];
                datagram.extend_from_slice(&frame);
                sim.inject(vtep(2), 1, &datagram);
            }
        }
        sim.advance(std::time::Duration::from_secs(1));
        sim.publish();
    }
}
