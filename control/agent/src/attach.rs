//! Namespaces that are not Skep's own, on networks of the cluster.

use crate::explain::explain;
use crate::host::netns::Netns;
use crate::host::{Sandbox, SandboxNetns};
use crate::places::{PlaceRequest, Places};
use crate::project::{Place, Sandboxing};
use crate::sandboxes::{SandboxRequest, Sandboxes};
use ipnet::Ipv4Net;
use nix::sys::stat::fstat;
use skep_model::TaskId;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Attachments of one node at a time; each is a namespace and a TAP.
const MAX_ATTACHMENTS: usize = 1024;

#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// Name or id of an attachable network.
    pub network: String,
    /// The namespace, as under `/run/netns` or `/proc/PID/ns/net`.
    pub netns: PathBuf,
    /// Its name in DNS; empty: none.
    pub name: String,
    /// A certain address of the network, if free.
    pub ip: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    pub id: TaskId,
    /// Empty: none.
    pub name: String,
    /// The network's name.
    pub network: String,
    pub netns: PathBuf,
    /// With the network's prefix length.
    pub address: Ipv4Net,
    /// The interface's name inside the namespace.
    pub interface: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetachTarget {
    Id(TaskId),
    /// A network's name, and a path of the namespace: not necessarily the one it was attached by.
    Netns {
        netns: PathBuf,
        network: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("this node is not part of a swarm: run `skep swarm init` or `skep swarm join` first")]
    NotAMember,
    #[error("cannot open the network namespace {path}: {source}")]
    Namespace { path: PathBuf, source: io::Error },
    #[error("{0} is not a network namespace: give a path as under /run/netns, or /proc/PID/ns/net")]
    NotANamespace(PathBuf),
    #[error(
        "{0} is the host's own network namespace, which no network of the cluster may enter: attach another one"
    )]
    HostNamespace(PathBuf),
    #[error("{path} is attached to {network} already: detach it first")]
    Already { path: PathBuf, network: String },
    #[error("this node has {MAX_ATTACHMENTS} attachments, the most it takes")]
    TooMany,
    /// In the manager's words.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Sandbox(String),
}

#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    #[error("this node is not part of a swarm, so nothing is attached here")]
    NotAMember,
    #[error("nothing is attached as {0} on this node")]
    Unknown(String),
}

/// The attachments of a member.
#[derive(Clone)]
pub(crate) struct Attachments {
    sandboxes: Sandboxes,
    places: Places,
    held: Arc<Mutex<BTreeMap<TaskId, Held>>>,
    /// One change at a time; false once the node is no member any more.
    open: Arc<tokio::sync::Mutex<bool>>,
}

struct Held {
    info: AttachedInterface,
    namespace: NamespaceId,
    sandbox: Sandbox,
}

/// Device and inode: the same namespace by whichever path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NamespaceId(u64, u64);

impl Attachments {
    pub(crate) fn new(sandboxes: Sandboxes, places: Places) -> Self {
        let open = Arc::new(tokio::sync::Mutex::new(true));
        Self { sandboxes, places, held: Arc::default(), open }
    }

    pub(crate) async fn attach(&self, options: AttachOptions) -> Result<AttachedInterface, AttachError> {
        let open = self.open.lock().await;
        if !*open {
            return Err(AttachError::NotAMember);
        }
        let (netns, namespace) = open_namespace(&options.netns)?;
        if self.held().len() >= MAX_ATTACHMENTS {
            return Err(AttachError::TooMany);
        }
        let container = options.netns.to_string_lossy();
        let wanted = PlaceRequest {
            network: &options.network,
            name: &options.name,
            addr: options.ip,
            container: &container,
        };
        let place = self.places.take(wanted).await.map_err(AttachError::Refused)?;
        let task = place.task.clone();
        match self.enter(options, netns, namespace, place).await {
            Ok(info) => {
                self.watch(task);
                Ok(info)
            }
            Err(error) => {
                self.places.give_back(task).await;
                Err(error)
            }
        }
    }

