//! The daemon's side of a start: the task's directory, a shim, its order, and the answer to it.

use super::leftovers::{self, LeftoversError};
use super::log::{self, LogError, ReadOptions};
use super::process::{self, Process, Streams};
use super::protocol::{self, Order, Report};
use super::spec::{
    ExecutorConfig, ExecutorError, ProcessIo, ProcessSpec, StartError, check, order, valid_id,
};
use skep_model::session::LogLine;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, mpsc};

/// Tasks of one node at a time: at four descriptors each they fit the usual hard limit of 4,096 open files.
pub const MAX_PROCESSES: usize = 900;
/// Starts under way at a time; others wait. More would only compete for the same few processors.
const MAX_STARTS: usize = 8;
/// A start is a few dozen system calls; a host that needs longer than this for them hangs (a dead NFS mount).
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs tasks as processes of this host. Clones share their tasks.
#[derive(Clone, Debug)]
pub struct ProcessExecutor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ExecutorConfig,
    running: Mutex<HashSet<String>>,
    starts: Semaphore,
}

impl ProcessExecutor {
    pub fn new(mut config: ExecutorConfig) -> Result<Self, ExecutorError> {
        let failed = |source| ExecutorError::StateDir { path: config.state_dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir).map_err(failed)?;
        config.state_dir = config.state_dir.canonicalize().map_err(failed)?;
        let (running, starts) = (Mutex::default(), Semaphore::new(MAX_STARTS));
        Ok(Self { shared: Arc::new(Shared { config, running, starts }) })
    }

    /// Ends what is left of the tasks of a killed daemon and removes their directories, save for the logs of tasks
    /// whose id `keep` takes. To be called before the first start. Blocks until the processes are gone.
    pub fn clear_leftovers(&self, keep: impl Fn(&str) -> bool) -> Result<(), LeftoversError> {
        leftovers::clear(&self.shared.config.state_dir, keep)
    }

    /// The tasks that have ended and of which a log is kept, in the order of their ends.
    pub fn ended(&self) -> io::Result<Vec<String>> {
        leftovers::ended(&self.shared.config.state_dir)
    }

    /// Returns when the command has been executed, or with the reason why it could not.
    pub async fn start(&self, spec: ProcessSpec) -> Result<Process, StartError> {
        check(&spec)?;
        let slot = Slot::claim(&self.shared, &spec.id)?;
        let _permit = self.shared.starts.acquire().await.expect("the semaphore is never closed");
        let config = self.shared.config.clone();
        let launched = tokio::task::spawn_blocking(move || launch(&config, spec)).await;
        let launched = launched.map_err(|panic| StartError::ShimLost(io::Error::other(panic)))??;
        process::supervise(launched, slot).map_err(StartError::ShimLost)
    }

    /// The lines of a task's log, oldest first. The channel closes at the end of the log or, when following, of
    /// the task; dropping the receiver ends the reading.
    pub fn logs(&self, id: &str, options: ReadOptions) -> Result<mpsc::Receiver<LogLine>, LogError> {
        log::read(&self.shared.config.state_dir, id, options)
    }

    /// Removes what is kept of a task that has ended: its directory with its log.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        if !valid_id(id) || self.shared.running().contains(id) {
            return Err(io::Error::other(format!("task {id} still runs, or is none")));
        }
        match fs::remove_dir_all(self.shared.config.state_dir.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place among the running ones; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    id: String,
}

impl Slot {
    fn claim(shared: &Arc<Shared>, id: &str) -> Result<Self, StartError> {
        let mut running = shared.running();
        if running.contains(id) {
            return Err(StartError::AlreadyRunning(id.to_owned()));
        }
        if running.len() == MAX_PROCESSES {
            return Err(StartError::TooMany);
        }
        running.insert(id.to_owned());
        Ok(Self { shared: Arc::clone(shared), id: id.to_owned() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.running().remove(&self.id);
    }
}

/// A task whose command runs.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) shim: tokio::process::Child,
    pub(super) socket: UnixStream,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) streams: Option<Streams>,
    pub(super) directory: PathBuf,
}

