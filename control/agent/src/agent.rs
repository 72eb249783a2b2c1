//! The daemon's handle to this host's agent.

use crate::attach::{AttachError, AttachOptions, AttachedInterface, DetachError, DetachTarget};
use crate::completion::{on_a_thread, to_completion};
use crate::containers::{Containers, is_container_id};
use crate::executor::{ExecutorConfig, ExecutorError, LeftoversError, ProcessExecutor};
use crate::explain::explain;
use crate::host::{FactsError, GWBRIDGE, GwbridgeError, Host, HostConfig, HostError, SKEP0, VETH_PREFIX};
use crate::key::{self, KeyError};
use crate::member::{Member, Surroundings};
use crate::paths::{self, PeerPath};
use crate::renewal::KeepCredentials;
use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::sys::sysinfo::sysinfo;
use nix::sys::utsname::uname;
use skep_dataplane::io::WorkerStats;
use skep_model::NodeId;
use skep_model::data_path::{DataCipher, DataPathKey};
use skep_model::join::Credentials;
use skep_model::node::{Engine, NodeDescription, Platform, Resources};
use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

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
    /// Called with every renewed certificate before it is used.
    pub keep: KeepCredentials,
    pub managers: Vec<SocketAddr>,
    /// Where this host's VTEP receives.
    pub data_path_addr: Ipv4Addr,
    pub data_path_port: u16,
    /// The cluster's.
    pub data_cipher: DataCipher,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    pub joined: bool,
    pub node_id: Option<NodeId>,
    pub connected_manager: Option<SocketAddr>,
    /// What keeps this node from doing all it should; None when nothing does.
    pub last_error: Option<String>,
    /// What of this host keeps parts of the network from working, one sentence each with what to do.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot make the agent's directory {path}: {source}")]
    StateDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error(transparent)]
    Leftovers(#[from] LeftoversError),
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("this node is a member already")]
    AlreadyJoined,
    #[error("{}", explain(.0))]
    Host(#[from] HostError),
    #[error("{}", explain(.0))]
    Facts(#[from] FactsError),
    #[error(
        "the data path address {addr} is not an address of this host (it has {have}): choose one with --data-path-addr"
    )]
    DataPathAddr { addr: Ipv4Addr, have: String },
    #[error(transparent)]
    DataPath(#[from] skep_dataplane::io::StartError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{}", explain(.0))]
    Gwbridge(#[from] GwbridgeError),
    #[error("the containers' resolver cannot start its thread: {0}")]
    Resolver(io::Error),
    #[error("this node got no assignments from a manager in time: {reason}")]
    NoAssignments { reason: String },
}

/// Clones are handles to the same agent.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    config: AgentConfig,
    executor: ProcessExecutor,
    /// One change of membership at a time.
    changing: tokio::sync::Mutex<()>,
    member: Mutex<Option<Arc<Member>>>,
}

impl Shared {
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_member(&self, member: Option<Arc<Member>>) -> Option<Arc<Member>> {
        std::mem::replace(&mut *self.member.lock().unwrap_or_else(PoisonError::into_inner), member)
    }
}

