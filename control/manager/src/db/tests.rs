use super::*;
use crate::store::RedbStore;
use jiff::Timestamp;
use skep_model::NetworkId;
use skep_model::cluster::Meta;
use skep_model::network::{Network, NetworkSpec};
use std::convert::Infallible;

fn network(id: &str) -> Change {
    Change::PutNetwork(Box::new(Network {
        id: NetworkId::from(id),
        meta: Meta::new(Timestamp::UNIX_EPOCH),
        spec: NetworkSpec { name: id.to_owned(), ..NetworkSpec::default() },
        allocation: None,
    }))
}

fn store() -> Arc<RedbStore> {
    Arc::new(RedbStore::in_memory().unwrap())
}

fn put(db: &Db, id: &str) -> u64 {
    db.update(|_| Ok::<_, Infallible>(vec![network(id)])).unwrap()
}

#[test]
fn an_update_is_seen_by_readers_watchers_and_the_next_open() {
    let store = store();
    let db = Db::open(store.clone()).unwrap();
    let before = db.state();
    let mut watch = db.watch();
    let revision = put(&db, "a");
    assert_eq!(db.state().revision, revision);
    assert_eq!(db.state().networks[&NetworkId::from("a")].meta.version.index, revision);
    assert!(before.networks.is_empty(), "a snapshot never changes");
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), revision);

    let reopened = Db::open(store).unwrap();
    assert_eq!(reopened.state().revision, revision);
    assert_eq!(reopened.state().networks, db.state().networks);
}

#[test]
fn a_version_is_that_of_the_last_write_after_a_reopen_too() {
    let store = store();
    let db = Db::open(store.clone()).unwrap();
    let first = put(&db, "a");
    put(&db, "b");
    let version = |db: &Db| db.state().networks[&NetworkId::from("a")].meta.version.index;
    assert_eq!(version(&db), first);
    assert_eq!(version(&Db::open(store).unwrap()), first);
}

#[test]
fn nothing_to_change_writes_nothing() {
    let db = Db::open(store()).unwrap();
    let revision = put(&db, "a");
    assert_eq!(db.update(|_| Ok::<_, Infallible>(Vec::new())).unwrap(), revision);
    let refused = db.update(|_| Err::<Vec<Change>, _>("no"));
    assert!(matches!(refused, Err(UpdateError::Refused("no"))));
    assert_eq!(db.state().revision, revision);
}

#[test]
fn a_writer_that_was_overtaken_runs_again_on_the_newer_state() {
    let store = store();
    let (a, b) = (Db::open(store.clone()).unwrap(), Db::open(store).unwrap());
    put(&a, "a");
    let mut seen = Vec::new();
    b.update(|state| {
        seen.push(state.networks.len());
        Ok::<_, Infallible>(vec![network("b")])
    })
    .unwrap();
    assert_eq!(seen, [0, 1]);
    a.update(|state| {
        assert!(state.networks.len() < 3);
        Ok::<_, Infallible>(vec![Change::DeleteNetwork(NetworkId::from("b"))])
    })
    .unwrap();
    put(&b, "c");
    let names: Vec<_> = b.state().networks.keys().map(|id| id.0.clone()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn writers_on_many_threads_lose_nothing() {
    let db = Db::open(store()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = db.clone();
            scope.spawn(move || {
                for n in 0..10 {
                    put(&db, &format!("{thread}-{n}"));
                }
            });
        }
    });
    assert_eq!(db.state().networks.len(), 40);
    assert_eq!(db.state().revision, 40);
}