/// Blocks until the command runs or could not be run.
fn launch(config: &ExecutorConfig, spec: ProcessSpec) -> Result<Launched, StartError> {
    let directory = config.state_dir.join(&spec.id);
    write_files(&directory, &spec)
        .map_err(|source| StartError::Directory { path: directory.clone(), source })?;
    let (shim, socket) = spawn_shim(config, &spec.id)
        .map_err(|source| StartError::Shim { path: config.shim.clone(), source })?;
    let (pipes, far_ends) = match (spec.io, spec.terminal) {
        (ProcessIo::Attached, None) => {
            pipes().map(|(near, far)| (Some(near), far)).map_err(StartError::ShimLost)?
        }
        (ProcessIo::Attached, Some(_)) | (ProcessIo::Log, _) => (None, Vec::new()),
    };
    let order = order(config, &spec, directory.clone());
    let fds: Vec<BorrowedFd<'_>> = std::iter::once(&spec.netns).chain(&far_ends).map(AsFd::as_fd).collect();
    let (report, received) = exchange(&socket, &order, &fds)?;
    let mut received = received.into_iter();
    match (report, received.next()) {
        (Report::Started { pid }, Some(pidfd)) => {
            let terminal = received.next().map(Streams::of_terminal).transpose();
            let streams = pipes.or(terminal.map_err(StartError::ShimLost)?);
            Ok(Launched { shim, socket, pid, pidfd, streams, directory })
        }
        (Report::Failed(failure), _) => Err(failure.into()),
        (other, _) => Err(StartError::ShimLost(io::Error::other(format!("unexpected report {other:?}")))),
    }
}

/// The order out, the first report in, neither waited for longer than [`START_TIMEOUT`].
fn exchange(
    socket: &UnixStream,
    order: &Order,
    fds: &[BorrowedFd<'_>],
) -> Result<(Report, Vec<OwnedFd>), StartError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => StartError::Timeout,
        io::ErrorKind::FileTooLarge => StartError::TooLong,
        _ => StartError::ShimLost(error),
    };
    socket.set_write_timeout(Some(START_TIMEOUT)).map_err(failed)?;
    socket.set_read_timeout(Some(START_TIMEOUT)).map_err(failed)?;
    protocol::send(socket, order, fds).map_err(failed)?;
    protocol::receive(socket).map_err(failed)
}

/// The shim's standard input is its end of the control socket: no descriptor has to survive the exec otherwise.
fn spawn_shim(config: &ExecutorConfig, id: &str) -> io::Result<(tokio::process::Child, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    let shim = tokio::process::Command::new(&config.shim)
        .arg0(protocol::SHIM)
        .arg(id)
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(far))
        .stdout(Stdio::null())
        .spawn()?;
    Ok((shim, near))
}

/// The task's directory with the files that are put over those of the host's /etc.
fn write_files(directory: &Path, spec: &ProcessSpec) -> io::Result<()> {
    leftovers::make_directory(directory)?;
    let hostname = format!("{}\n", spec.hostname);
    let files = [("resolv.conf", &spec.resolv_conf), ("hosts", &spec.hosts), ("hostname", &hostname)];
    files.into_iter().try_for_each(|(name, text)| {
        let path = directory.join(name);
        fs::write(&path, text)?;
        // Whatever the daemon's umask: a task that has changed its user looks names up, too.
        fs::set_permissions(path, Permissions::from_mode(0o644))
    })
}

/// The daemon's ends and the task's (input, output, errors) of three pipes.
fn pipes() -> io::Result<(Streams, Vec<OwnedFd>)> {
    let (stdin, task_in) = pipe::pipe()?;
    let (task_out, stdout) = pipe::pipe()?;
    let (task_err, stderr) = pipe::pipe()?;
    let far = vec![task_in.into_blocking_fd()?, task_out.into_blocking_fd()?, task_err.into_blocking_fd()?];
    Ok((Streams { stdin, stdout, stderr: Some(stderr), terminal: None }, far))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_runs_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let executor = ProcessExecutor::new(ExecutorConfig::new(dir.path().into(), vec![])).unwrap();
        let slot = Slot::claim(&executor.shared, "t1").unwrap();
        assert!(matches!(Slot::claim(&executor.shared, "t1"), Err(StartError::AlreadyRunning(_))));
        assert!(executor.remove("t1").is_err());
        drop(slot);
        Slot::claim(&executor.shared, "t1").unwrap();
    }
}
