//! What is in the air: the marker of no scenario, and the format of `docs/wire.md`.

use crate::world::*;

const MARKER: &[u8] = b"a marker nobody may read";

fn has_marker(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| MARKER.windows(8).any(|part| part == window))
}

#[test]
fn the_marker_is_seen_on_the_plain_network_and_never_on_the_sealed_one() {
    let mut world = World::pair();
    world.say(1, 2, MARKER);
    world.run_for(5);
    assert!(world.texts(2).iter().any(|(_, text)| text == MARKER));
    assert!(!world.wire.iter().any(|(.., bytes)| has_marker(bytes)));
    let frame = udp(container(1), container(2), MARKER);
    world.frame(1, PLAIN_PORT, skep_dataplane::VnetHdr::default(), &frame);
    assert!(world.wire.iter().any(|(.., bytes)| has_marker(bytes)), "the ear hears");
}

#[test]
fn a_sealed_frame_has_forty_bytes_around_it_and_its_vni_in_front() {
    let mut world = World::pair();
    world.wire.clear();
    world.say(1, 2, MARKER);
    let datagram = world.sealed_on_wire(1, 2).pop().unwrap();
    assert_eq!(datagram.len(), udp(container(1), container(2), MARKER).len() + 40 + PADDING);
    assert_eq!(datagram[..8], [0, 0, 0, 0, 0, 0x10, 0x01, 1]);
}

#[test]
fn counters_of_a_session_rise_by_one_and_begin_at_zero() {
    let mut world = World::pair();
    (0..100).for_each(|n| world.say(1, 2, &[n; 20]));
    world.run(130 * SECOND);
    let mut by_session = std::collections::BTreeMap::<Vec<u8>, Vec<u64>>::new();
    for datagram in world.sealed_on_wire(1, 2) {
        let counter = u64::from_be_bytes(datagram[12..20].try_into().unwrap());
        by_session.entry(datagram[8..12].to_vec()).or_default().push(counter);
    }
    assert!(by_session.len() >= 2);
    for (index, counters) in by_session {
        let expected: Vec<u64> = (0..counters.len() as u64).collect();
        assert_eq!(counters, expected, "session {index:02x?}");
    }
}

/// An eavesdropper with both static keys, after the fact, has what he recorded and no session's keys: Noise IK mixes in
/// ephemeral keys that are gone. What he can do is read who called whom.
#[test]
fn no_two_handshakes_look_alike() {
    let mut world = World::pair();
    world.run(300 * SECOND);
    let mut all: Vec<_> = world.handshakes_on_wire(1, 2);
    all.extend(world.handshakes_on_wire(2, 1));
    let count = all.len();
    all.iter_mut().for_each(|message| *message = message[24..56].to_vec());
    all.sort();
    all.dedup();
    assert!(count >= 5 && all.len() == count, "{} of {count} ephemeral keys are new", all.len());
}
