//! The shim: parent of one task's pid 1, owner of its output and exit status. A process of its own, with one
//! thread, so that a task needs nothing of the daemon while it runs.

use super::leftovers::Processes;
use super::log::EXIT_FILE;
use super::output::Output;
use super::protocol::{self, Failure, INIT, Order, Report};
use super::spec::ProcessIo;
use super::sys;
use super::terminal;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pipe2;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

/// What a task's first stage writes to its status pipe right before it becomes the command. Nothing after it
/// means that the command runs; a [`Failure`] with or without it that it doesn't.
pub(super) const EXECUTING: u8 = b'E';

pub(super) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "{}: {error} (only skepd starts this)", protocol::SHIM);
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    sys::close_from(3)?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stand_apart()?;
    let (order, fds) = protocol::receive::<Order>(&socket)?;
    match Task::start(&order, fds, &socket) {
        Ok(mut task) => {
            let terminal = task.terminal.take();
            let fds: Vec<_> = [Some(task.pidfd.as_fd()), terminal.as_ref().map(AsFd::as_fd)]
                .into_iter()
                .flatten()
                .collect();
            protocol::send(&socket, &Report::Started { pid: task.pid }, &fds)?;
            drop(terminal);
            let (code, signal) = task.attend(&socket)?;
            // A disk that is full must not turn an exit into a lost shim.
            let recorded = record_exit(&order.directory, code, signal);
            send_if_heard(&socket, &Report::Exited { code, signal })?;
            recorded
        }
        Err(failure) => send_if_heard(&socket, &Report::Failed(failure)),
    }
}

/// Neither Ctrl-C at the daemon's terminal nor a service manager that signals the daemon's whole group may reach
/// the task past the daemon, which stops its tasks in its own order.
fn stand_apart() -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::sys::prctl::set_name(c"skep-shim")?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        sys::ignore_signal(signal);
    }
    Ok(())
}

/// To a daemon that may be gone.
fn send_if_heard(socket: &UnixStream, report: &Report) -> io::Result<()> {
    match protocol::send(socket, report, &[]) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Says to readers of the log that it is complete. The file's presence does, so a full disk is no obstacle.
pub(super) fn record_exit(directory: &Path, code: i32, signal: Option<i32>) -> io::Result<()> {
    let text = serde_json::json!({ "code": code, "signal": signal });
    match fs::write(directory.join(EXIT_FILE), text.to_string()) {
        // Removed with its log: nobody reads it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

struct Task {
    pid: i32,
    pidfd: OwnedFd,
    child: Child,
    output: Option<Output>,
    /// The master of an attached task's terminal, for the daemon.
    terminal: Option<OwnedFd>,
}

impl Task {
    fn start(order: &Order, fds: Vec<OwnedFd>, socket: &UnixStream) -> Result<Self, Failure> {
        let mut fds = fds.into_iter();
        let netns = fds.next().ok_or_else(|| Failure::setup("take the network namespace", &bad_order()))?;
        let (stdio, output) = streams(order, fds).map_err(|error| Failure::setup("make pipes", &error))?;
        let (order_read, order_write) = pipe().map_err(|error| Failure::setup("make a pipe", &error))?;
        let (status_read, status_write) = pipe().map_err(|error| Failure::setup("make a pipe", &error))?;
        let mut inherited = vec![order_read, netns, status_write];
        let masters = match order.terminal {
            Some(_) => {
                let (near, far) =
                    UnixStream::pair().map_err(|error| Failure::setup("make a socket", &error))?;
                inherited.push(far.into());
                Some(near)
            }
            None => None,
        };
        let child = spawn_init(stdio, inherited)
            .map_err(|error| Failure::setup("start the first process of the task", &error))?;
        let mut task = Self::adopt(child, output)?;
        let started = task.hand_over(order, order_write, status_read, socket);
        match started.and_then(|()| task.take_terminal(order, masters)) {
            Ok(()) => Ok(task),
            Err(failure) => {
                task.end();
                Err(failure)
            }
        }
    }

    fn adopt(mut child: Child, output: Option<Output>) -> Result<Self, Failure> {
        let pid = child.id().cast_signed();
        match sys::pidfd_open(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd, child, output, terminal: None }),
            Err(error) => {
                let _ended = child.kill().and_then(|()| child.wait());
                Err(Failure::setup("open a pidfd", &error))
            }
        }
    }

    /// Gives the first stage its order and waits until it has become the command.
    fn hand_over(
        &self,
        order: &Order,
        order_write: OwnedFd,
        status: OwnedFd,
        socket: &UnixStream,
    ) -> Result<(), Failure> {
        // Before the order: what a later daemon may have to end is on record before it runs.
        Processes::record(&order.directory, self.pid)
            .map_err(|error| Failure::setup("record the task's processes", &error))?;
        let body =
            serde_json::to_vec(order).map_err(|error| Failure::setup("pass the order on", &error.into()))?;
        // A first stage that has failed already reads nothing; its status says why.
        let _unread = File::from(order_write).write_all(&body);
        read_status(File::from(status), socket)
    }

    /// The first stage has sent it before it became the command.
    fn take_terminal(&mut self, order: &Order, masters: Option<UnixStream>) -> Result<(), Failure> {
        let Some(masters) = masters else { return Ok(()) };
        let failed = |error: io::Error| Failure::setup("take the task's terminal", &error);
        let master = terminal::receive(&masters).map_err(failed)?;
        match order.io {
            ProcessIo::Attached => self.terminal = Some(master),
            ProcessIo::Log => {
                let output = Output::of_terminal(order.directory.clone(), master);
                self.output = Some(output.map_err(failed)?);
            }
        }
        Ok(())
    }

    /// Until the task has ended: its output into the log, its end if the daemon goes. Returns code and signal.
    fn attend(&mut self, socket: &UnixStream) -> io::Result<(i32, Option<i32>)> {
        let mut daemon = Some(socket);
        loop {
            let ready = self.wait_for_event(daemon)?;
            if ready.daemon {
                daemon = None;
                self.daemon_gone()?;
            }
            if let Some(output) = &mut self.output {
                output.drain(ready.ended);
            }
            if ready.ended {
                return self.child.wait().map(exit_status);
            }
        }
    }

    /// POLICY: a task ends when its daemon does. A shim that is to outlive its daemon listens for the next one
    /// here.
    fn daemon_gone(&self) -> io::Result<()> {
        sys::kill(&self.pidfd)
    }

    fn wait_for_event(&self, daemon: Option<&UnixStream>) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(daemon.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        let pipes = self.output.iter().flat_map(Output::open_pipes);
        fds.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        poll_all(&mut fds)?;
        let daemon = daemon.is_some() && fds[1].any().unwrap_or(true);
        Ok(Ready { ended: fds[0].any().unwrap_or(true), daemon })
    }

    fn end(&mut self) {
        let _gone_already = sys::kill(&self.pidfd);
        let _reaped = self.child.wait();
    }
}

struct Ready {
    ended: bool,
    /// The daemon says nothing after its order: an event on its socket is its end.
    daemon: bool,
}

fn bad_order() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADMSG)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

