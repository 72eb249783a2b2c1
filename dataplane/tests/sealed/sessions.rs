//! How sessions begin, are renewed and end.

use crate::world::*;
use skep_dataplane::DropReason;
use skep_dataplane::seal::{Identity, Suite};

/// What happens where nodes meet for the first time.
const GREETINGS: [DropReason; 2] = [DropReason::HandshakeStranger, DropReason::HandshakeStale];

#[test]
fn nodes_that_know_each_other_hold_sessions_before_anybody_speaks() {
    let mut world = World::new(3);
    world.run(300);
    for (node, peer) in [(1, 2), (1, 3), (2, 3), (3, 1)] {
        assert!(world.session(node, peer).since.is_some(), "{node} with {peer}");
    }
    world.run(10 * SECOND);
    assert_eq!(world.round(1, 3, 100), Some(1));
    assert_eq!(world.round(3, 1, 100), Some(1));
    for node in 1..=3 {
        assert!(world.drops(node).keys().all(|reason| GREETINGS.contains(reason)), "{:?}", world.drops(node));
    }
}

#[test]
fn the_first_words_wait_for_the_session_in_order() {
    let mut world = World::unborn(2);
    world.delay = 20;
    world.start(1);
    for n in 0..50u8 {
        world.say(1, 2, &[n; 40]);
    }
    world.start(2);
    world.run(400);
    let heard: Vec<_> = world.texts(2).into_iter().map(|(_, text)| text[0]).collect();
    assert_eq!(heard, (0..50).collect::<Vec<_>>());
    assert!(world.wire.iter().all(|(.., bytes)| bytes[7] == 1), "nothing leaves plain meanwhile");
}

#[test]
fn who_waits_for_too_long_or_in_too_long_a_line_is_dropped_by_name() {
    let mut world = World::unborn(2);
    world.start(1);
    for n in 0..200u8 {
        world.say(1, 2, &[n; 40]);
    }
    assert_eq!(world.dropped(1, DropReason::BridgeFull), 200 - 128);
    world.run(4_999);
    assert_eq!(world.dropped(1, DropReason::NoSession), 0);
    world.run(5_000);
    assert_eq!(world.dropped(1, DropReason::NoSession), 128);
    world.start(2);
    world.run(10 * SECOND);
    assert_eq!(world.texts(2), [], "what was dropped stays so");
}

#[test]
fn sessions_are_renewed_every_two_minutes_and_nobody_notices() {
    let mut world = World::pair();
    world.keeps_wire = false;
    let mut sent = 0u32;
    while world.now < 605 * SECOND {
        world.say(1, 2, &sent.to_be_bytes());
        world.say(2, 1, &sent.to_be_bytes());
        sent += 1;
        world.run_for(20);
    }
    for node in [1, 2] {
        let heard = world.texts(node);
        assert_eq!(heard.len() as u32, sent);
        for (nth, (at, text)) in heard.iter().enumerate() {
            assert_eq!(text[..], (nth as u32).to_be_bytes());
            let sent_at = heard[0].0 + 20 * nth as u64;
            assert_eq!(*at, sent_at, "each takes its millisecond");
        }
    }
    let session = world.session(1, 2);
    assert!((4..=8).contains(&session.rekeys), "{session:?}");
    assert!(world.instant() - session.since.unwrap() > std::time::Duration::from_secs(600));
    assert!(world.instant() - session.last_handshake.unwrap() <= std::time::Duration::from_secs(121));
}

#[test]
fn a_session_that_cannot_be_renewed_ends_after_three_minutes() {
    // Handshakes are lost from the second minute on; everything else passes.
    let mut world =
        World::new(2).fated(|_, _, at, bytes| (at < 100 * SECOND || is_of_session(&bytes)).then_some(bytes));
    world.run(179 * SECOND);
    assert_eq!(world.round(1, 2, 100), Some(1));
    world.run(181 * SECOND);
    let sessions = [world.session(1, 2), world.session(2, 1)];
    assert!(sessions.iter().all(|session| session.since.is_none()), "{sessions:?} at {:?}", world.instant());
    assert_eq!(world.round(1, 2, 2 * SECOND), None);
    world.fate = Box::new(|_, _, _, bytes| Some(bytes));
    world.run_for(6 * SECOND);
    assert_eq!(world.round(1, 2, 100), Some(1), "it is as good as new");
}

#[test]
fn what_was_sealed_is_not_opened_after_its_session_s_time() {
    let mut world = World::pair();
    world.wire.clear();
    world.fate = Box::new(|_, _, _, _| None);
    world.say(1, 2, b"a word to keep");
    let kept = world.sealed_on_wire(1, 2).pop().unwrap();
    world.fate = Box::new(|_, _, _, bytes| is_of_session(&bytes).then_some(bytes));
    world.run(184 * SECOND);
    world.inject(vtep(1), 2, &kept);
    assert_eq!(world.texts(2), []);
    assert_eq!(world.dropped(2, DropReason::SessionUnknown), 1, "its keys are gone");
}

#[test]
fn a_restarted_node_is_back_within_a_second_and_a_half() {
    for (restarted, other) in [(1, 2), (2, 1)] {
        for phase in [0, 60, 130, 200] {
            let mut world = World::pair();
            world.run_for(30 * SECOND + phase);
            world.start(restarted);
            let back = (0..200).find(|_| {
                world.run_for(20);
                world.round(other, restarted, 4).is_some() && world.round(restarted, other, 4).is_some()
            });
            let back = back.map(|tries| tries * 28);
            assert!(back.is_some_and(|back| back <= 1_500), "{restarted} in phase {phase}: {back:?}");
        }
    }
}

