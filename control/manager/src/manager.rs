//! A manager as the daemon holds it: made or opened from its directory, started, asked, stopped.

mod init;
mod room;

pub use self::init::{InitError, InitOptions};

use crate::ca::{Authority, CaError, RENEW_AFTER};
use crate::control_loop;

use crate::db::{self, Db};
use crate::liveness::HEARTBEAT_PERIOD;
use crate::logs::{self, LogError, LogOptions, LogReceiver, LogTarget};
use crate::server::{self, ManagerCore};
use crate::store::{RedbOpenError, RedbStore};
use crate::tls::{self, ServerCertificate, TlsError};
use skep_model::NodeId;
use skep_model::node::Role;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const STORE_FILE: &str = "cluster.redb";
const CA_KEY_FILE: &str = "ca-key.pem";
/// Time for sessions to end at a shutdown; each needs one disk sync at most.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Cheap to clone; all clones are the same manager.
#[derive(Clone)]
pub struct Manager {
    pub(crate) core: Arc<ManagerCore>,
    running: Arc<Mutex<Option<Running>>>,
}

struct Running {
    addr: SocketAddr,
    tasks: JoinSet<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Redb(#[from] RedbOpenError),
    #[error(transparent)]
    Db(#[from] db::OpenError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(
        "{0} holds no cluster: its creation was interrupted; remove the directory and run `skep swarm init` again"
    )]
    NoCluster(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "cannot listen on {0}: it is not an address of this host; give one of its own with --listen-addr"
    )]
    NotOurAddress(SocketAddr),
    #[error(
        "cannot listen on {addr}: {source}; stop the program that holds it (`ss -ltnp` shows it) or choose another with --listen-addr"
    )]
    Bind { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the manager runs already, on {0}")]
    Running(SocketAddr),
}

impl Manager {
    /// Opens the cluster that [`Manager::init`] made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with_heartbeat(dir, HEARTBEAT_PERIOD)
    }

    pub(crate) fn open_with_heartbeat(dir: &Path, heartbeat: Duration) -> Result<Self, OpenError> {
        let key_path = dir.join(CA_KEY_FILE);
        let key = std::fs::read_to_string(&key_path)
            .map_err(|source| OpenError::Read { path: key_path, source })?;
        let db = Db::open(Arc::new(RedbStore::open(&dir.join(STORE_FILE))?))?;
        let state = db.state();
        let no_cluster = || OpenError::NoCluster(dir.to_owned());
        let cluster = state.cluster.as_ref().ok_or_else(no_cluster)?;
        let node =
            state.nodes.values().find(|node| node.spec.role == Role::Manager).ok_or_else(no_cluster)?;
        let authority = Authority::load(cluster.id.clone(), &cluster.root_ca, &key)?;
        let node = node.id.clone();
        Ok(Self::new(db, authority, node, heartbeat))
    }

    pub(crate) fn new(db: Db, authority: Authority, node: NodeId, heartbeat: Duration) -> Self {
        let core = Arc::new(ManagerCore::new(db, authority, node, heartbeat));
        Self { core, running: Arc::default() }
    }

    /// Listens on `listen` and begins to serve agents and to run the cluster. Needs a tokio runtime.
    pub fn start(&self, listen: SocketAddr) -> Result<(), StartError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_ref() {
            return Err(StartError::Running(running.addr));
        }
        let listener = bind(listen).map_err(|source| match source.kind() {
            io::ErrorKind::AddrNotAvailable => StartError::NotOurAddress(listen),
            _ => StartError::Bind { addr: listen, source },
        })?;
        let addr = listener.local_addr().map_err(|source| StartError::Bind { addr: listen, source })?;
        let certificate = ServerCertificate::issue(&self.core.authority, &self.core.node)?;
        let config = tls::server_config(&self.core.authority, certificate.clone())?;
        let mut tasks = JoinSet::new();
        tasks.spawn(server::watch_liveness(self.core.clone()));
        tasks.spawn(server::watch_drains(self.core.clone()));
        tasks.spawn(server::serve(self.core.clone(), listener, config));
        tasks.spawn(renew_certificate(self.core.clone(), certificate));
        let (db, stopped) = (self.core.db.clone(), self.core.stopped());
        tasks.spawn(async {
            tokio::select! {
                () = room::watch(db) => {}
                () = stopped => {}
            }
        });
        tasks.spawn(control_loop::run(self.core.db.clone(), self.core.stop_receiver()));

        *running = Some(Running { addr, tasks });
        tracing::info!(%addr, "manager listens");
        Ok(())
    }

    /// Where the manager listens while it runs.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|running| running.addr)
    }

    /// Ends sessions, the listener and the control loop, and gives up the directory's files: it may be
    /// opened again, or removed. The cluster stays as it is.
    pub async fn shutdown(&self) {
        self.core.stop();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { mut tasks, .. }) = running {
            let ended = async {
                while tasks.join_next().await.is_some() {}
                self.core.sessions_ended().await;
            };
            if tokio::time::timeout(SHUTDOWN_LIMIT, ended).await.is_err() {
                tracing::warn!("the manager's sessions did not end in time");
            }
        }
        self.core.db.close();
    }

    /// The cluster's state, and the way to change it.
    pub fn db(&self) -> &Db {
        &self.core.db
    }

    /// The node this manager runs on.
    pub fn node_id(&self) -> &NodeId {
        &self.core.node
    }

    pub fn root_ca_pem(&self) -> &str {
        self.core.authority.root_pem()
    }

    /// DER of the root certificate, which join tokens pin.
    pub fn root_ca_der(&self) -> &[u8] {
        self.core.authority.root_der()
    }

    /// The logs of a service's tasks, or of one task, from wherever they run. Needs a tokio runtime.
    pub fn logs(&self, target: LogTarget, options: LogOptions) -> Result<LogReceiver, LogError> {
        if self.listen_addr().is_none() {
            return Err(LogError::NotRunning);
        }
        logs::read(&self.core, target, options)
    }
}

/// `SO_REUSEADDR` is set by std: a restarted manager gets its port back at once.
fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Replaces the manager's own certificate at half its life.
async fn renew_certificate(core: Arc<ManagerCore>, certificate: Arc<ServerCertificate>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEW_AFTER) => {}
            () = core.stopped() => return,
        }
        if let Err(error) = certificate.renew(&core.authority, &core.node) {
            tracing::error!(%error, "the manager's certificate could not be renewed");
        }
    }
}