fn poll_all(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    loop {
        match poll(fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => return Ok(result.map(drop)?),
        }
    }
}

fn exit_status(status: ExitStatus) -> (i32, Option<i32>) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (code, None),
        (None, signal) => (128 + signal.unwrap_or(libc::SIGKILL), signal),
    }
}

/// The three streams for the task, and the near ends of those that go into its log.
fn streams(
    order: &Order,
    mut attached: impl Iterator<Item = OwnedFd>,
) -> io::Result<([Stdio; 3], Option<Output>)> {
    if order.terminal.is_some() {
        return Ok(([Stdio::null(), Stdio::null(), Stdio::null()], None));
    }
    if order.io == ProcessIo::Attached {
        let mut next = || attached.next().map(Stdio::from).ok_or_else(bad_order);
        return Ok(([next()?, next()?, next()?], None));
    }
    let ((stdout, task_out), (stderr, task_err)) = (pipe()?, pipe()?);
    let output = Output::new(order.directory.clone(), stdout, stderr)?;
    Ok(([Stdio::null(), task_out.into(), task_err.into()], Some(output)))
}

/// Starts the first stage as pid 1 of a new pid namespace; `fds` are its arguments, by number.
///
/// It runs from a read-only view of this executable's file, since a task whose command is `/proc/self/exe` gets
/// hold of that file through the mount it was executed from (CVE-2019-5736).
fn spawn_init(stdio: [Stdio; 3], fds: Vec<OwnedFd>) -> io::Result<Child> {
    let executable = sys::open_tree(c"/proc/self/exe")?;
    sys::restrict_detached(&executable, libc::MOUNT_ATTR_RDONLY)?;
    for fd in &fds {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    unshare(CloneFlags::CLONE_NEWPID)?;
    let [stdin, stdout, stderr] = stdio;
    Command::new(format!("/proc/self/fd/{}", executable.as_raw_fd()))
        .arg0(INIT)
        .args(fds.iter().map(|fd| fd.as_raw_fd().to_string()))
        .env_clear()
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
}

fn read_status(mut status: File, socket: &UnixStream) -> Result<(), Failure> {
    const DOING: &str = "wait for the command's start";
    let failed = |error: io::Error| Failure::setup(DOING, &error);
    let mut fds = [&status.as_fd(), &socket.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
    poll_all(&mut fds).map_err(failed)?;
    if !fds[0].any().unwrap_or(true) {
        return Err(Failure {
            command: false,
            doing: "follow a daemon that ended".into(),
            errno: libc::EPIPE,
        });
    }
    let mut text = Vec::new();
    status.read_to_end(&mut text).map_err(failed)?;
    match text.as_slice() {
        [EXECUTING] => Ok(()),
        [] => Err(Failure { command: false, doing: DOING.into(), errno: libc::ECHILD }),
        [EXECUTING, failure @ ..] | failure => {
            Err(serde_json::from_slice(failure).unwrap_or_else(|error| failed(error.into())))
        }
    }
}
