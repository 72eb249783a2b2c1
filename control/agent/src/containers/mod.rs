//! Containers the user starts on this node (`skep run`, `docker run`): local processes whose places on
//! networks are asked from the manager.

use bytes::Bytes;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use skep_model::session::LogStream;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// What to run.
#[derive(Clone, Debug, Default)]
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
    pub tty: bool,
    /// Removed when it ends.
    pub auto_remove: bool,
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
    /// Name of the network as asked for, and the address on it.
    pub networks: Vec<(String, Ipv4Net)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    Created,
    Running { pid: i32, started: Timestamp },
    Exited { code: i32, started: Option<Timestamp>, finished: Timestamp, error: String },
}

/// The streams of a container. Attach before the start to miss nothing.
#[derive(Debug)]
pub struct ContainerStreams {
    /// Dropping it is the end of the container's input.
    pub stdin: DuplexStream,
    /// In the order it was read; closed when the container has ended and all was given out.
    pub output: mpsc::Receiver<(LogStream, Bytes)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("this node is not part of a swarm: run `skep swarm init` or `skep swarm join` first")]
    NotAMember,
    #[error("No such container: {0}")]
    NotFound(String),
}

/// The containers of this node.
#[derive(Clone)]
pub struct Containers;

impl Containers {
    /// Checks the config and remembers it. Nothing is taken on networks before the start.
    pub async fn create(&self, config: ContainerConfig) -> Result<String, ContainerError> {
        drop(config);
        Err(ContainerError::NotAMember)
    }

    /// `id` may be an id, its first digits or a name, here and below.
    pub async fn start(&self, id: &str) -> Result<(), ContainerError> {
        Err(ContainerError::NotFound(id.to_owned()))
    }

    /// Once per container, before its start; without it the output goes to the container's log.
    pub fn attach(&self, id: &str) -> Result<ContainerStreams, ContainerError> {
        Err(ContainerError::NotFound(id.to_owned()))
    }

    /// Waits for the end of the container and returns its exit code; with `auto_remove` it is removed by then.
    pub async fn wait(&self, id: &str) -> Result<i32, ContainerError> {
        Err(ContainerError::NotFound(id.to_owned()))
    }

    /// Sends a signal by number (`SIGKILL`: 9).
    pub fn kill(&self, id: &str, signal: i32) -> Result<(), ContainerError> {
        let _ = signal;
        Err(ContainerError::NotFound(id.to_owned()))
    }

    /// SIGTERM, and SIGKILL after `grace`. Returns when it has ended.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), ContainerError> {
        let _ = grace;
        Err(ContainerError::NotFound(id.to_owned()))
    }

    /// Forgets a container that doesn't run; `force` kills it first.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), ContainerError> {
        let _ = force;
        Err(ContainerError::NotFound(id.to_owned()))
    }

    /// The newest first.
    pub fn list(&self) -> Vec<ContainerInfo> {
        Vec::new()
    }

    pub fn inspect(&self, id: &str) -> Result<ContainerInfo, ContainerError> {
        Err(ContainerError::NotFound(id.to_owned()))
    }
}
