//! The daemon's side of a start: the task's directory, a shim, its order, and the answer to it.

use super::leftovers::{self, LeftoversError};
use super::log::{self, LogError, ReadOptions};
use super::process::{self, Process, Streams};
use super::protocol::{self, Failure, Order, Report};
use serde::{Deserialize, Serialize};
use skep_model::session::LogLine;
use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
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
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What a task finds as PATH unless its own environment says otherwise: Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The task's own writable directory: where it starts, and its HOME.
pub(super) const WORKING_DIRECTORY: &str = "/run/task";

/// Where the executor keeps its files and what it keeps from tasks.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// One directory per task, with its log; made if missing. Always hidden from tasks.
    pub state_dir: PathBuf,
    /// Files and directories that tasks must not see. Prefer directories: a file that is replaced after a task
    /// has started is a new file to it.
    pub hidden: Vec<PathBuf>,
    /// The program whose `main` begins with [`super::run_if_shim`].
    pub shim: PathBuf,
}

impl ExecutorConfig {
    /// For a daemon that is its own shim.
    pub fn new(state_dir: PathBuf, hidden: Vec<PathBuf>) -> Self {
        Self { state_dir, hidden, shim: PathBuf::from("/proc/self/exe") }
    }
}

/// What to run.
#[derive(Debug)]
pub struct ProcessSpec {
    /// The task's id: lower-case letters and digits.
    pub id: String,
    /// The network namespace the task lives in.
    pub netns: OwnedFd,
    pub hostname: String,
    /// The command and its arguments; a command without a slash is looked up in PATH.
    pub args: Vec<String>,
    /// `NAME=value`, added to PATH, HOME and HOSTNAME.
    pub env: Vec<String>,
    /// The task's /etc/resolv.conf.
    pub resolv_conf: String,
    /// The task's /etc/hosts.
    pub hosts: String,
    pub io: ProcessIo,
}

/// Where the task's standard streams lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessIo {
    /// Output into the task's log, no input.
    Log,
    /// All three to the daemon ([`Process::take_streams`]), nothing into the log.
    Attached,
}

#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error("cannot make {path}, where tasks' logs are kept: {source}")]
    StateDir { path: PathBuf, source: io::Error },
}

/// Why a task did not start. Nothing of it is left, save its directory.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no such command: {0}")]
    NoSuchCommand(String),
    #[error("cannot execute {command}: {source}")]
    NotExecutable { command: String, source: io::Error },
    #[error("the task has no command: a task of image \"host\" needs one")]
    NoCommand,
    #[error("{0:?} is no task id: only letters and digits, 64 at most")]
    InvalidId(String),
    #[error("environment entry {0:?} is not NAME=value")]
    InvalidEnv(String),
    #[error("the command or an argument contains a NUL character")]
    InvalidArgument,
    #[error("task {0} runs already")]
    AlreadyRunning(String),
    #[error("this node runs {MAX_PROCESSES} tasks, the most it takes; run this one elsewhere")]
    TooMany,
    #[error("command and environment are too long; pass large data in a file")]
    TooLong,
    #[error("cannot prepare the task's directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot start the task's shim {path}: {source}")]
    Shim { path: PathBuf, source: io::Error },
    #[error("the task's shim ended before it started the task (the daemon's log may say why): {0}")]
    ShimLost(io::Error),
    #[error("the task did not start within {} s; a file system of this host may hang", START_TIMEOUT.as_secs())]
    Timeout,
    #[error("cannot set the task up: {doing}: {source}")]
    Setup { doing: String, source: io::Error },
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        match failure {
            Failure { command: false, doing, .. } => Self::Setup { doing, source },
            Failure { doing, errno: libc::ENOENT, .. } => Self::NoSuchCommand(doing),
            Failure { errno: libc::E2BIG, .. } => Self::TooLong,
            Failure { doing: command, .. } => Self::NotExecutable { command, source },
        }
    }
}

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

    /// Ends what is left of the tasks of a killed daemon and removes their directories, logs included. To be
    /// called before the first start; waits for the processes to be gone.
    pub fn clear_leftovers(&self) -> Result<(), LeftoversError> {
        leftovers::clear(&self.shared.config.state_dir)
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

/// Ids name directories, so nothing else may get through.
pub(super) fn valid_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn check(spec: &ProcessSpec) -> Result<(), StartError> {
    if !valid_id(&spec.id) {
        return Err(StartError::InvalidId(spec.id.clone()));
    }
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(StartError::NoCommand);
    }
    if spec.args.iter().any(|argument| argument.contains('\0')) {
        return Err(StartError::InvalidArgument);
    }
    match spec.env.iter().find(|entry| entry.contains('\0') || entry.find('=').unwrap_or(0) == 0) {
        Some(entry) => Err(StartError::InvalidEnv(entry.clone())),
        None => Ok(()),
    }
}

