//! Sessions on underlays that lose, spoil, repeat and reorder, and among clocks that are wrong.

use crate::world::*;
use skep_dataplane::DropReason;
use std::collections::BTreeSet;

/// Loses this many of a hundred in each direction, in bursts of up to three.
fn bursts(percent: u64, seed: u64) -> impl FnMut(usize, usize, u64, Vec<u8>) -> Option<Vec<u8>> {
    let mut dice = dice(seed);
    let mut left = [0u64; 3];
    move |from, _, _, bytes| {
        if left[from] == 0 && dice(100) < percent / 2 {
            left[from] = 1 + dice(3);
        }
        let is_lost = left[from] > 0;
        left[from] -= u64::from(is_lost);
        (!is_lost).then_some(bytes)
    }
}

/// The measure of QUIC's interop runner: 50 handshakes within 300 s.
fn fifty_of_fifty(world_of: impl Fn(u64) -> World) {
    let mut total = 0;
    for seed in 0..50 {
        let mut world = world_of(seed);
        while world.session(1, 2).since.is_none() || world.session(2, 1).since.is_none() {
            world.run_for(10);
            assert!(world.now < 60 * SECOND, "seed {seed}");
        }
        total += world.now;
    }
    assert!(total < 300 * SECOND, "{total} ms");
}

/// Each way, in bursts of three.
#[test]
fn fifty_of_fifty_handshakes_succeed_at_thirty_percent_loss() {
    fifty_of_fifty(|seed| World::new(2).fated(bursts(30, seed)));
}

#[test]
fn fifty_of_fifty_handshakes_succeed_at_thirty_percent_corruption() {
    fifty_of_fifty(|seed| {
        let mut dice = dice(seed);
        World::new(2).fated(move |_, _, _, mut bytes| {
            if dice(100) < 30 {
                let at = dice(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice(8);
            }
            Some(bytes)
        })
    });
}

#[test]
fn what_is_spoilt_on_the_way_is_never_heard() {
    let mut dice = dice(7);
    let mut world = World::pair();
    world.fate = Box::new(move |_, _, _, mut bytes| {
        if dice(100) < 30 {
            let at = dice(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice(8);
        }
        Some(bytes)
    });
    let mut said = BTreeSet::new();
    for n in 0..2_000u64 {
        let text = [n.to_be_bytes(), n.wrapping_mul(0x9e37_79b9).to_be_bytes()].concat();
        world.say(1, 2, &text);
        said.insert(text);
        world.run_for(1);
    }
    let heard = world.texts(2);
    assert!(heard.len() > 1_200, "{}", heard.len());
    assert!(heard.iter().all(|(_, text)| said.remove(text)), "each as it was said, and once");
}

#[test]
fn what_the_network_repeats_is_heard_once_and_what_it_reorders_in_any_order() {
    let mut world = World::pair();
    world.wire.clear();
    world.fate = Box::new(|_, _, _, _| None);
    for n in 0..8_001u32 {
        world.say(1, 2, &n.to_be_bytes());
    }
    let sealed = world.sealed_on_wire(1, 2);
    world.inject(vtep(1), 2, &sealed[8_000]);
    let mut order: Vec<usize> = (0..8_000).collect();
    let mut dice = dice(3);
    for at in (1..order.len()).rev() {
        order.swap(at, dice(at as u64 + 1) as usize);
    }
    for at in order {
        for _ in 0..3 {
            world.inject(vtep(1), 2, &sealed[at]);
        }
    }
    let heard: Vec<_> = world.texts(2).into_iter().map(|(_, text)| text).collect();
    assert_eq!(heard.len(), 8_001, "8,000 that one has overtaken");
    assert_eq!(heard.iter().collect::<BTreeSet<_>>().len(), 8_001);
    assert_eq!(world.dropped(2, DropReason::Replayed), 16_000);
}

/// Ten megabytes at 20 % loss are a matter of whoever sends them again; that each piece is whole is ours.
#[test]
fn words_that_are_repeated_until_they_are_heard_all_arrive_at_twenty_percent_loss() {
    let mut world = World::pair();
    world.fate = Box::new(bursts(20, 5));
    world.keeps_wire = false;
    let mut missing: BTreeSet<u32> = (0..3_000).collect();
    while !missing.is_empty() {
        for n in missing.clone() {
            world.say(1, 2, &[&n.to_be_bytes()[..], &[n as u8; 1_000]].concat());
        }
        world.run_for(50);
        for (_, text) in world.texts(2) {
            let n = u32::from_be_bytes(text[..4].try_into().unwrap());
            assert!(text[4..].iter().all(|byte| *byte == n as u8) && text.len() == 1_004);
            missing.remove(&n);
        }
        assert!(world.now < 60 * SECOND);
    }
}

/// Sessions use no clock but the time since the process began, which is each node's own.
#[test]
fn a_node_that_began_ten_years_earlier_is_a_peer_like_any_other() {
    let mut world = World::unborn(2);
    world.start(1);
    world.run(100);
    // Its own time stands at ten years when the other's begins.
    world.now += 10 * 365 * 86_400 * SECOND;
    world.start(2);
    world.run_for(3 * SECOND);
    assert_eq!(world.round(1, 2, 100), Some(1));
    assert_eq!(world.round(2, 1, 100), Some(1));
}
