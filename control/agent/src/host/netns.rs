//! Network namespaces as handles. Nothing here changes the namespace of a thread that outlives the call.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
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
        // Whatever else the path names, a pipe for one, opening it must not block.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !is_netns(file.as_fd()) {
            let advice = "give a path as under /run/netns, or /proc/PID/ns/net";
            let message = format!("{} is not a network namespace: {advice}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self(file.into()))
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

// linux/nsfs.h
nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);

fn is_netns(file: BorrowedFd<'_>) -> bool {
    // SAFETY: `file` is open and the request takes no argument; files of other kinds answer ENOTTY.
    unsafe { ns_get_nstype(file.as_raw_fd()) == Ok(libc::CLONE_NEWNET) }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("work in a network namespace panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_namespaces_are_opened() {
        for other in ["/proc/self/ns/uts", "/dev/null", "/proc/self/stat"] {
            let error = Netns::open(Path::new(other)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{other}");
        }
        Netns::open(Path::new("/proc/self/ns/net")).unwrap();
    }
}