/// Blocks until the command runs or could not be run.
fn launch(config: &ExecutorConfig, spec: ProcessSpec) -> Result<Launched, StartError> {
    let directory = config.state_dir.join(&spec.id);
    write_files(&directory, &spec)
        .map_err(|source| StartError::Directory { path: directory.clone(), source })?;
    let (shim, socket) = spawn_shim(config, &spec.id)
        .map_err(|source| StartError::Shim { path: config.shim.clone(), source })?;
    let (streams, far_ends) = match spec.io {
        ProcessIo::Log => (None, Vec::new()),
        ProcessIo::Attached => pipes().map(|(near, far)| (Some(near), far)).map_err(StartError::ShimLost)?,
    };
    let order = order(config, &spec, directory.clone());
    let fds: Vec<BorrowedFd<'_>> = std::iter::once(&spec.netns).chain(&far_ends).map(AsFd::as_fd).collect();
    let (report, received) = exchange(&socket, &order, &fds)?;
    match (report, received.into_iter().next()) {
        (Report::Started { pid }, Some(pidfd)) => {
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

fn order(config: &ExecutorConfig, spec: &ProcessSpec, directory: PathBuf) -> Order {
    Order {
        id: spec.id.clone(),
        directory,
        hostname: spec.hostname.clone(),
        args: spec.args.clone(),
        env: environment(spec),
        hidden: hidden(config),
        io: spec.io,
    }
}

/// The task's own entries win over the defaults, as the last of a name does.
fn environment(spec: &ProcessSpec) -> Vec<String> {
    let defaults = [
        format!("PATH={DEFAULT_PATH}"),
        format!("HOME={WORKING_DIRECTORY}"),
        format!("HOSTNAME={}", spec.hostname),
    ];
    let mut env: Vec<String> = Vec::new();
    for entry in defaults.into_iter().chain(spec.env.iter().cloned()) {
        let name = entry.split_inclusive('=').next().unwrap_or_default().to_owned();
        env.retain(|other| !other.starts_with(&name));
        env.push(entry);
    }
    env
}

/// Each path as given and with its links followed: a link may lie where the task sees something else.
fn hidden(config: &ExecutorConfig) -> Vec<PathBuf> {
    let given = config.hidden.iter().chain(std::iter::once(&config.state_dir));
    let mut paths: Vec<PathBuf> =
        given.flat_map(|path| [Some(path.clone()), path.canonicalize().ok()]).flatten().collect();
    paths.sort();
    paths.dedup();
    paths
}

/// A fresh directory with the files that are put over those of the host's /etc.
fn write_files(directory: &Path, spec: &ProcessSpec) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => DirBuilder::new().mode(0o700).create(directory)?,
    }
    fs::write(directory.join("resolv.conf"), &spec.resolv_conf)?;
    fs::write(directory.join("hosts"), &spec.hosts)?;
    fs::write(directory.join("hostname"), format!("{}\n", spec.hostname))
}

/// The daemon's ends and the task's (input, output, errors) of three pipes.
fn pipes() -> io::Result<(Streams, Vec<OwnedFd>)> {
    let (stdin, task_in) = pipe::pipe()?;
    let (task_out, stdout) = pipe::pipe()?;
    let (task_err, stderr) = pipe::pipe()?;
    let far = vec![task_in.into_blocking_fd()?, task_out.into_blocking_fd()?, task_err.into_blocking_fd()?];
    Ok((Streams { stdin, stdout, stderr }, far))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(env: &[&str]) -> ProcessSpec {
        ProcessSpec {
            id: "t1".into(),
            netns: fs::File::open("/dev/null").unwrap().into(),
            hostname: "web-1".into(),
            args: vec!["true".into()],
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            resolv_conf: String::new(),
            hosts: String::new(),
            io: ProcessIo::Log,
        }
    }

    #[test]
    fn the_environment_is_the_defaults_and_the_tasks_own() {
        let env = environment(&spec(&["A=1", "PATH=/opt", "PATHS=x", "A=2"]));
        assert_eq!(env, ["HOME=/run/task", "HOSTNAME=web-1", "PATH=/opt", "PATHS=x", "A=2"]);
    }

    #[test]
    fn entries_without_a_name_or_a_value_are_refused() {
        for bad in ["A", "=x", "", "A=\0"] {
            assert!(matches!(check(&spec(&[bad])), Err(StartError::InvalidEnv(_))), "{bad:?}");
        }
        assert!(check(&spec(&["A="])).is_ok());
    }

    #[test]
    fn ids_that_are_no_directory_name_are_refused() {
        for bad in ["", ".", "..", "a/b", &"x".repeat(65)] {
            assert!(!valid_id(bad), "{bad:?}");
        }
        assert!(valid_id("2cb4kxg6q0v1fzptyqo8d5jsa"));
    }

    #[test]
    fn hidden_paths_are_given_with_their_links_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        let config = ExecutorConfig::new(root.join("state"), vec![root.join("link")]);
        assert_eq!(hidden(&config), [root.join("link"), root.join("real"), root.join("state")]);
    }

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
