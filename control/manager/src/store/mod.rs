//! Where the cluster's objects are kept, shaped like etcd: keys with a modification revision,
//! transactions that compare and write, and watching from a revision on.
//!
//! [`RedbStore`] serves one manager. Keys are text (`node/<id>`), values bytes (JSON).

#[cfg(test)]
pub(crate) mod disk;
mod history;
mod redb;
#[cfg(test)]
mod tests;

pub use self::history::{Watch, WatchError};
pub use self::redb::{RedbOpenError, RedbStore};

use std::sync::Arc;

/// A key's value and the revision of the transaction that wrote it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    pub modified: u64,
}

/// What a prefix held at one revision, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub revision: u64,
    pub entries: Vec<Entry>,
}

/// Writes that happen all or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Each of these keys must have been modified last at this revision; 0: must not exist.
    pub compare: Vec<(String, u64)>,
    pub puts: Vec<(String, Vec<u8>)>,
    pub deletes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Durable, as this revision.
    Committed(u64),
    /// A comparison failed: somebody else wrote this key. Nothing was written.
    Conflict { key: String },
}

/// One committed transaction, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub revision: u64,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put { key: String, value: Vec<u8> },
    Delete { key: String },
}

/// The store cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no space left on {path}: the cluster is read-only until there is room")]
    Full { path: String },
    /// Its disk is broken, or its file is damaged.
    #[error("the cluster's store failed to {action}: {source}")]
    Failed { action: &'static str, source: Arc<dyn std::error::Error + Send + Sync> },
}

pub trait Store: Send + Sync {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Every key that starts with `prefix`, read at one revision.
    fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Returns once the writes are durable.
    fn txn(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// The commits from `revision` on, past ones first.
    fn watch(&self, revision: u64) -> Watch;

    /// Why the last write failed, while none has gone through since. What was read before stays true meanwhile.
    fn trouble(&self) -> Option<StoreError>;

    /// Makes the store fit for writes again after one that failed, if its disk lets it. Does nothing otherwise.
    fn recover(&self) -> Result<(), StoreError>;

    /// Gives up the files once calls under way have ended, whoever still holds the store. Later calls
    /// that need them fail.
    fn close(&self);
}
