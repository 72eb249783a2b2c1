//! A disk in memory that can be full, and whose machine can lose power or its process at any operation.

use ::redb::{Builder, Database, DatabaseError, StorageBackend};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a drive writes whole: a longer write may be torn between two of these.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What was there at the last sync.
    synced: Vec<u8>,
    since_sync: Vec<Write>,
    /// Changing operations so far.
    operations: u64,
    /// The machine dies instead of doing this operation.
    dies_at: Option<u64>,
    is_full: bool,
    /// Files opened in an earlier life of the machine can do nothing any more.
    life: u64,
}

#[derive(Debug)]
enum Write {
    Data { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The kernel keeps what was written.
    Killed,
    /// Any of what was not synced may be missing, or be there in part.
    PowerLost,
}

impl Disk {
    pub(crate) fn open(&self) -> Result<Database, DatabaseError> {
        let life = self.lock().life;
        // The default cache would reserve far more than any test writes.
        Builder::new().set_cache_size(4 << 20).create_with_backend(File { disk: self.clone(), life })
    }

    /// After `operations` more ones nothing is done any more.
    pub(crate) fn die_after(&self, operations: u64) {
        let mut inner = self.lock();
        inner.dies_at = Some(inner.operations + operations + 1);
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether the operation came at which it dies.
    pub(crate) fn is_dead(&self) -> bool {
        let inner = self.lock();
        inner.dies_at.is_some_and(|at| inner.operations >= at)
    }

    /// The machine is up again; `seed` chooses what of the unsynced writes is left.
    pub(crate) fn revive(&self, death: Death, seed: u64) {
        let mut inner = self.lock();
        let mut rng = StdRng::seed_from_u64(seed);
        if death == Death::PowerLost {
            let mut left = std::mem::take(&mut inner.synced);
            for write in std::mem::take(&mut inner.since_sync) {
                write.apply_some(&mut left, &mut rng);
            }
            inner.seen = left;
        }
        inner.since_sync.clear();
        inner.synced = inner.seen.clone();
        inner.dies_at = None;
        inner.life += 1;
    }

    /// Turns one bit around.
    pub(crate) fn flip(&self, bit: usize) {
        let mut inner = self.lock();
        inner.seen[bit / 8] ^= 1 << (bit % 8);
        inner.synced = inner.seen.clone();
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().seen.len()
    }

    /// A copy that lives its own life.
    pub(crate) fn copy(&self) -> Self {
        let inner = self.lock();
        let (seen, synced) = (inner.seen.clone(), inner.seen.clone());
        Self(Arc::new(Mutex::new(Inner { seen, synced, ..Inner::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Data { offset, data } => to[*offset..offset + data.len()].copy_from_slice(data),
            Self::Length(length) => to.resize(*length, 0),
        }
    }

    /// Lengths are kept: a file system's own journal has them.
    fn apply_some(&self, to: &mut Vec<u8>, rng: &mut StdRng) {
        let Self::Data { offset, data } = self else { return self.apply(to) };
        match rng.random_range(0..3) {
            0 => {}
            1 => self.apply(to),
            _ => {
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    if rng.random() {
                        let at = offset + index * SECTOR;
                        to[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
    }
}

#[derive(Debug)]
struct File {
    disk: Disk,
    life: u64,
}

impl File {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.lock();
        let is_dead = inner.life != self.life || inner.dies_at.is_some_and(|at| inner.operations >= at);
        if is_dead { Err(io::Error::other("the machine is dead")) } else { Ok(inner) }
    }

    fn counted(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.inner()?;
        inner.operations += 1;
        match inner.dies_at {
            Some(at) if inner.operations >= at => Err(io::Error::other("the machine dies")),
            _ => Ok(inner),
        }
    }

    fn change(&self, write: Write) -> io::Result<()> {
        let mut inner = self.counted()?;
        if inner.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        write.apply(&mut inner.seen);
        inner.since_sync.push(write);
        Ok(())
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner()?;
        let offset = offset as usize;
        let data = inner.seen.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Write::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.counted()?;
        for write in std::mem::take(&mut inner.since_sync) {
            write.apply(&mut inner.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Write::Data { offset: offset as usize, data: data.to_vec() })
    }
}