impl Agent {
    /// Clears what a killed daemon left. The host is no member yet.
    pub async fn new(config: AgentConfig) -> Result<Self, StartError> {
        let directory = DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir);
        directory.map_err(|source| StartError::StateDir { path: config.state_dir.clone(), source })?;
        let hidden = config.hidden.iter().chain([&config.state_dir]).cloned().collect();
        let executor = ProcessExecutor::new(ExecutorConfig::new(config.state_dir.join("tasks"), hidden))?;
        // Processes first: a namespace ends with the last of its own.
        let clearing = executor.clone();
        on_a_thread(move || clearing.clear_leftovers(|id| !is_container_id(id))).await?;
        let sysctl_record = Some(config.state_dir.join("sysctls"));
        let host = Host::open(HostConfig { sysctl_record, ..HostConfig::default() }).await?;
        if let Err(error) = host.clear_leftovers().await {
            // What is in the way of a membership fails there, with its own reason.
            tracing::warn!("not all an earlier daemon left could be cleared: {}", explain(&error));
        }
        let (changing, member) = Default::default();
        Ok(Self { shared: Arc::new(Shared { config, executor, changing, member }) })
    }

    /// A new data-path key, for a membership that is about to begin; a membership needs the one it began with.
    pub async fn make_key(&self) -> Result<DataPathKey, KeyError> {
        let directory = self.shared.config.state_dir.clone();
        on_a_thread(move || key::make(&directory)).await
    }

    /// Takes up a membership: the VTEP's port, the egress bridge, a session with a manager. Returns when the
    /// first complete set of assignments is in place, or with the reason why that took too long; nothing is
    /// left in place then.
    pub async fn join(&self, membership: Membership) -> Result<(), JoinError> {
        let this = self.clone();
        to_completion(async move { this.start_member(membership).await }).await
    }

    async fn start_member(&self, membership: Membership) -> Result<(), JoinError> {
        let _changing = self.shared.changing.lock().await;
        if self.shared.member().is_some() {
            return Err(JoinError::AlreadyJoined);
        }
        let around = Surroundings {
            state_dir: &self.shared.config.state_dir,
            executor: &self.shared.executor,
            description: self.description(),
        };
        let member = Member::start(membership, around).await?;
        self.shared.set_member(Some(Arc::new(member)));
        Ok(())
    }

    /// Tells the manager, stops the tasks and takes everything down. A host that is no member has no data-path key
    /// afterwards either.
    pub async fn leave(&self) {
        let shared = self.shared.clone();
        let leave = async move {
            let _changing = shared.changing.lock().await;
            if let Some(member) = shared.set_member(None) {
                member.leave().await;
            }
            let directory = shared.config.state_dir.clone();
            if let Err(error) = on_a_thread(move || key::erase(&directory)).await {
                tracing::warn!("this node's data-path key could not be removed from disk: {error}");
            }
        };
        to_completion(leave).await;
    }

    /// As [`Self::leave`], without telling the manager: the daemon is going to be back.
    pub async fn shutdown(&self) {
        let shared = self.shared.clone();
        let shut_down = async move {
            let _changing = shared.changing.lock().await;
            if let Some(member) = shared.set_member(None) {
                member.shut_down().await;
            }
        };
        to_completion(shut_down).await;
    }

    pub fn status(&self) -> AgentStatus {
        let Some(member) = self.shared.member() else { return AgentStatus::default() };
        AgentStatus {
            joined: true,
            node_id: Some(member.node_id.clone()),
            connected_manager: member.link.state.borrow().connected,
            last_error: member.last_error(),
            warnings: member.kernel.host.obstacles(),
        }
    }

    /// What the node says of itself when it connects.
    pub fn description(&self) -> NodeDescription {
        let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let machine = uname().map(|system| system.machine().to_string_lossy().into_owned());
        let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get() as i64);
        let memory = sysinfo().map_or(0, |system| system.ram_total());
        NodeDescription {
            hostname: hostname.unwrap_or_default(),
            platform: Platform { architecture: machine.unwrap_or_default(), os: "linux".to_owned() },
            resources: Resources {
                nano_cpus: cpus * 1_000_000_000,
                memory_bytes: i64::try_from(memory).unwrap_or(i64::MAX),
            },
            engine: Engine { engine_version: env!("CARGO_PKG_VERSION").to_owned() },
        }
    }

    /// This host's IPv4 addresses with their interfaces; loopback and Skep's own are left out.
    pub fn host_addresses(&self) -> Vec<(String, Ipv4Addr)> {
        // Without the list every address is "not of this host", which is what the caller then says.
        let interfaces = getifaddrs().into_iter().flatten();
        interfaces
            .filter(|interface| !is_own(&interface.interface_name))
            .filter_map(|interface| {
                let addr = interface.address?.as_sockaddr_in()?.ip();
                (!addr.is_loopback()).then_some((interface.interface_name, addr))
            })
            .collect()
    }

    /// The egress bridge's subnet, while this node is a member.
    pub fn gateway_bridge(&self) -> Option<Ipv4Net> {
        self.shared.member().map(|member| member.gwbridge)
    }

    /// Counters of the packet thread, while this node is a member.
    pub async fn stats(&self) -> Option<WorkerStats> {
        let member = self.shared.member()?;
        member.kernel.ask(|dataplane| dataplane.stats()).await.ok()
    }

    /// The paths to this node's peers, while it is a member.
    pub async fn paths(&self) -> Option<Vec<PeerPath>> {
        let paths = self.stats().await?.engine.paths;
        let desired = self.shared.member()?.link.desired.borrow().clone();
        Some(paths::named(desired.as_deref(), paths))
    }

    /// How frames are sealed and who this node is to its peers, while it is a member.
    pub fn data_path(&self) -> Option<(DataCipher, DataPathKey)> {
        self.shared.member().map(|member| (member.data_cipher, member.data_path_key))
    }

    /// What became of containers' questions for names, while this node is a member.
    pub fn names(&self) -> Option<skep_dns::Counters> {
        self.shared.member().map(|member| member.kernel.dns.counters())
    }

    /// Gives a namespace that is not Skep's an interface on a network.
    pub async fn attach(&self, options: AttachOptions) -> Result<AttachedInterface, AttachError> {
        let member = self.shared.member().ok_or(AttachError::NotAMember)?;
        to_completion(async move { member.attachments.attach(options).await }).await
    }

    pub async fn detach(&self, target: DetachTarget) -> Result<(), DetachError> {
        let member = self.shared.member().ok_or(DetachError::NotAMember)?;
        to_completion(async move { member.attachments.detach(target).await }).await
    }

    /// What is attached on this node.
    pub fn attached(&self) -> Vec<AttachedInterface> {
        self.shared.member().map(|member| member.attachments.list()).unwrap_or_default()
    }

    pub fn containers(&self) -> Containers {
        Containers::new(self.shared.clone())
    }
}

fn is_own(interface: &str) -> bool {
    interface == GWBRIDGE || interface == SKEP0 || interface.starts_with(VETH_PREFIX)
}
