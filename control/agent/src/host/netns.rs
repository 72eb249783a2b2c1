//! Network namespaces as handles. Nothing here changes the namespace of a thread that outlives the call.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;
use tokio::sync::oneshot;

/// A network namespace, alive as long as this handle (or a process, or a path) holds it.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// A new namespace without a name: `lo`, down, and nothing else.
    pub fn anonymous() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?
    }

    /// The calling thread's namespace.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// A namespace by path, as under `/run/netns` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Executes `work` in the namespace, on a thread of its own.
    pub async fn run<T, F>(&self, work: F) -> io::Result<T>
    where
        F: FnOnce() -> io::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let netns = self.try_clone()?;
        let (done, result) = oneshot::channel();
        thread::Builder::new().name("netns".to_owned()).spawn(move || {
            // The receiver is gone if the caller stopped waiting; the work is done all the same.
            let _ = done.send(netns.enter().and_then(|()| work()));
        })?;
        result.await.map_err(|_| io::Error::other("work in a network namespace panicked"))?
    }

    /// As [`Self::run`], for callers without a runtime.
    pub fn run_blocking<T, F>(&self, work: F) -> io::Result<T>
    where
        F: FnOnce() -> io::Result<T> + Send,
        T: Send,
    {
        on_own_thread(|| self.enter().and_then(|()| work()))?
    }

    /// Moves the calling thread for good: only for threads that end with the work.
    fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Netns {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("work in a network namespace panicked"))
    })
}