#[test]
fn a_peer_that_is_one_again_is_back_within_a_second_and_a_half() {
    for (forgetful, other) in [(1, 2), (2, 1)] {
        for phase in (0..1_400).step_by(70) {
            let mut world = World::pair();
            world.knows = Box::new(move |node, _| node != forgetful);
            world.publish(forgetful);
            world.run_for(5 * SECOND + phase);
            world.knows = Box::new(|_, _| true);
            world.publish(forgetful);
            let back = (0..200).find(|_| {
                world.run_for(20);
                world.round(other, forgetful, 4).is_some() && world.round(forgetful, other, 4).is_some()
            });
            let back = back.map(|tries| tries * 28);
            assert!(back.is_some_and(|back| back <= 1_500), "{forgetful} forgot, in phase {phase}: {back:?}");
        }
    }
}

/// Until a response has come back, the next try or two has been made; and both nodes make them at the same time.
#[test]
fn a_long_way_does_not_keep_those_apart_who_begin_at_once() {
    for delay in (5..=400).step_by(5) {
        let mut world = World::unborn(2);
        world.delay = delay;
        world.start(1);
        world.start(2);
        let is_met =
            |world: &World| world.session(1, 2).since.is_some() && world.session(2, 1).since.is_some();
        while !is_met(&world) && world.now < 10 * SECOND {
            world.run_for(5);
        }
        assert!(world.now <= 5 * delay + 300, "{delay} ms apart, they meet after {} ms", world.now);
    }
}

#[test]
fn both_restarted_find_each_other_at_once() {
    let mut world = World::pair();
    world.run_for(10 * SECOND);
    world.start(1);
    world.start(2);
    world.run_for(50);
    let wait = world.round(1, 2, 100);
    assert!(wait.is_some_and(|wait| wait <= 5), "{wait:?}");
}

#[test]
fn a_removed_peer_s_sessions_end_at_once_and_it_gets_no_new_one() {
    let mut world = World::pair();
    world.wire.clear();
    world.say(2, 1, b"still a member");
    let last = world.sealed_on_wire(2, 1).pop().unwrap();
    world.knows = Box::new(|node, _| node != 1);
    world.flying.clear();
    world.publish(1);
    let sent = world.inject(vtep(2), 1, &last);
    assert_eq!((sent, world.dropped(1, DropReason::SealStranger)), (0, 1));
    world.texts(1);
    world.run_for(60 * SECOND);
    assert_eq!(world.round(2, 1, SECOND), None);
    assert!(world.dropped(1, DropReason::HandshakeStranger) > 10, "it tries, and is not answered");
    assert!(world.wire.iter().all(|(at, from, ..)| *from != 1 || *at <= 3 * SECOND + 100), "{:?}", world.now);
    world.knows = Box::new(|_, _| true);
    world.publish(1);
    world.run_for(3 * SECOND);
    assert_eq!(world.round(2, 1, 100), Some(1), "until it is a peer again");
}

#[test]
fn another_key_is_another_peer() {
    let mut world = World::pair();
    let stranger = Identity { key: crate::identity::identity(9, 1).key, ..crate::identity::identity(2, 7) };
    world.start_as(2, stranger);
    world.run_for(5 * SECOND);
    assert_eq!(world.round(1, 2, SECOND), None);
    assert!(world.dropped(1, DropReason::HandshakeForged) > 0, "{:?}", world.drops(1));
    assert!(world.dropped(2, DropReason::HandshakeMac) > 0, "it does not even know that it is meant");
}

#[test]
fn nodes_that_differ_in_cipher_or_cluster_agree_on_nothing() {
    let another_cipher = Identity { suite: Suite::Aes256Gcm, ..crate::identity::identity(2, 1) };
    let another_cluster = Identity { context: b"another".to_vec(), ..crate::identity::identity(2, 1) };
    for other in [another_cipher, another_cluster] {
        let mut world = World::unborn(2);
        world.start(1);
        world.start_as(2, other);
        world.run(10 * SECOND);
        assert!(world.session(1, 2).since.is_none());
        assert!(world.dropped(1, DropReason::HandshakeForged) > 0);
    }
    let mut world = World::unborn(2);
    for node in [1, 2] {
        world.start_as(node, Identity { suite: Suite::Aes256Gcm, ..crate::identity::identity(node, 1) });
    }
    world.run(3 * SECOND);
    assert_eq!(world.round(1, 2, 100), Some(1));
}

#[test]
fn quiet_sessions_are_kept_alive_by_their_questions() {
    let mut world = World::pair();
    let before = world.session(1, 2).datagrams_received;
    world.run_for(60 * SECOND);
    let received = world.session(1, 2).datagrams_received - before;
    assert!((460..=520).contains(&received), "a question and an answer four times a second: {received}");
}

#[test]
fn everybody_meets_everybody_within_seconds() {
    const PEERS: usize = 40;
    let mut world = World::new(PEERS);
    world.keeps_wire = false;
    world.run(3 * SECOND);
    let standing = (2..=PEERS).filter(|peer| world.session(1, *peer).since.is_some()).count();
    assert_eq!(standing, PEERS - 1);
}
