//! The embedded store: one redb file, one process. Every commit is synced before it is acknowledged.

use super::history::History;
use super::{Commit, Entry, Event, Listing, Outcome, Store, StoreError, Txn, Watch};
use redb::backends::InMemoryBackend;
use redb::{
    Builder, CommitError, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError, TransactionError,
};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Key → revision of its last write (8 bytes, big-endian), then the value.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// `revision` → the revision of the last commit.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

pub struct RedbStore {
    file: RwLock<File>,
    open: Opener,
    /// What people call the file.
    path: String,
    history: Arc<History>,
    /// Held from before a transaction until watchers can see it, so that they see commits in order.
    writer: Mutex<()>,
}

enum File {
    Open(Database),
    /// This transaction failed. redb refuses every further one until it is opened anew, also when the disk has room
    /// again.
    Failed {
        txn: Txn,
        error: StoreError,
    },
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum RedbOpenError {
    #[error("{path} is in use by another skepd: stop that one first, or give this one its own --state-dir")]
    InUse { path: PathBuf },
    #[error("cannot open the cluster's store {path}: {source}")]
    Open { path: PathBuf, source: DatabaseError },
    #[error(
        "the cluster's store {path} is damaged ({source}): put a copy of the file in its place, \
         or begin anew with `skep swarm leave --force` and `skep swarm init`"
    )]
    Damaged { path: PathBuf, source: DatabaseError },
    #[error("cannot create the cluster's store {path}: {source}")]
    Create { path: PathBuf, source: CreateError },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Redb(#[from] DatabaseError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads everything once and compares checksums: redb itself does not look at what a drive returns.
fn checked(mut database: Database) -> Result<Database, DatabaseError> {
    match database.check_integrity()? {
        true => Ok(database),
        false => Err(StorageError::Corrupted("its last commit cannot be read".to_owned()).into()),
    }
}

fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Makes an empty store under another name first: what a crash leaves of a creation is no store.
fn create(path: &Path) -> Result<(), CreateError> {
    let partial = path.with_extension("partial");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    create_tables(&Database::create(&partial)?)?;
    fs::rename(&partial, path)?;
    Ok(fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?)
}

impl RedbStore {
    /// Opens the store in the file `path`, which is created if it isn't there.
    pub fn open(path: &Path) -> Result<Self, RedbOpenError> {
        let path_owned = path.to_owned();
        let refused = |source| match source {
            DatabaseError::DatabaseAlreadyOpen => RedbOpenError::InUse { path: path_owned },
            source if is_damage(&source) => RedbOpenError::Damaged { path: path_owned, source },
            source => RedbOpenError::Open { path: path_owned, source },
        };
        if !path.exists() {
            create(path).map_err(|source| RedbOpenError::Create { path: path.to_owned(), source })?;
        }
        let file = path.to_owned();
        let open: Opener = Box::new(move || Database::open(&file));
        let database = open().and_then(checked).map_err(refused)?;
        Ok(Self::new(database, open, path.display().to_string())?)
    }

    /// A store that is gone with the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::opened_by(Box::new(|| Builder::new().create_with_backend(InMemoryBackend::new())))
    }

    /// A store in whatever `open` opens, which is called again after a write that failed.
    pub(crate) fn opened_by(open: Opener) -> Result<Self, StoreError> {
        let database = open().and_then(checked).map_err(failed("open"))?;
        Self::new(database, open, "memory".to_owned())
    }

    fn new(database: Database, open: Opener, path: String) -> Result<Self, StoreError> {
        let revision = create_tables(&database)?;
        Ok(Self {
            file: RwLock::new(File::Open(database)),
            open,
            path,
            history: History::new(revision),
            writer: Mutex::new(()),
        })
    }

    fn with<T>(&self, action: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.file.read().unwrap_or_else(PoisonError::into_inner) {
            File::Open(database) => action(database),
            File::Failed { error, .. } => Err(error.clone()),
            File::Closed => Err(failed("answer")(Closed)),
        }
    }

    /// Opens the file again after a write that failed, which brings it back to the last whole commit. That is the
    /// failed one where only its acknowledgement was lost: then watchers are told now.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        let File::Failed { txn, .. } = &*file else { return Ok(()) };
        let database = (self.open)().map_err(failed("recover from a failed write"))?;
        let revision = create_tables(&database)?;
        prove_writable(&database, revision)?;
        if revision == self.history.next() {
            self.history.push(Commit { revision, events: events(txn.clone()) });
        }
        *file = File::Open(database);
        Ok(())
    }

    fn fail(&self, txn: Txn, error: StoreError) {
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*file, File::Open(_)) {
            *file = File::Failed { txn, error };
        }
    }

    /// The error as people can act on it.
    fn named(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Failed { source, .. } if is_out_of_room(source.as_ref()) => {
                StoreError::Full { path: self.path.clone() }
            }
            error => error,
        }
    }

    fn lock_writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// redb's errors do not pass on their source, so that it is looked for in the types they come in.
