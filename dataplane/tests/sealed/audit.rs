//! No key seals two datagrams with one counter, whatever becomes of nodes. [`World`] looks at every datagram that is
//! sealed in every test here; this one makes nodes begin anew, stop, forget each other and renew their keys a thousand
//! times.

use crate::world::*;

const EVENTS: u64 = 1_000;

#[test]
fn no_counter_comes_twice_over_a_thousand_restarts_and_renewals() {
    let mut world = World::new(3);
    world.keeps_wire = false;
    world.run(2 * SECOND);
    let mut dice = dice(2);
    for event in 0..EVENTS {
        let node = 1 + dice(3) as usize;
        match dice(10) {
            0..5 => world.start(node),
            5 => (1..=3).for_each(|node| world.start(node)),
            6 => {
                world.stop(node);
                world.run_for(dice(3_000));
                world.start(node);
            }
            7 => {
                world.knows = Box::new(move |one, other| one != node && other != node);
                (1..=3).for_each(|node| world.publish(node));
                world.run_for(dice(500));
                world.knows = Box::new(|_, _| true);
                (1..=3).for_each(|node| world.publish(node));
            }
            // Long enough for keys to be renewed.
            8 if event % 5 == 0 => world.run_for(121 * SECOND),
            // What is in the air is lost.
            _ => world.flying.clear(),
        }
        for _ in 0..5 {
            world.say(1, 2, b"there");
            world.say(2, 3, b"on");
            world.say(3, 1, b"and back");
            world.run_for(dice(400));
        }
        world.heard.clear();
    }
    let sealed: u64 = world.sealed_with.values().sum();
    println!("{EVENTS} events: {} keys sealed {sealed} datagrams", world.sealed_with.len());
    assert!(world.sealed_with.len() > 1_000 && sealed > 30_000, "{} {sealed}", world.sealed_with.len());
    world.run_for(3 * SECOND);
    assert_eq!(world.round(1, 2, 100), Some(1));
}
