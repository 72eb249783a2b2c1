//! Containers the user starts on this node (`skep run`, `docker run`): local processes whose places on
//! networks are asked from the manager.

mod life;
mod registry;
mod streams;

use crate::executor::LogError;
pub use crate::executor::{ReadOptions, TerminalSize};
pub(crate) use registry::LocalContainers;

use crate::agent::Shared;
use crate::completion::to_completion;
use bytes::Bytes;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use registry::{MAX_COMMAND_BYTES, MAX_CONTAINERS};
use skep_model::hostname;
use skep_model::service::DEFAULT_STOP_GRACE;
use skep_model::session::{LogLine, LogStream};
use skep_model::signal::Signal;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Containers are forgotten with their daemon, and so are their logs; tasks, whose ids are shorter, are the
/// manager's to forget.
pub(crate) fn is_container_id(id: &str) -> bool {
    id.len() == registry::ID_DIGITS
}

/// What to run.
#[derive(Clone, Debug)]
pub struct ContainerConfig {
    /// Also its name in DNS, on each of its networks. Empty: the first digits of its id, not in DNS.
    pub name: String,
    /// `host`: the only image there is.
    pub image: String,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    /// Empty: the first 12 digits of the id.
    pub hostname: String,
    pub networks: Vec<ContainerNetwork>,
    /// Where the command starts; empty: the container's own writable directory.
    pub dir: String,
    /// `USER[:GROUP]` by name or number; empty: root.
    pub user: String,
    /// A terminal instead of pipes, of this size to begin with.
    pub terminal: Option<TerminalSize>,
    /// What a stop begins with.
    pub stop_signal: Signal,
    /// From then to SIGKILL, unless who stops it says otherwise.
    pub stop_grace: Duration,
    /// Removed when it ends.
    pub auto_remove: bool,
}

impl Default for ContainerConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            image: String::new(),
            args: Vec::new(),
            env: Vec::new(),
            hostname: String::new(),
            networks: Vec::new(),
            dir: String::new(),
            user: String::new(),
            terminal: None,
            stop_signal: Signal::TERM,
            stop_grace: DEFAULT_STOP_GRACE,
            auto_remove: false,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ContainerNetwork {
    /// Name or id of an attachable network.
    pub network: String,
    /// A certain address of it, if free.
    pub addr: Option<Ipv4Addr>,
}

#[derive(Clone, Debug)]
pub struct ContainerInfo {
    /// 64 hexadecimal digits.
    pub id: String,
    pub name: String,
    pub config: ContainerConfig,
    pub created: Timestamp,
    pub state: ContainerState,
    /// While it runs: its networks by name, and its address on each.
    pub networks: Vec<(String, Ipv4Net)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Until its command runs.
    Created,
    Running {
        pid: i32,
        started: Timestamp,
    },
    Exited {
        /// 128 + signal if a signal ended it; Docker's 125, 126 or 127 if it did not start.
        code: i32,
        started: Option<Timestamp>,
        finished: Timestamp,
        error: String,
    },
}

