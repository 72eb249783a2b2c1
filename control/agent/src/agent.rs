//! The daemon's handle to this host's agent.

use crate::attach::{AttachError, AttachOptions, AttachedInterface, DetachError, DetachTarget};
use crate::containers::Containers;
use crate::host::{HostError, TeardownError};
use ipnet::Ipv4Net;
use skep_dataplane::io::WorkerStats;
use skep_model::NodeId;
use skep_model::join::Credentials;
use skep_model::node::NodeDescription;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The agent's own directory; made if missing.
    pub state_dir: PathBuf,
    /// What tasks must not see besides: the daemon's state, the API socket's directory.
    pub hidden: Vec<PathBuf>,
}

/// What a node knows of itself once it is a member.
#[derive(Clone)]
pub struct Membership {
    pub credentials: Credentials,
    pub managers: Vec<SocketAddr>,
    /// Where this host's VTEP receives.
    pub data_path_addr: Ipv4Addr,
    pub data_path_port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    pub joined: bool,
    pub node_id: Option<NodeId>,
    pub connected_manager: Option<SocketAddr>,
    pub last_error: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("cannot clear what an earlier daemon left: {0}")]
    Leftovers(#[from] TeardownError),
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("this node is a member already")]
    AlreadyJoined,
}

/// Clones are handles to the same agent.
#[derive(Clone)]
pub struct Agent;

impl Agent {
    /// Clears what a killed daemon left. The host is no member yet.
    pub async fn new(config: AgentConfig) -> Result<Self, StartError> {
        drop(config);
        Ok(Self)
    }

    /// Takes up a membership: the VTEP's port, the egress bridge, a session with a manager. Returns when the
    /// first complete set of assignments is in place, or with the reason why that took too long; nothing is
    /// left in place then.
    pub async fn join(&self, membership: Membership) -> Result<(), JoinError> {
        drop(membership);
        Err(JoinError::AlreadyJoined)
    }

    /// Tells the manager, stops the tasks and takes everything down. No effect on a host that is no member.
    pub async fn leave(&self) {}

    /// As [`Self::leave`], without telling the manager: the daemon is going to be back.
    pub async fn shutdown(&self) {}

    pub fn status(&self) -> AgentStatus {
        AgentStatus::default()
    }

    /// What the node says of itself when it connects.
    pub fn description(&self) -> NodeDescription {
        NodeDescription::default()
    }

    /// This host's IPv4 addresses with their interfaces; loopback and Skep's own are left out.
    pub fn host_addresses(&self) -> Vec<(String, Ipv4Addr)> {
        Vec::new()
    }

    /// The egress bridge's gateway address with the subnet's prefix length, while this node is a member.
    pub fn gateway_bridge(&self) -> Option<Ipv4Net> {
        None
    }

    /// Counters of the packet thread, while this node is a member.
    pub async fn stats(&self) -> Option<WorkerStats> {
        None
    }

    pub async fn attach(&self, options: AttachOptions) -> Result<AttachedInterface, AttachError> {
        drop(options);
        Err(AttachError::NotAMember)
    }

    pub async fn detach(&self, target: DetachTarget) -> Result<(), DetachError> {
        Err(DetachError::Unknown(format!("{target:?}")))
    }

    /// What is attached on this node.
    pub fn attached(&self) -> Vec<AttachedInterface> {
        Vec::new()
    }

    pub fn containers(&self) -> Containers {
        Containers
    }
}
