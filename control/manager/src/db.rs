//! The cluster's state in memory, kept equal to the store: readers take an immutable snapshot, writers
//! go one at a time.

mod records;
#[cfg(test)]
mod tests;

use self::records::DecodeError;
use crate::state::{Change, State};
use crate::store::{Outcome, Store, StoreError, Txn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::watch;

/// Every transaction compares and rewrites this key, so that nobody builds on a state that another
/// writer has changed meanwhile.
const HEAD: &str = "head";
/// Each conflict means that another writer got on, so that more than a few in a row are a fault.
const MAX_CONFLICTS: usize = 32;

/// Cheap to clone; all clones are the same database.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    state: RwLock<Arc<State>>,
    writer: Mutex<()>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}; it was written by another version of Skep or is damaged")]
    Decode(#[from] DecodeError),
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// The caller's own reason not to write.
    #[error(transparent)]
    Refused(E),
    #[error(transparent)]
    Store(StoreError),
    #[error("nothing was written: {0}")]
    Reload(OpenError),
    #[error("nothing was written: other managers keep changing the state, try again")]
    Contended,
}

impl Db {
    /// Reads the whole state from the store.
    pub fn open(store: Arc<dyn Store>) -> Result<Self, OpenError> {
        let state = load(store.as_ref())?;
        let revision = watch::Sender::new(state.revision);
        let inner = Inner { store, state: RwLock::new(Arc::new(state)), writer: Mutex::new(()), revision };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The latest state; it never changes under the reader.
    pub fn state(&self) -> Arc<State> {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The revision of the latest state, for waiting until it changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    /// Commits what `change` makes of the latest state as one transaction; an empty list writes
    /// nothing. `change` runs again if another manager wrote meanwhile. Blocks for one disk sync.
    ///
    /// Returns the revision of the state that holds the changes.
    pub fn update<E>(
        &self,
        mut change: impl FnMut(&State) -> Result<Vec<Change>, E>,
    ) -> Result<u64, UpdateError<E>> {
        let _writer = self.lock_writer();
        for _ in 0..MAX_CONFLICTS {
            let state = self.state();
            let changes = change(&state).map_err(UpdateError::Refused)?;
            if changes.is_empty() {
                return Ok(state.revision);
            }
            match self.inner.store.txn(transaction(state.revision, &changes)).map_err(UpdateError::Store)? {
                Outcome::Committed(revision) => {
                    let mut next = State::clone(&state);
                    drop(state);
                    next.apply(revision, changes);
                    self.swap_in(next);
                    return Ok(revision);
                }
                Outcome::Conflict { .. } => self.catch_up(&state).map_err(UpdateError::Reload)?,
            }
        }
        Err(UpdateError::Contended)
    }

    /// Takes in what others have written to the store.
    fn catch_up(&self, from: &State) -> Result<(), OpenError> {
        let mut watch = self.inner.store.watch(from.revision + 1);
        let mut next = from.clone();
        loop {
            match watch.try_next() {
                Ok(Some(commit)) => next.apply(commit.revision, records::changes(&commit.events)?),
                Ok(None) => break,
                Err(_compacted) => {
                    next = load(self.inner.store.as_ref())?;
                    break;
                }
            }
        }
        self.swap_in(next);
        Ok(())
    }

    /// Why nothing can be written at present. The latest state stays readable.
    pub fn trouble(&self) -> Option<StoreError> {
        self.inner.store.trouble()
    }

    /// Tries to make the store fit for writes again after one that failed, and wakes whoever waits for changes.
    /// Blocks.
    pub fn recover(&self) -> Result<(), OpenError> {
        let _writer = self.lock_writer();
        self.inner.store.recover()?;
        self.catch_up(&self.state())
    }

    /// Gives up the store's files. The latest state stays readable, updates fail.
    pub fn close(&self) {
        let _writer = self.lock_writer();
        self.inner.store.close();
    }

    fn swap_in(&self, next: State) {
        let revision = next.revision;
        *self.inner.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.inner.revision.send_replace(revision);
    }

    fn lock_writer(&self) -> MutexGuard<'_, ()> {
        // A writer that panicked has swapped in a whole state or none.
        self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(store: &dyn Store) -> Result<State, OpenError> {
    let listing = store.list("")?;
    let mut state = State::default();
    let mut head = 0;
    for entry in &listing.entries {
        if entry.key == HEAD {
            head = entry.modified;
        } else {
            state.apply(entry.modified, [records::decode(&entry.key, &entry.value)?]);
        }
    }
    state.revision = head;
    Ok(state)
}

fn transaction(revision: u64, changes: &[Change]) -> Txn {
    let mut txn = Txn { compare: vec![(HEAD.to_owned(), revision)], ..Txn::default() };
    txn.puts.push((HEAD.to_owned(), Vec::new()));
    for change in changes {
        records::encode(change, &mut txn);
    }
    txn
}
