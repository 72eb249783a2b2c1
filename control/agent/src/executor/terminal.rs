//! A task's terminal: made in the task's own /dev/pts, held from outside by its master.

use super::protocol;
use super::spec::TerminalSize;
use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The daemon's hold on a task's terminal. When it and the streams are dropped the terminal hangs up.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> Self {
        Self(master)
    }

    /// Programs on the terminal are told by SIGWINCH.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        resize(&self.0, size)
    }
}

fn resize(terminal: &impl AsFd, size: TerminalSize) -> io::Result<()> {
    let TerminalSize { rows, columns } = size;
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Makes a terminal the controlling one of this process, which must lead its session, and its three streams; sends
/// the master over `socket`.
pub(super) fn take(size: TerminalSize, socket: UnixStream) -> io::Result<()> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    resize(&master, size)?;
    // Without O_NOCTTY the first terminal a session's leader opens is its controlling one (open(2)).
    let terminal = open(ptsname_r(&master)?.as_str(), OFlag::O_RDWR, Mode::empty())?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    protocol::send(&socket, &(), &[master.as_fd()])
}

/// The master that a task's first stage has sent.
pub(super) fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let ((), fds) = protocol::receive(socket)?;
    fds.into_iter().next().ok_or(io::ErrorKind::InvalidData.into())
}
