//! A running task, as the daemon holds it.

use super::protocol::{Report, checked_length};
use super::shim;
use super::start::{Launched, Slot};
use super::sys;
use super::terminal::Terminal;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use skep_model::signal::Signal;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The command's exit code; 128 + signal if a signal ended it.
    pub code: i32,
    pub signal: Option<i32>,
    /// The task was killed because its shim had been.
    pub shim_lost: bool,
}

impl Exit {
    const SHIM_LOST: Self = Self { code: 128 + libc::SIGKILL, signal: Some(libc::SIGKILL), shim_lost: true };
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { shim_lost: true, .. } => f.write_str("killed, because its shim process was"),
            Self { signal: Some(signal), .. } => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => write!(f, "killed by {name}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self { code, .. } => write!(f, "exit code {code}"),
        }
    }
}

/// The daemon's ends of an attached task's streams.
#[derive(Debug)]
pub struct Streams {
    /// Dropping it is the end of the task's input, except on a terminal.
    pub stdin: pipe::Sender,
    /// Of a terminal all output; it then ends with an error (EIO).
    pub stdout: pipe::Receiver,
    /// None: a terminal.
    pub stderr: Option<pipe::Receiver>,
    pub terminal: Option<Terminal>,
}

impl Streams {
    /// To be called within a tokio runtime.
    pub(super) fn of_terminal(master: OwnedFd) -> io::Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        // A terminal's master is read, written and waited for as a pipe is.
        let stdin = pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?;
        let stdout = pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
        Ok(Self { stdin, stdout, stderr: None, terminal: Some(Terminal::new(master)) })
    }
}

/// A running task. Dropping it kills the task.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    exit: watch::Receiver<Option<Exit>>,
    streams: Option<Streams>,
    _release: oneshot::Sender<()>,
}

impl Process {
    /// The host's pid of the task's pid 1.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the task has ended; every process of it is gone then. May be called again.
    pub async fn wait(&self) -> Exit {
        match self.exit.clone().wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::SHIM_LOST),
            // The runtime is shutting down; the shim then loses its daemon and ends the task.
            Err(_) => Exit::SHIM_LOST,
        }
    }

    /// Asks the task to end by `signal`, kills all of it if it hasn't after `grace`, and returns when it has.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        self.signal(signal.number());
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.kill();
                self.wait().await
            }
        }
    }

    /// Sends SIGKILL; [`Process::wait`] says when the task has ended.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// The streams of an attached task, once.
    pub fn take_streams(&mut self) -> Option<Streams> {
        self.streams.take()
    }

    /// Sends a signal to pid 1. A pidfd never means another process, so the only failure is that the task has ended.
    pub fn signal(&self, signal: i32) {
        if let Err(error) = sys::pidfd_signal(self.pidfd.get_ref(), signal) {
            tracing::debug!(pid = self.pid, signal, %error, "a signal met no task");
        }
    }
}

/// Takes a started task over. To be called within a tokio runtime.
pub(super) fn supervise(launched: Launched, slot: Slot) -> io::Result<Process> {
    let Launched { shim, socket, pid, pidfd, streams, directory } = launched;
    socket.set_nonblocking(true)?;
    let socket = UnixStream::from_std(socket)?;
    let pidfd = Arc::new(sys::readable(pidfd)?);
    let (exit, exited) = watch::channel(None);
    let (release, released) = oneshot::channel();
    let watched = Watched { shim, socket, pidfd: Arc::clone(&pidfd), directory, slot };
    tokio::spawn(watched.run(exit, released));
    Ok(Process { pid, pidfd, exit: exited, streams, _release: release })
}

struct Watched {
    shim: tokio::process::Child,
    socket: UnixStream,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    directory: PathBuf,
    slot: Slot,
}

impl Watched {
    async fn run(mut self, exit: watch::Sender<Option<Exit>>, released: oneshot::Receiver<()>) {
        let report = tokio::select! {
            report = read_exit(&mut self.socket) => report.ok(),
            _ = released => None,
        };
        // A shim holds its end of the socket until it is gone, so without a report it was killed. The kernel then
        // kills pid 1 (PDEATHSIG), unless pid 1 changed its user, which clears that.
        if report.is_none() {
            let _gone_already = sys::kill(self.pidfd.get_ref());
            let _readable = self.pidfd.readable().await;
            let Exit { code, signal, .. } = Exit::SHIM_LOST;
            if let Err(error) = shim::record_exit(&self.directory, code, signal) {
                tracing::warn!(directory = %self.directory.display(), %error, "cannot record a task's end");
            }
        }
        // Who has waited may start the task again, or remove what is kept of it.
        drop((self.socket, self.slot));
        let _nobody_waits = exit.send(Some(report.unwrap_or(Exit::SHIM_LOST)));
        if let Err(error) = self.shim.wait().await {
            tracing::warn!(%error, "cannot wait for a task's shim");
        }
    }
}

async fn read_exit(socket: &mut UnixStream) -> io::Result<Exit> {
    let mut length = [0u8; 4];
    socket.read_exact(&mut length).await?;
    let mut body = vec![0u8; checked_length(length)?];
    socket.read_exact(&mut body).await?;
    match serde_json::from_slice(&body)? {
        Report::Exited { code, signal } => Ok(Exit { code, signal, shim_lost: false }),
        other => Err(io::Error::other(format!("unexpected report {other:?}"))),
    }
}
