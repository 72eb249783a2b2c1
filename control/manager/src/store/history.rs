//! The last commits, from which watchers read at their own pace.

use super::Commit;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Commits kept for watchers that lag. A watcher further behind reads everything anew, which for a
/// cluster's state takes milliseconds, so that this bounds memory and costs nothing else.
const KEPT_COMMITS: usize = 1024;

pub(super) struct History {
    commits: Mutex<Commits>,
}

struct Commits {
    /// Consecutive revisions, oldest first.
    kept: VecDeque<Arc<Commit>>,
    /// The revision the next commit will have.
    next: u64,
}

impl History {
    /// For a store whose last revision is `revision`; earlier commits are not known any more.
    pub(super) fn new(revision: u64) -> Arc<Self> {
        Arc::new(Self { commits: Mutex::new(Commits { kept: VecDeque::new(), next: revision + 1 }) })
    }

    /// The revision of the next commit.
    pub(super) fn next(&self) -> u64 {
        self.lock().next
    }

    pub(super) fn push(&self, commit: Commit) {
        let mut commits = self.lock();
        debug_assert_eq!(commit.revision, commits.next);
        commits.next = commit.revision + 1;
        if commits.kept.len() == KEPT_COMMITS {
            commits.kept.pop_front();
        }
        commits.kept.push_back(Arc::new(commit));
    }

    pub(super) fn watch(self: &Arc<Self>, revision: u64) -> Watch {
        Watch { history: self.clone(), next: revision }
    }

    fn lock(&self) -> MutexGuard<'_, Commits> {
        // A panic cannot leave the queue half changed.
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads commits in order, each once.
pub struct Watch {
    history: Arc<History>,
    next: u64,
}

/// etcd calls this compacted: the commit asked for is not kept any more. List everything and watch anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {revision} is no longer kept, the oldest one is {oldest}")]
pub struct WatchError {
    pub revision: u64,
    pub oldest: u64,
}

impl Watch {
    /// The next commit, or None while there is none yet.
    pub fn try_next(&mut self) -> Result<Option<Arc<Commit>>, WatchError> {
        let commits = self.history.lock();
        if self.next >= commits.next {
            return Ok(None);
        }
        let oldest = commits.next - commits.kept.len() as u64;
        let Some(index) = self.next.checked_sub(oldest) else {
            return Err(WatchError { revision: self.next, oldest });
        };
        self.next += 1;
        Ok(commits.kept.get(index as usize).cloned())
    }
}
