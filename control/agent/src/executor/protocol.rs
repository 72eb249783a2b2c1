//! What the daemon, the shim and the first stage of a task say to each other: frames of a length (u32,
//! little endian) and one JSON document over a stream socket, file descriptors beside the length.

use super::spec::{ProcessIo, TerminalSize};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// `argv[0]` of a shim and of a task's first stage: no argument of skepd's own can be mistaken for them.
pub(super) const SHIM: &str = "skep-shim";
pub(super) const INIT: &str = "skep-init";

/// Linux gives arguments and environment a quarter of the stack limit, 2 MiB by default; JSON may double that.
pub(super) const MAX_FRAME_BYTES: usize = 4 << 20;
/// The network namespace and three streams.
const MAX_FDS: usize = 4;

/// The daemon's order to a fresh shim; the network namespace and, for attached streams, their three far ends
/// come beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    /// The task's directory: its log, exit status and files for /etc.
    pub(super) directory: PathBuf,
    pub(super) hostname: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) hidden: Vec<PathBuf>,
    /// Where the command starts.
    pub(super) dir: PathBuf,
    /// `USER[:GROUP]`; empty: root.
    pub(super) user: String,
    pub(super) io: ProcessIo,
    /// Instead of pipes.
    pub(super) terminal: Option<TerminalSize>,
}

/// What a shim tells its daemon. A pidfd of the task's pid 1 comes beside `Started`, and the master of an attached
/// task's terminal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Started { pid: i32 },
    Failed(Failure),
    Exited { code: i32, signal: Option<i32> },
}

/// Why a task could not be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// Whether the command itself could not be executed, as against the world around it being built.
    pub(super) command: bool,
    /// What was being done, or the command's name.
    pub(super) doing: String,
    pub(super) errno: i32,
}

impl Failure {
    pub(super) fn setup(doing: impl Into<String>, error: &io::Error) -> Self {
        Self { command: false, doing: doing.into(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_FRAME_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let length = u32::try_from(body.len()).map_err(|_| ErrorKind::FileTooLarge)?;
    Ok([&length.to_le_bytes(), body.as_slice()].concat())
}

pub(super) fn send(socket: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let frame = encode(message)?;
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[] } else { rights.as_slice() };
    let buffers = [IoSlice::new(&frame)];
    let sent = uninterrupted(|| {
        Ok(sendmsg::<()>(socket.as_raw_fd(), &buffers, control, MsgFlags::MSG_NOSIGNAL, None)?)
    })?;
    let mut socket = socket;
    socket.write_all(&frame[sent..])
}

/// The next message; `UnexpectedEof` when the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0u8; 4];
    let (read, fds) = uninterrupted(|| receive_with_fds(socket, &mut length))?;
    if read == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut socket = socket;
    socket.read_exact(&mut length[read..])?;
    let mut body = vec![0u8; checked_length(length)?];
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fds))
}

/// A socket with a timeout is interrupted by any signal, such as another child's end (signal(7)).
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => return result,
        }
    }
}

pub(super) fn checked_length(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME_BYTES { Err(ErrorKind::FileTooLarge.into()) } else { Ok(length) }
}

fn receive_with_fds(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; MAX_FDS]);
    let mut buffers = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel installed these descriptors for this process in this very call; nobody else owns them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        send(&near, &Report::Started { pid: 7 }, &[ours.as_fd()]).unwrap();
        drop(ours);
        let (report, fds) = receive::<Report>(&far).unwrap();
        assert!(matches!(report, Report::Started { pid: 7 }));
        assert_eq!(fds.len(), 1);
        UnixStream::from(fds.into_iter().next().unwrap()).write_all(b"x").unwrap();
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "x");
    }

    #[test]
    fn a_message_larger_than_the_socket_buffer_arrives_whole() {
        let (near, far) = UnixStream::pair().unwrap();
        let failure = Failure { command: true, doing: "x".repeat(1 << 20), errno: 2 };
        let sent = failure.clone();
        let sender = std::thread::spawn(move || send(&near, &sent, &[]));
        assert_eq!(receive::<Failure>(&far).unwrap().0, failure);
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(receive::<Report>(&far).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_closed_socket_is_the_end() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(near);
        assert_eq!(receive::<Report>(&far).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
