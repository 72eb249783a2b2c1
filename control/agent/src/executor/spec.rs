//! What to run, with what around it, and what may be wrong with it.

use super::protocol::{Failure, Order};
use super::start::{MAX_PROCESSES, START_TIMEOUT};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

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
    /// Where the command starts, as the task sees it; empty: its own writable directory, which is also its HOME.
    pub dir: String,
    /// `USER[:GROUP]` by name (of the host's /etc/passwd and /etc/group) or number; empty: root.
    pub user: String,
    pub io: ProcessIo,
    /// A terminal for all three streams, of this size to begin with.
    pub terminal: Option<TerminalSize>,
}

/// In characters; zero where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// Where the task's standard streams lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessIo {
    /// Output into the task's log, no input.
    Log,
    /// All three to the daemon ([`super::Process::take_streams`]), nothing into the log.
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
    #[error("environment entry {0:?} has no name, or a NUL byte: write NAME=value")]
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

/// Ids name directories, so nothing else may get through.
pub(super) fn valid_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(super) fn check(spec: &ProcessSpec) -> Result<(), StartError> {
    if !valid_id(&spec.id) {
        return Err(StartError::InvalidId(spec.id.clone()));
    }
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(StartError::NoCommand);
    }
    if spec.args.iter().any(|argument| argument.contains('\0')) {
        return Err(StartError::InvalidArgument);
    }
    match spec.env.iter().find(|entry| entry.contains('\0') || entry.is_empty() || entry.starts_with('=')) {
        Some(entry) => Err(StartError::InvalidEnv(entry.clone())),
        None => Ok(()),
    }
}

/// What the shim is told; the rest of `spec` it gets as descriptors and files.
pub(super) fn order(config: &ExecutorConfig, spec: &ProcessSpec, directory: PathBuf) -> Order {
    Order {
        id: spec.id.clone(),
        directory,
        hostname: spec.hostname.clone(),
        args: spec.args.clone(),
        env: environment(spec),
        hidden: hidden(config),
        dir: if spec.dir.is_empty() { WORKING_DIRECTORY.into() } else { spec.dir.clone().into() },
        user: spec.user.clone(),
        io: spec.io,
        terminal: spec.terminal,
    }
}

/// The task's own entries win over the defaults, as the last of a name does. A name alone takes the variable away:
/// clients send that for `--env NAME` where their shell has none.
fn environment(spec: &ProcessSpec) -> Vec<String> {
    let defaults = [
        format!("PATH={DEFAULT_PATH}"),
        format!("HOME={WORKING_DIRECTORY}"),
        format!("HOSTNAME={}", spec.hostname),
    ];
    // Docker's, too: what every terminal understands.
    let term = spec.terminal.map(|_| "TERM=xterm".to_owned());
    let mut env: Vec<String> = Vec::new();
    for entry in defaults.into_iter().chain(term).chain(spec.env.iter().cloned()) {
        let name = name_of(&entry).to_owned();
        env.retain(|other| name_of(other) != name);
        if entry.contains('=') {
            env.push(entry);
        }
    }
    env
}

fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn spec(env: &[&str]) -> ProcessSpec {
        ProcessSpec {
            id: "t1".into(),
            netns: fs::File::open("/dev/null").unwrap().into(),
            hostname: "web-1".into(),
            args: vec!["true".into()],
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            resolv_conf: String::new(),
            hosts: String::new(),
            dir: String::new(),
            user: String::new(),
            io: ProcessIo::Log,
            terminal: None,
        }
    }

    #[test]
    fn the_environment_is_the_defaults_and_the_tasks_own() {
        let env = environment(&spec(&["A=1", "PATH=/opt", "PATHS=x", "A=2"]));
        assert_eq!(env, ["HOME=/run/task", "HOSTNAME=web-1", "PATH=/opt", "PATHS=x", "A=2"]);
        let env = environment(&spec(&["A=1", "B=2", "A", "HOME", "NONE"]));
        assert_eq!(env, [&format!("PATH={DEFAULT_PATH}"), "HOSTNAME=web-1", "B=2"]);
        let on_terminal = ProcessSpec { terminal: Some(TerminalSize::default()), ..spec(&[]) };
        assert_eq!(environment(&on_terminal).last().unwrap(), "TERM=xterm");
    }

    #[test]
    fn entries_without_a_name_are_refused() {
        for bad in ["=x", "", "A=\0"] {
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
}