fn is_out_of_room(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let storage = error
        .downcast_ref::<StorageError>()
        .or_else(|| match error.downcast_ref()? {
            CommitError::Storage(error) => Some(error),
            _ => None,
        })
        .or_else(|| match error.downcast_ref()? {
            TransactionError::Storage(error) => Some(error),
            _ => None,
        })
        .or_else(|| match error.downcast_ref()? {
            TableError::Storage(error) => Some(error),
            _ => None,
        })
        .or_else(|| match error.downcast_ref()? {
            DatabaseError::Storage(error) => Some(error),
            _ => None,
        });
    let Some(StorageError::Io(error)) = storage else { return false };
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[derive(Debug, thiserror::Error)]
#[error("it was closed")]
struct Closed;

impl Store for RedbStore {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.with(|database| get(database, key))
    }

    fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.with(|database| list(database, prefix))
    }

    fn txn(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let _writer = self.lock_writer();
        self.reopen().map_err(|error| self.named(error))?;
        let outcome = self.with(|database| commit(database, &txn)).map_err(|error| self.named(error));
        match &outcome {
            Ok(Outcome::Committed(revision)) => {
                self.history.push(Commit { revision: *revision, events: events(txn) });
            }
            Ok(Outcome::Conflict { .. }) => {}
            Err(error) => self.fail(txn, error.clone()),
        }
        outcome
    }

    fn trouble(&self) -> Option<StoreError> {
        match &*self.file.read().unwrap_or_else(PoisonError::into_inner) {
            File::Failed { error, .. } => Some(error.clone()),
            File::Open(_) | File::Closed => None,
        }
    }

    fn recover(&self) -> Result<(), StoreError> {
        let _writer = self.lock_writer();
        self.reopen().map_err(|error| self.named(error))
    }

    fn watch(&self, revision: u64) -> Watch {
        self.history.watch(revision)
    }

    fn close(&self) {
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = File::Closed;
    }
}

fn get(database: &Database, key: &str) -> Result<Option<Entry>, StoreError> {
    let read = database.begin_read().map_err(failed("read"))?;
    let objects = read.open_table(OBJECTS).map_err(failed("read"))?;
    let record = objects.get(key).map_err(failed("read"))?;
    record.map(|record| entry(key, record.value())).transpose()
}

fn list(database: &Database, prefix: &str) -> Result<Listing, StoreError> {
    let read = database.begin_read().map_err(failed("read"))?;
    let objects = read.open_table(OBJECTS).map_err(failed("read"))?;
    let counters = read.open_table(COUNTERS).map_err(failed("read"))?;
    let mut entries = Vec::new();
    for record in objects.range(prefix..).map_err(failed("read"))? {
        let (key, record) = record.map_err(failed("read"))?;
        if !key.value().starts_with(prefix) {
            break;
        }
        entries.push(entry(key.value(), record.value())?);
    }
    Ok(Listing { revision: revision(&counters)?, entries })
}