    async fn enter(
        &self,
        options: AttachOptions,
        netns: Netns,
        namespace: NamespaceId,
        place: Place,
    ) -> Result<AttachedInterface, AttachError> {
        let (id, network, address) = (place.task.clone(), place.network.name.clone(), place.addr);
        let (is_attached, new_resolver) = {
            let held = self.held();
            let mut same = held.values().filter(|held| held.namespace == namespace).peekable();
            let new_resolver = same.peek().is_none();
            (same.any(|held| held.info.network == network), new_resolver)
        };
        if is_attached {
            return Err(AttachError::Already { path: options.netns, network });
        }
        let request = SandboxRequest {
            id: id.0.clone(),
            netns: SandboxNetns::Existing(netns),
            sandboxing: Sandboxing::of(vec![place]),
            resolver: format!("netns-{}-{}", namespace.0, namespace.1),
            new_resolver,
        };
        let sandbox = self.sandboxes.create(request).await;
        let sandbox = sandbox.map_err(|error| AttachError::Sandbox(explain(&error)))?;
        let interface = sandbox.interfaces.first().map(|(_, name)| name.clone()).unwrap_or_default();
        let AttachOptions { netns, name, .. } = options;
        let info = AttachedInterface { id: id.clone(), name, network, netns, address, interface };
        self.held().insert(id, Held { info: info.clone(), namespace, sandbox });
        Ok(info)
    }

    /// Ends the attachment when the manager no longer knows it.
    fn watch(&self, task: TaskId) {
        let this = self.clone();
        tokio::spawn(async move {
            this.places.revoked(&task).await;
            let _open = this.open.lock().await;
            let held = this.held().remove(&task);
            if let Some(held) = held {
                tracing::warn!(%task, netns = %held.info.netns.display(), "detached by the manager");
                this.give_up(held).await;
            }
        });
    }

    pub(crate) async fn detach(&self, target: DetachTarget) -> Result<(), DetachError> {
        let _open = self.open.lock().await;
        let id = self.find(target)?;
        let held = self.held().remove(&id);
        self.give_up(held.ok_or(DetachError::Unknown(id.0))?).await;
        Ok(())
    }

    fn find(&self, target: DetachTarget) -> Result<TaskId, DetachError> {
        let (netns, network) = match target {
            DetachTarget::Id(id) => return Ok(id),
            DetachTarget::Netns { netns, network } => (netns, network),
        };
        let namespace = NamespaceId::of(&netns).ok();
        let found = self.held().iter().find_map(|(id, held)| {
            let same = held.info.netns == netns || Some(held.namespace) == namespace;
            (same && held.info.network == network).then(|| id.clone())
        });
        found.ok_or_else(|| DetachError::Unknown(format!("{} on network {network}", netns.display())))
    }

    async fn give_up(&self, mut held: Held) {
        if let Some(other) = self.held().values_mut().find(|other| other.namespace == held.namespace) {
            held.sandbox.bequeath(&mut other.sandbox);
        }
        self.sandboxes.remove(held.sandbox).await;
        self.places.give_back(held.info.id).await;
    }

    /// The node is no member any more.
    pub(crate) async fn close(&self) {
        let mut open = self.open.lock().await;
        *open = false;
        let all = std::mem::take(&mut *self.held());
        for held in all.into_values() {
            self.give_up(held).await;
        }
    }

    pub(crate) fn list(&self) -> Vec<AttachedInterface> {
        self.held().values().map(|held| held.info.clone()).collect()
    }

    /// A map is whole after every call.
    fn held(&self) -> MutexGuard<'_, BTreeMap<TaskId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NamespaceId {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

fn open_namespace(path: &Path) -> Result<(Netns, NamespaceId), AttachError> {
    let netns = Netns::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput => AttachError::NotANamespace(path.to_owned()),
        _ => AttachError::Namespace { path: path.to_owned(), source },
    })?;
    let failed = |source: io::Error| AttachError::Namespace { path: path.to_owned(), source };
    let status = fstat(&netns).map_err(|errno| failed(errno.into()))?;
    let namespace = NamespaceId(status.st_dev, status.st_ino);
    let host = NamespaceId::of(Path::new("/proc/thread-self/ns/net")).map_err(failed)?;
    match namespace == host {
        true => Err(AttachError::HostNamespace(path.to_owned())),
        false => Ok((netns, namespace)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_that_is_not_the_hosts_is_entered() {
        let own = open_namespace(Path::new("/proc/self/ns/net"));
        assert!(matches!(own, Err(AttachError::HostNamespace(_))));
        for other in ["/proc/self/status", "/proc/self/ns/uts"] {
            let opened = open_namespace(Path::new(other));
            assert!(matches!(opened, Err(AttachError::NotANamespace(_))), "{other}");
        }
        let missing = open_namespace(Path::new("/run/netns/no-such-namespace"));
        assert!(matches!(missing, Err(AttachError::Namespace { .. })));
    }

    #[test]
    fn a_pipe_without_a_writer_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let (done, refused) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(open_namespace(&pipe)));
        let refused = refused.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert!(matches!(refused, Err(AttachError::NotANamespace(_))));
    }
}