/// The streams of a container. Attach before the start to miss nothing.
#[derive(Debug)]
pub struct ContainerStreams {
    /// Dropping it is the end of the container's input; a terminal hangs up.
    pub stdin: DuplexStream,
    /// Closed when the container has ended and all was given out. A reader that stops reading stops the
    /// container at its next output; one that drops this loses what comes.
    pub output: mpsc::Receiver<(LogStream, Bytes)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("this node is not part of a swarm: run `skep swarm init` or `skep swarm join` first")]
    NotAMember,
    /// Docker's words, as the next ones.
    #[error("No such container: {0}")]
    NotFound(String),
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken { name: String, id: String },
    #[error(
        "invalid container name '{0}': use letters, digits, '-', '_' and '.', a letter or digit first, 63 at most"
    )]
    InvalidName(String),
    #[error(
        "invalid hostname '{0}': use letters, digits, '-' and '.', {max} characters at most",
        max = hostname::MAX_BYTES
    )]
    InvalidHostname(String),
    #[error(
        "command and environment have no NUL bytes, and {MAX_COMMAND_BYTES} bytes at most: pass large data in a file"
    )]
    Command,
    #[error("{0}")]
    Image(String),
    #[error("the container has no command: the image `host` needs one")]
    NoCommand,
    #[error("this node has {MAX_CONTAINERS} containers, the most it takes: remove some")]
    TooMany,
    #[error("container {0} was started already: a container runs once, create another")]
    AlreadyStarted(String),
    #[error("container {0} is attached already, or has started: attach once, before the start")]
    AlreadyAttached(String),
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("container {0} has no terminal that somebody is attached to: run it with -it")]
    NoTerminal(String),
    #[error("container {0} has no log: it has not started, or its output went to whoever was attached to it")]
    NoLog(String),
    #[error(transparent)]
    Log(LogError),
    #[error("the terminal's size cannot be changed: {0}")]
    Resize(String),
    #[error(
        "You cannot remove a running container {0}. Stop the container before attempting removal or force remove"
    )]
    StillRuns(String),
    #[error("cannot start the container: {0}")]
    Start(String),
}

/// The containers of this node.
#[derive(Clone)]
pub struct Containers {
    shared: Arc<Shared>,
}

impl Containers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn local(&self) -> Result<LocalContainers, ContainerError> {
        let member = self.shared.member().ok_or(ContainerError::NotAMember)?;
        Ok(member.containers.clone())
    }

    /// Checks the config and remembers it. Nothing is taken on networks before the start.
    pub async fn create(&self, config: ContainerConfig) -> Result<String, ContainerError> {
        self.local()?.create(config)
    }

    /// `id` may be an id, its first digits or a name, here and below.
    pub async fn start(&self, id: &str) -> Result<(), ContainerError> {
        let local = self.local()?;
        let container = local.find(id)?;
        to_completion(async move { local.start(container).await }).await
    }

    /// Once per container, before its start; without it the container has no input and its output goes to
    /// its log.
    pub fn attach(&self, id: &str) -> Result<ContainerStreams, ContainerError> {
        self.local()?.find(id)?.attach()
    }

    /// Waits for the end of the container and returns its exit code; with `auto_remove` it is removed by then.
    pub async fn wait(&self, id: &str) -> Result<i32, ContainerError> {
        Ok(self.local()?.find(id)?.exit_code().await)
    }

    /// Sends a signal by number (`SIGKILL`: 9).
    pub fn kill(&self, id: &str, signal: i32) -> Result<(), ContainerError> {
        self.local()?.find(id)?.signal(signal)
    }

    /// Tells programs on the container's terminal its new size.
    pub fn resize(&self, id: &str, size: TerminalSize) -> Result<(), ContainerError> {
        self.local()?.find(id)?.resize(size)
    }

    /// What a container that nobody is attached to has written. To be called within a tokio runtime.
    pub fn logs(&self, id: &str, options: ReadOptions) -> Result<mpsc::Receiver<LogLine>, ContainerError> {
        let local = self.local()?;
        let id = local.find(id)?.id.clone();
        local.executor.logs(&id, options).map_err(|error| match error {
            LogError::NoLog(_) => ContainerError::NoLog(id),
            error => ContainerError::Log(error),
        })
    }

    /// Its stop signal, and SIGKILL after `grace` (None: its own). Returns when it has ended.
    pub async fn stop(&self, id: &str, grace: Option<Duration>) -> Result<(), ContainerError> {
        let container = self.local()?.find(id)?;
        to_completion(async move { container.stop(grace).await }).await;
        Ok(())
    }

    /// Forgets a container that doesn't run; `force` kills it first.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), ContainerError> {
        let local = self.local()?;
        let container = local.find(id)?;
        to_completion(async move { local.remove(&container, force).await }).await
    }

    /// The newest first.
    pub fn list(&self) -> Vec<ContainerInfo> {
        self.local().map(|local| local.list()).unwrap_or_default()
    }

    pub fn inspect(&self, id: &str) -> Result<ContainerInfo, ContainerError> {
        Ok(self.local()?.find(id)?.info())
    }
}