fn commit(database: &Database, txn: &Txn) -> Result<Outcome, StoreError> {
    let mut write = database.begin_write().map_err(failed("write"))?;
    // One more sync, for which a last commit that the drive has spoilt is found at the next open; otherwise it would
    // pass for one that was torn by a crash and be taken back, though it was acknowledged.
    write.set_two_phase_commit(true);
    let committed = {
        let mut objects = write.open_table(OBJECTS).map_err(failed("write"))?;
        let mut counters = write.open_table(COUNTERS).map_err(failed("write"))?;
        if let Some(key) = first_conflict(&objects, &txn.compare)? {
            // Dropping the transaction aborts it.
            return Ok(Outcome::Conflict { key });
        }
        let committed = revision(&counters)? + 1;
        counters.insert(REVISION, committed).map_err(failed("write"))?;
        for (key, value) in &txn.puts {
            objects.insert(key.as_str(), record(committed, value).as_slice()).map_err(failed("write"))?;
        }
        for key in &txn.deletes {
            objects.remove(key.as_str()).map_err(failed("write"))?;
        }
        committed
    };
    write.commit().map_err(failed("commit"))?;
    Ok(Outcome::Committed(committed))
}

/// Makes sure that the tables exist, so that reads need not; returns the last revision.
fn create_tables(database: &Database) -> Result<u64, StoreError> {
    let read = database.begin_read().map_err(failed("open"))?;
    match read.open_table(COUNTERS) {
        Ok(counters) => return revision(&counters),
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(failed("open")(error)),
    }
    let write = database.begin_write().map_err(failed("create its tables"))?;
    write.open_table(OBJECTS).map_err(failed("create its tables"))?;
    write.open_table(COUNTERS).map_err(failed("create its tables"))?;
    write.commit().map_err(failed("create its tables"))?;
    Ok(0)
}

/// Writes what is there already: a disk may let itself be read and not written.
fn prove_writable(database: &Database, revision: u64) -> Result<(), StoreError> {
    let write = database.begin_write().map_err(failed("write"))?;
    write
        .open_table(COUNTERS)
        .map_err(failed("write"))?
        .insert(REVISION, revision)
        .map_err(failed("write"))?;
    write.commit().map_err(failed("commit"))
}

fn first_conflict(
    objects: &impl ReadableTable<&'static str, &'static [u8]>,
    compare: &[(String, u64)],
) -> Result<Option<String>, StoreError> {
    for (key, expected) in compare {
        let record = objects.get(key.as_str()).map_err(failed("read"))?;
        let modified = record.map(|record| entry(key, record.value())).transpose()?.map_or(0, |e| e.modified);
        if modified != *expected {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}

fn revision(counters: &impl ReadableTable<&'static str, u64>) -> Result<u64, StoreError> {
    Ok(counters.get(REVISION).map_err(failed("read"))?.map_or(0, |revision| revision.value()))
}

fn record(modified: u64, value: &[u8]) -> Vec<u8> {
    [&modified.to_be_bytes(), value].concat()
}

fn entry(key: &str, record: &[u8]) -> Result<Entry, StoreError> {
    let Some((modified, value)) = record.split_first_chunk() else {
        return Err(failed("read")(Truncated(key.to_owned())));
    };
    Ok(Entry { key: key.to_owned(), value: value.to_vec(), modified: u64::from_be_bytes(*modified) })
}

#[derive(Debug, thiserror::Error)]
#[error("the record of {0} is truncated")]
struct Truncated(String);

fn events(txn: Txn) -> Vec<Event> {
    let puts = txn.puts.into_iter().map(|(key, value)| Event::Put { key, value });
    puts.chain(txn.deletes.into_iter().map(|key| Event::Delete { key })).collect()
}

fn failed<E: std::error::Error + Send + Sync + 'static>(action: &'static str) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Failed { action, source: Arc::new(source) }
}
