mod faults;

use super::disk::Disk;
use super::*;

fn on(disk: &Disk) -> Result<RedbStore, StoreError> {
    let disk = disk.clone();
    RedbStore::opened_by(Box::new(move || disk.open()))
}

fn put(key: &str, value: &str) -> Txn {
    Txn { puts: vec![(key.to_owned(), value.into())], ..Txn::default() }
}

fn put_if(key: &str, modified: u64, value: &str) -> Txn {
    Txn { compare: vec![(key.to_owned(), modified)], ..put(key, value) }
}

fn commit(store: &RedbStore, txn: Txn) -> u64 {
    match store.txn(txn).unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict { key } => panic!("conflict on {key}"),
    }
}

#[test]
fn a_write_goes_through_only_on_the_revision_it_was_based_on() {
    let store = RedbStore::in_memory().unwrap();
    let first = commit(&store, put_if("node/a", 0, "1"));
    assert_eq!(
        store.txn(put_if("node/a", 0, "2")).unwrap(),
        Outcome::Conflict { key: "node/a".to_owned() },
        "0 means: must not exist"
    );
    let second = commit(&store, put_if("node/a", first, "2"));
    assert_eq!(second, first + 1, "a conflict takes no revision");
    assert_eq!(
        store.get("node/a").unwrap(),
        Some(Entry { key: "node/a".to_owned(), value: b"2".to_vec(), modified: second })
    );
}

#[test]
fn a_conflict_writes_none_of_the_transaction() {
    let store = RedbStore::in_memory().unwrap();
    commit(&store, put("a", "1"));
    let mut txn = put_if("a", 99, "2");
    txn.puts.push(("b".to_owned(), b"2".to_vec()));
    assert!(matches!(store.txn(txn).unwrap(), Outcome::Conflict { .. }));
    assert_eq!(store.get("b").unwrap(), None);
    assert_eq!(store.list("").unwrap().revision, 1);
}

#[test]
fn a_listing_is_bounded_by_its_prefix() {
    let store = RedbStore::in_memory().unwrap();
    for key in ["net/1", "node/1", "node/2", "nodes/1", "task/1"] {
        commit(&store, put(key, "x"));
    }
    let keys: Vec<_> = store.list("node/").unwrap().entries.into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["node/1", "node/2"]);
}

#[test]
fn a_watch_gives_past_and_later_commits_in_order() {
    let store = RedbStore::in_memory().unwrap();
    let first = commit(&store, put("a", "1"));
    commit(&store, put("a", "2"));
    let mut watch = store.watch(first + 1);
    commit(&store, Txn { deletes: vec!["a".to_owned()], ..Txn::default() });
    let events: Vec<_> =
        std::iter::from_fn(|| watch.try_next().unwrap()).map(|c| c.events[0].clone()).collect();
    let key = "a".to_owned();
    assert_eq!(events, [Event::Put { key: key.clone(), value: b"2".to_vec() }, Event::Delete { key }]);
}

#[test]
fn a_watch_from_a_forgotten_revision_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    commit(&RedbStore::open(&path).unwrap(), put("a", "1"));
    let store = RedbStore::open(&path).unwrap();
    commit(&store, put("a", "2"));
    assert_eq!(store.watch(1).try_next(), Err(WatchError { revision: 1, oldest: 2 }));
    assert_eq!(store.watch(2).try_next().unwrap().unwrap().revision, 2);
}

#[test]
fn everything_acknowledged_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = RedbStore::open(&path).unwrap();
    commit(&store, put("a", "1"));
    let last = commit(&store, put("b", "2"));
    let before = store.list("").unwrap();
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.list("").unwrap(), before);
    assert_eq!(commit(&store, put("c", "3")), last + 1, "revisions go on");
}

#[test]
fn a_second_daemon_on_the_same_file_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let _first = RedbStore::open(&path).unwrap();
    let error = RedbStore::open(&path).err().unwrap().to_string();
    assert!(error.contains("in use by another skepd") && error.contains("--state-dir"), "{error}");
}

#[test]
fn a_creation_that_was_interrupted_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.redb");
    std::fs::write(dir.path().join("cluster.partial"), vec![0; 4_096]).unwrap();
    commit(&RedbStore::open(&path).unwrap(), put("a", "1"));
    assert_eq!(RedbStore::open(&path).unwrap().get("a").unwrap().unwrap().value, b"1");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_file_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.redb");
    for damaged in [Vec::new(), vec![7; 100_000]] {
        std::fs::write(&path, damaged).unwrap();
        let error = RedbStore::open(&path).err().unwrap().to_string();
        assert!(error.contains("is damaged") && error.contains("swarm leave --force"), "{error}");
    }
}

#[test]
fn a_closed_store_gives_up_its_file_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = RedbStore::open(&path).unwrap();
    commit(&store, put("a", "1"));
    store.close();
    assert!(store.get("a").unwrap_err().to_string().contains("closed"));
    assert!(store.txn(put("a", "2")).is_err());
    assert_eq!(RedbStore::open(&path).unwrap().get("a").unwrap().unwrap().value, b"1");
}

#[test]
fn a_full_disk_refuses_writes_until_it_has_room_again() {
    let disk = Disk::default();
    let store = on(&disk).unwrap();
    let first = commit(&store, put("a", "1"));
    disk.set_full(true);
    let sentence = "no space left on memory: the cluster is read-only until there is room";
    for _ in 0..3 {
        assert_eq!(store.txn(put("a", "2")).unwrap_err().to_string(), sentence);
        assert_eq!(store.recover().unwrap_err().to_string(), sentence);
    }
    assert_eq!(store.trouble().unwrap().to_string(), sentence);
    disk.set_full(false);
    store.recover().unwrap();
    assert!(store.trouble().is_none());
    let second = commit(&store, put_if("a", first, "3"));
    assert_eq!(second, first + 1);
    assert_eq!(store.get("a").unwrap().unwrap().value, b"3");
    let mut watch = store.watch(second);
    assert_eq!(watch.try_next().unwrap().unwrap().revision, second);
}
