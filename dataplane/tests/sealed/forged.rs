//! What was not sealed by the peer for this node, in this session, for the first time, is heard by nobody and answered
//! by nobody, and each under its own reason.

use crate::identity::public;
use crate::world::*;
use blake2::{Blake2s256, Blake2sMac, Digest};
use skep_dataplane::DropReason;

/// The whole of what a datagram from outside the session did: drops by reason, deliveries, answers.
struct Effect {
    reason: Option<DropReason>,
    heard: usize,
    sent: usize,
}

impl World {
    fn effect(&mut self, from: std::net::Ipv4Addr, to: usize, datagram: &[u8]) -> Effect {
        let (before, heard) = (self.drops(to), self.heard.len());
        let sent = self.inject(from, to, datagram);
        let reason =
            self.drops(to).into_iter().find(|(reason, n)| before.get(reason) != Some(n)).map(|(r, _)| r);
        Effect { reason, heard: self.heard.len() - heard, sent }
    }

    #[track_caller]
    fn assert_refused(&mut self, from: std::net::Ipv4Addr, to: usize, datagram: &[u8], wanted: DropReason) {
        let effect = self.effect(from, to, datagram);
        assert_eq!((effect.reason, effect.heard, effect.sent), (Some(wanted), 0, 0));
    }

    /// A frame that node 1's container just said to node 2's, sealed and on the wire, and not delivered.
    fn caught(&mut self, text: &[u8]) -> Vec<u8> {
        let fate = std::mem::replace(&mut self.fate, Box::new(|_, _, _, _| None));
        self.wire.clear();
        self.say(1, 2, text);
        self.fate = fate;
        self.sealed_on_wire(1, 2).pop().unwrap()
    }
}

#[test]
fn plain_into_sealed_and_sealed_into_plain_fail_closed() {
    let mut world = World::pair();
    let frame = udp(container(1), container(2), b"plain marker");
    let plain = [&[8, 0, 0, 0, 0, 0x10, 0x01, 0][..], &frame].concat();
    world.assert_refused(vtep(1), 2, &plain, DropReason::Unsealed);
    let plain = [&[8, 0, 0, 0, 0, 0x10, 0x02, 0][..], &frame].concat();
    let effect = world.effect(vtep(1), 2, &plain);
    assert_eq!((effect.reason, effect.heard), (None, 1), "the plain network beside it is one");
    world.heard.clear();

    // One end takes the network for plain, the other for sealed.
    let sealed = world.caught(b"sealed marker");
    for (vni, reason) in [(0x10_02, DropReason::SealBroken), (0x77_77, DropReason::SealBroken)] {
        let mut moved = sealed.clone();
        moved[5..7].copy_from_slice(&u16::to_be_bytes(vni));
        world.assert_refused(vtep(1), 2, &moved, reason);
    }
    assert_eq!(world.effect(vtep(1), 2, &sealed).heard, 1, "none of that spoilt the true one");
}

#[test]
fn whoever_is_no_peer_is_a_stranger() {
    let mut world = World::pair();
    let sealed = world.caught(b"marker");
    world.assert_refused(vtep(9), 2, &sealed, DropReason::SealStranger);
    let initiation = world_initiation();
    world.assert_refused(vtep(9), 2, &initiation, DropReason::HandshakeStranger);
}

fn world_initiation() -> Vec<u8> {
    let mut world = World::new(2);
    world.run(10);
    world.handshakes_on_wire(1, 2)[0].clone()
}

#[test]
fn a_peer_cannot_use_another_s_session_nor_a_network_it_is_not_on() {
    let mut world = World::new(3);
    world.members = vec![1, 2];
    (1..=3).for_each(|node| world.publish(node));
    world.run(3 * SECOND);
    let sealed = world.caught(b"marker");
    world.assert_refused(vtep(3), 2, &sealed, DropReason::SessionUnknown);
    // Node 3 believes to be on the network, and claims node 1's container for its own.
    world.members = vec![1, 2, 3];
    world.publish(3);
    world.wire.clear();
    world.say(3, 2, b"marker of a node that is not on the network");
    let sealed = world.sealed_on_wire(3, 2).pop().unwrap();
    world.flying.clear();
    world.assert_refused(vtep(3), 2, &sealed, DropReason::UnknownVtep);
}

#[test]
fn every_bit_and_every_length_counts() {
    let mut world = World::pair();
    let sealed = world.caught(b"marker");
    for at in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let effect = world.effect(vtep(1), 2, &flipped);
        assert!(effect.reason.is_some() && effect.heard == 0 && effect.sent == 0, "bit {at}");
    }
    for len in 0..sealed.len() {
        let effect = world.effect(vtep(1), 2, &sealed[..len]);
        assert!(effect.reason.is_some() && effect.heard == 0 && effect.sent == 0, "{len} bytes");
    }
    for more in [1, 16, 1_000, 65_000 - sealed.len()] {
        let longer = [&sealed[..], &vec![0; more]].concat();
        world.assert_refused(vtep(1), 2, &longer, DropReason::SealBroken);
    }
    assert_eq!(world.effect(vtep(1), 2, &sealed).heard, 1);
    world.assert_refused(vtep(1), 2, &sealed, DropReason::Replayed);
}

