//! A disk that is really full: the cluster is read-only, says so, and goes on by itself once there is room.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use skep_manager::store::{Outcome, RedbStore, Store, StoreError, Txn};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MOUNT: &str = "SKEP_TEST_MOUNT";
const SIZE: &str = "size=4m";

fn put(key: &str, bytes: usize) -> Txn {
    Txn { puts: vec![(key.to_owned(), vec![1; bytes])], ..Txn::default() }
}

/// Fills what is left.
fn ballast(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut size = 8 << 20;
    let mut all = Vec::new();
    while size >= 512 {
        let mut more = all.clone();
        more.resize(all.len() + size, 0u8);
        if fs::write(&path, &more).is_ok() {
            all = more;
        } else {
            fs::write(&path, &all).unwrap();
            size /= 2;
        }
    }
    path
}

#[test]
#[ignore = "run by a_full_disk_makes_the_cluster_read_only_until_there_is_room, in a mount namespace of its own"]
fn on_a_small_disk() {
    let dir = PathBuf::from(std::env::var(MOUNT).expect("started by the other test"));
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&dir).status().unwrap();
    assert!(mounted.success(), "a tmpfs needs root");
    let path = dir.join("cluster.redb");
    let store = RedbStore::open(&path).unwrap();
    let Outcome::Committed(first) = store.txn(put("a", 10)).unwrap() else { panic!("a conflict") };
    let ballast = ballast(&dir);

    let error =
        (0..10_000).find_map(|n| store.txn(put(&format!("b{n}"), 4_000)).err()).expect("the disk is full");
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    let sentence =
        format!("no space left on {}: the cluster is read-only until there is room", path.display());
    assert_eq!(error.to_string(), sentence);
    assert_eq!(store.trouble().unwrap().to_string(), sentence);

    // A daemon that restarts meanwhile has all of its state.
    let kept = store.list("").ok();
    store.close();
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    let listing = store.list("").unwrap();
    assert!(kept.is_none_or(|kept| kept == listing));
    assert_eq!(store.get("a").unwrap().unwrap().modified, first);
    while store.txn(put("c", 400_000)).is_ok() {}
    assert!(store.trouble().is_some());

    fs::remove_file(ballast).unwrap();
    store.recover().unwrap();
    assert!(store.trouble().is_none());
    let Outcome::Committed(next) = store.txn(put("d", 400_000)).unwrap() else { panic!("a conflict") };
    assert!(next > listing.revision);
}

#[test]
fn a_full_disk_makes_the_cluster_read_only_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(test)
        .args(["--exact", "on_a_small_disk", "--ignored", "--nocapture"])
        .env(MOUNT, dir.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
