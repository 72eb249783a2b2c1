//! Machines that die in the middle of a write, and drives that forget or change what they were given.

use super::super::disk::Death;
use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

type Contents = BTreeMap<String, Vec<u8>>;

/// Transactions of one life; enough for pages to be freed and used again.
const TXNS: u64 = 14;

/// A transaction of the size a plan has, chosen by its revision alone.
fn nth(revision: u64) -> Txn {
    let mut rng = StdRng::seed_from_u64(revision);
    let mut txn = Txn::default();
    for _ in 0..rng.random_range(1..6) {
        let value = vec![revision as u8; rng.random_range(0..1_500)];
        txn.puts.push((format!("task/{}", rng.random_range(0..40)), value));
    }
    let put = |key: &String| txn.puts.iter().any(|(other, _)| other == key);
    let gone = (0..3).map(|_| format!("task/{}", rng.random_range(0..40))).filter(|key| !put(key));
    txn.deletes = gone.collect();
    txn
}

/// What the store has to hold at `revision`.
fn at(revision: u64) -> Contents {
    let mut contents = Contents::new();
    for txn in (1..=revision).map(nth) {
        contents.extend(txn.puts);
        txn.deletes.iter().for_each(|key| _ = contents.remove(key));
    }
    contents
}

/// Writes until something fails; the last revision that was acknowledged.
fn write(store: &RedbStore, from: u64) -> u64 {
    let mut acknowledged = from;
    while acknowledged < from + TXNS {
        match store.txn(nth(acknowledged + 1)) {
            Ok(Outcome::Committed(revision)) => acknowledged = revision,
            Ok(Outcome::Conflict { key }) => panic!("conflict on {key}"),
            Err(_) => break,
        }
    }
    acknowledged
}

fn contents(store: &RedbStore) -> (u64, Contents) {
    let Listing { revision, entries } = store.list("").unwrap();
    (revision, entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

/// A life that ends after `operations`; the same store in the next one.
fn live_and_die(disk: &Disk, from: u64, operations: u64, death: Death, seed: u64) -> u64 {
    disk.die_after(operations);
    let acknowledged = on(disk).map_or(from, |store| write(&store, from));
    disk.revive(death, seed);
    acknowledged
}

#[test]
fn whatever_operation_is_the_last_everything_acknowledged_is_there() {
    let (mut points, mut torn) = (0, 0);
    for death in [Death::Killed, Death::PowerLost] {
        for operations in 0.. {
            let disk = Disk::default();
            drop(on(&disk).unwrap());
            let acknowledged = live_and_die(&disk, 0, operations, death, operations);
            // It may die again while it recovers, as often as it likes.
            for again in 0..3 {
                live_and_die(&disk, acknowledged, again * operations % 17, death, operations + again);
            }
            let (revision, contents) = contents(&on(&disk).unwrap());
            assert!(revision >= acknowledged, "{death:?} after {operations}: {revision} of {acknowledged}");
            assert_eq!(contents, at(revision), "{death:?} after {operations}");
            torn += u64::from(revision > acknowledged);
            points += 4;
            if acknowledged == TXNS {
                break;
            }
        }
    }
    println!("{points} points, at {torn} of them the last write was there though nobody was told");
    assert!(points >= 500, "{points}");
}

#[test]
fn a_store_that_dies_again_and_again_goes_on_from_its_last_commit() {
    let mut rng = StdRng::seed_from_u64(1);
    let disk = Disk::default();
    let mut known = 0;
    for life in 0..300 {
        let death = if rng.random() { Death::Killed } else { Death::PowerLost };
        let acknowledged = live_and_die(&disk, known, rng.random_range(0..120), death, life);
        let (revision, contents) = contents(&on(&disk).unwrap());
        assert!(revision >= acknowledged, "life {life}: {revision} of {acknowledged}");
        assert_eq!(contents, at(revision), "life {life}");
        known = revision;
    }
    assert!(known > 300, "{known}");
}

#[test]
fn a_bit_that_turned_around_is_found_or_harmless() {
    let disk = Disk::default();
    let store = on(&disk).unwrap();
    let acknowledged = write(&store, 0);
    // Once as a killed manager leaves it, once as one does that was stopped.
    let killed = disk.copy();
    drop(store);
    let mut rng = StdRng::seed_from_u64(1);
    let mut refused = 0;
    for bit in 0..400 {
        let copy = if bit % 2 == 0 { killed.copy() } else { disk.copy() };
        copy.flip(rng.random_range(0..copy.len() * 8));
        match on(&copy) {
            Ok(store) => assert_eq!(contents(&store), (acknowledged, at(acknowledged))),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0, "a store in use has bits that matter");
}
