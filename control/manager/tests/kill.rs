//! A manager that is killed loses nothing it has acknowledged.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use skep_manager::store::{Outcome, RedbStore, Store, Txn};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const STORE: &str = "SKEP_TEST_STORE";

/// Writes until it is killed; prints each number after the store acknowledged it.
#[test]
#[ignore = "the victim of a_killed_writer_loses_nothing_acknowledged, which starts it"]
fn writer() {
    let path = std::env::var(STORE).expect("started by the other test");
    let store = RedbStore::open(Path::new(&path)).unwrap();
    for number in 1u64.. {
        let puts = vec![(format!("n/{number}"), number.to_string().into_bytes())];
        let outcome = store.txn(Txn { puts, ..Txn::default() }).unwrap();
        assert_eq!(outcome, Outcome::Committed(number));
        println!("acknowledged {number}");
    }
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged() {
    for kill_after in [1, 7, 40] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let acknowledged = write_and_kill(&path, kill_after);
        assert!(acknowledged >= kill_after);
        let store = RedbStore::open(&path).unwrap();
        let kept = store.list("n/").unwrap();
        assert!(kept.revision >= acknowledged, "{} of {acknowledged}", kept.revision);
        assert_eq!(kept.entries.len() as u64, kept.revision);
        for number in 1..=acknowledged {
            let entry = store.get(&format!("n/{number}")).unwrap().expect("an acknowledged write");
            assert_eq!((entry.value, entry.modified), (number.to_string().into_bytes(), number));
        }
    }
}

/// The last number the writer printed before it died.
fn write_and_kill(store: &Path, kill_after: u64) -> u64 {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .env(STORE, store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(writer.stdout.take().unwrap());
    let mut last = 0;
    for line in output.lines() {
        // libtest prints its own words before the first one on the same line.
        let line = line.unwrap_or_default();
        let Some((_, number)) = line.rsplit_once("acknowledged ") else { continue };
        // The kill may cut the last line short, which makes the number smaller.
        last = number.parse().unwrap_or(last).max(last);
        if last == kill_after {
            writer.kill().unwrap();
        }
    }
    writer.wait().unwrap();
    last
}