#[test]
fn recordings_are_worth_nothing_in_this_life_and_the_next() {
    let mut world = World::pair();
    for n in 0..300u32 {
        world.say(1, 2, &n.to_be_bytes());
        world.say(2, 1, &n.to_be_bytes());
        world.run_for(500);
    }
    assert!(world.session(1, 2).rekeys >= 1);
    let recorded: Vec<_> = world.wire.clone();
    world.texts(1);
    world.texts(2);
    for restarted in [None, Some(1), Some(2), Some(1)] {
        if let Some(node) = restarted {
            world.start(node);
            world.run_for(5 * SECOND);
        }
        for (_, from, to, bytes) in &recorded {
            let effect = world.effect(vtep(*from), *to, bytes);
            assert_eq!((effect.heard, effect.sent), (0, 0), "{restarted:?}: {:?}", effect.reason);
            assert!(effect.reason.is_some());
        }
        assert_eq!(world.round(1, 2, 100), Some(1));
        assert_eq!(world.round(2, 1, 100), Some(1));
    }
}

#[test]
fn forged_handshakes_are_silent_failures_and_do_not_disturb_true_ones() {
    let mut world = World::pair();
    let genuine = world_initiation();
    let mut dice = dice(11);
    for n in 0..20_000u64 {
        let mut message = genuine.clone();
        match n % 4 {
            0 => message[20..].fill_with(|| dice(256) as u8),
            // The last 16 bytes count only for who gave a cookie.
            1 => message[dice(164) as usize] ^= 1 << dice(8),
            2 => message.truncate(dice(180) as usize),
            _ => {
                message[12] = 2;
                message.truncate(120);
            }
        }
        let effect = world.effect(vtep(1), 2, &message);
        assert_eq!((effect.heard, effect.sent), (0, 0), "{n}");
        assert!(effect.reason.is_some(), "{n}");
    }
    assert_eq!(world.round(1, 2, 100), Some(1));
    world.start(1);
    world.run_for(2 * SECOND);
    assert_eq!(world.round(1, 2, 100), Some(1));
}

/// A thousand forged responses arrive before the true one; some by somebody who knows the node's public key.
#[test]
fn garbage_responses_do_not_end_a_handshake() {
    let mut world = World::unborn(2);
    world.delay = 50;
    world.start(1);
    world.start(2);
    world.run(60);
    for n in 1..=1_000u32 {
        for (_, from, to, bytes) in world.wire.clone().iter().filter(|(.., bytes)| bytes.len() == 180) {
            let mut response = bytes[..120].to_vec();
            response[12] = 2;
            // To the index the initiation named.
            response[20..24].copy_from_slice(&bytes[16..20]);
            response[16..20].copy_from_slice(&n.to_be_bytes());
            if n <= 10 {
                sign(&mut response, *from);
            }
            world.inject(vtep(*to), *from, &response);
        }
    }
    assert!(world.dropped(1, DropReason::HandshakeForged) >= 10, "{:?}", world.drops(1));
    assert!(world.dropped(2, DropReason::HandshakeForged) >= 10, "{:?}", world.drops(2));
    // Before anybody would try again.
    world.run(250);
    assert!(world.session(1, 2).since.is_some() && world.session(2, 1).since.is_some());
}

/// MAC1 of a message for that node.
fn sign(message: &mut [u8], receiver: usize) {
    use blake2::digest::{FixedOutput, KeyInit, Mac, consts::U16};
    let key = Blake2s256::new().chain_update(b"skep mac1").chain_update(public(receiver).0).finalize();
    let (covered, macs) = message.split_at_mut(message.len() - 32);
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).unwrap().chain_update(&*covered);
    macs[..16].copy_from_slice(&mac.finalize_fixed());
}

/// Somebody who knows a node's key, and may write any address: its handshakes pass MAC1, and no further.
#[test]
fn a_flood_from_a_peer_s_address_makes_the_node_ask_for_cookies_and_the_peer_gets_through() {
    let mut flooded = World::unborn(3);
    flooded.start(2);
    flooded.start(3);
    // Initiations by node 1 that node 2 never answered: each is good for MAC1.
    flooded.fate = Box::new(|from, _, _, bytes| (from != 1).then_some(bytes));
    flooded.start(1);
    flooded.run(200 * SECOND);
    let recorded = flooded.handshakes_on_wire(1, 2);
    flooded.start(1);
    flooded.fate = Box::new(|_, _, _, bytes| Some(bytes));
    let mut answers = 0;
    let begin = flooded.now;
    while flooded.session(1, 2).since.is_none() {
        for nth in 0..100 {
            answers += flooded.inject(vtep(1), 2, &recorded[nth % recorded.len()]);
        }
        flooded.run_for(1);
        assert!(
            flooded.now < begin + 2 * SECOND,
            "a true handshake within two seconds: {:?}",
            flooded.drops(2)
        );
    }
    assert!(flooded.dropped(2, DropReason::HandshakeLimited) > 0, "{:?}", flooded.drops(2));
    let bound = 64 + (flooded.now - begin) / 4 + 200;
    assert!((answers as u64) < bound, "{answers} answers");
    assert_eq!(flooded.round(2, 3, 100), Some(1), "others are served as before");
}
