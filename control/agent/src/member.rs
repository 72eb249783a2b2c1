//! This node while it is a member: what is started for that, in order, and taken down again.

use crate::agent::{JoinError, Membership};
use crate::attach::Attachments;
use crate::completion::on_a_thread;
use crate::containers::LocalContainers;
use crate::desired::DesiredFile;
use crate::executor::{ProcessExecutor, ReadOptions};
use crate::explain::explain;
use crate::host::{Host, HostConfig, HostFacts, Underlay};
use crate::key;
use crate::places::Places;
use crate::project::Local;
use crate::reconcile::{Carrier, Kernel, Parts, Progress, Reconciler};
use crate::renewal::Renewal;
use crate::sandboxes::Sandboxes;
use crate::session::{self, Link, LogSource, SessionConfig};
use crate::tasks::{TaskContext, Tasks};
use ipnet::Ipv4Net;
use skep_dataplane::io::{Handle, Worker, WorkerConfig};
use skep_dataplane::seal::Identity;
use skep_model::NodeId;
use skep_model::assign::Desired;
use skep_model::cluster::DEFAULT_LISTEN_PORT;
use skep_model::data_path::{DataCipher, DataPathKey};
use skep_model::node::NodeDescription;
use skep_model::session::ReadLogs;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// For the first complete set to be in place: a few round trips and disk syncs; more where the manager is
/// only about to start.
const FIRST_SET_LIMIT: Duration = Duration::from_secs(25);
/// For a manager to be there, before a restarted daemon goes by what it was told last: a few tries to connect.
const MANAGER_PATIENCE: Duration = Duration::from_secs(3);
/// For a renewed certificate to be written down where this node ends in its midst.
const RENEWAL_LIMIT: Duration = Duration::from_secs(25);
/// For the manager to accept the last statuses of a daemon that ends.
const LAST_REPORTS_LIMIT: Duration = Duration::from_secs(2);

/// Where things are kept, and by whom tasks are run.
pub(crate) struct Surroundings<'a> {
    pub(crate) state_dir: &'a Path,
    pub(crate) executor: &'a ProcessExecutor,
    pub(crate) description: NodeDescription,
}

pub(crate) struct Member {
    pub(crate) node_id: NodeId,
    pub(crate) gwbridge: Ipv4Net,
    pub(crate) data_cipher: DataCipher,
    pub(crate) data_path_key: DataPathKey,
    pub(crate) kernel: Kernel,
    pub(crate) link: Arc<Link>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) attachments: Attachments,
    pub(crate) containers: LocalContainers,
    carrier: Carrier,
    desired: DesiredFile,
    stop_session: watch::Sender<bool>,
    session: JoinHandle<()>,
    renewal: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    reconciler: JoinHandle<()>,
}

/// What was and is seen of the surroundings, and who this node is there.
struct Looks {
    facts: HostFacts,
    /// VTEPs of peers that do not answer on the data path.
    silent: watch::Receiver<BTreeSet<Ipv4Addr>>,
    data_path_key: DataPathKey,
}

impl Member {
    /// Everything started, or nothing left of it.
    pub(crate) async fn start(membership: Membership, around: Surroundings<'_>) -> Result<Self, JoinError> {
        let facts = facts().await?;
        let Some(underlay_mtu) = facts.mtu_of(membership.data_path_addr) else {
            let have: Vec<_> =
                facts.addresses.iter().map(|address| address.addr.addr().to_string()).collect();
            return Err(JoinError::DataPathAddr { addr: membership.data_path_addr, have: have.join(", ") });
        };
        let identity = key::identity(around.state_dir, &membership.credentials, membership.data_cipher)?;
        let data_path_key = DataPathKey(identity.key.public().0);
        let (dataplane, silent) = packet_thread(&membership, identity).await?;
        let config = HostConfig {
            egress_mtu: underlay_mtu,
            sysctl_record: Some(around.state_dir.join("sysctls")),
            underlay: Some(underlay(&membership)),
            ..HostConfig::default()
        };
        let host = Arc::new(Host::open(config).await?);
        let gwbridge = match host.ensure_gwbridge().await {
            Ok(gwbridge) => gwbridge,
            Err(error) => {
                dataplane.shutdown();
                take_down(&host).await;
                return Err(error.into());
            }
        };
        let dns = match skep_dns::Server::with_own_thread(skep_dns::ServerConfig::default()) {
            Ok(dns) => dns,
            Err(error) => {
                dataplane.shutdown();
                take_down(&host).await;
                return Err(JoinError::Resolver(error));
            }
        };
        let kernel = Kernel { host, dataplane, dns };
        let local = Local { underlay_mtu, gwbridge: Some(gwbridge), ..Local::default() };
        let mut member =
            Self::assemble(membership, around, kernel, local, Looks { facts, silent, data_path_key });
        let former = former(&member.desired, &member.node_id);
        match member.first_set(former).await {
            Ok(()) => Ok(member),
            Err(error) => {
                member.end(false).await;
                Err(error)
            }
        }
    }

    fn assemble(
        membership: Membership,
        around: Surroundings<'_>,
        kernel: Kernel,
        local: Local,
        Looks { facts, silent, data_path_key }: Looks,
    ) -> Self {
        let node_id = membership.credentials.node_id.clone();
        let desired = DesiredFile::new(around.state_dir);
        let (credentials, shown) = watch::channel(membership.credentials);
        let renewal = Renewal { credentials, managers: membership.managers.clone(), keep: membership.keep };
        let config = SessionConfig {
            credentials: shown,
            managers: membership.managers,
            description: around.description,
            data_path_addr: membership.data_path_addr,
            desired: desired.clone(),
            logs: log_source(around.executor.clone()),
        };
        let (stop_session, stopped) = watch::channel(false);
        let renewal = tokio::spawn(renewal.run(stopped.clone()));
        let (session, link) = session::start(config, stopped);
        link.routed.send_replace(facts.routed_with(local.gwbridge));
        let (facts, looked) = watch::channel(Arc::new(facts));

        let gwbridge = local.gwbridge.unwrap_or_default();
        let (carrier, commands) = Carrier::new();
        let sandboxes = Sandboxes::new(kernel.clone(), carrier.clone(), local.underlay_mtu);
        let context = TaskContext::new(
            sandboxes.clone(),
            carrier.clone(),
            around.executor.clone(),
            link.clone(),
            looked.clone(),
            desired.clone(),
        );
        let parts = Parts { kernel: kernel.clone(), link: link.clone(), local, facts, silent };
        let (reconciler, progress) = Reconciler::new(parts, commands, Tasks::new(context));
        let places = Places::new(link.clone());
        Self {
            node_id,
            gwbridge,
            data_cipher: membership.data_cipher,
            data_path_key,
            attachments: Attachments::new(sandboxes.clone(), places.clone()),
            containers: LocalContainers::new(sandboxes, places, around.executor.clone(), looked),
            kernel,
            link,
            progress,
            carrier,
            desired,
            stop_session,
            session: tokio::spawn(session),
            renewal: tokio::sync::Mutex::new(Some(renewal)),
            reconciler: tokio::spawn(reconciler.run()),
        }
    }

    /// Waits until a first set is in place: the manager's, or `former` where no manager is to be found. What
    /// the manager says later replaces that.
    async fn first_set(&mut self, former: Option<Desired>) -> Result<(), JoinError> {
        if let Some(former) = former
            && !self.is_in_place(MANAGER_PATIENCE).await
        {
            self.go_by(former);
        }
        if self.is_in_place(FIRST_SET_LIMIT).await {
            return Ok(());
        }
        let reason = self.last_error().unwrap_or_else(|| "the manager sent no assignments".to_owned());
        Err(JoinError::NoAssignments { reason })
    }

    async fn is_in_place(&mut self, limit: Duration) -> bool {
        let in_place = self.progress.wait_for(|progress| progress.revision.is_some());
        matches!(tokio::time::timeout(limit, in_place).await, Ok(Ok(_)))
    }

    /// Unless a manager has spoken: then it is a matter of moments.
    fn go_by(&self, former: Desired) {
        if self.link.state.borrow().connected.is_some() {
            return;
        }
        let revision = former.revision;
        let is_first = self.link.desired.send_if_modified(|desired| {
            let is_first = desired.is_none();
            desired.get_or_insert_with(|| Arc::new(former));
            is_first
        });
        if is_first {
            tracing::warn!(revision, "no manager answers: going by the assignments of before the restart");
        }
    }

    /// What keeps this node from doing all it should, the nearest cause first.
    pub(crate) fn last_error(&self) -> Option<String> {
        let unable = self.progress.borrow().errors.first().cloned();
        unable.or_else(|| self.link.state.borrow().error.clone())
    }

    /// Leaves the cluster: the manager is told, and nothing is remembered.
    pub(crate) async fn leave(&self) {
        self.link.leave().await;
        self.end(false).await;
        if let Err(error) = self.desired.forget() {
            tracing::warn!(%error, "the assignments on disk could not be removed");
        }
    }

    /// Ends with the daemon.
    pub(crate) async fn shut_down(&self) {
        self.end(true).await;
    }

    /// Tasks, containers and attachments first, then what they rely on.
    async fn end(&self, report: bool) {
        let tasks = self.carrier.stop_all();
        tokio::join!(tasks, self.containers.close(), self.attachments.close());
        if report && self.link.state.borrow().connected.is_some() {
            // Without an answer the next session's Hello says as much.
            let _ = tokio::time::timeout(LAST_REPORTS_LIMIT, self.link.reports.all_accepted()).await;
        }
        self.stop_session.send_replace(true);
        if let Some(renewal) = self.renewal.lock().await.take() {
            // What it writes must not come after the membership was forgotten.
            let _ = tokio::time::timeout(RENEWAL_LIMIT, renewal).await;
        }
        self.reconciler.abort();
        self.session.abort();
        self.kernel.ask(Handle::shutdown).await;
        take_down(&self.kernel.host).await;
    }
}

async fn facts() -> Result<HostFacts, JoinError> {
    Ok(Host::open(HostConfig::default()).await?.facts().await?)
}

fn underlay(membership: &Membership) -> Underlay {
    Underlay {
        vtep: membership.data_path_addr,
        data_path_port: membership.data_path_port,
        control_ports: membership
            .managers
            .iter()
            .map(SocketAddr::port)
            .chain([DEFAULT_LISTEN_PORT])
            .collect(),
    }
}

/// The thread, and the peers it finds silent.
async fn packet_thread(
    membership: &Membership,
    identity: Identity,
) -> Result<(Handle, watch::Receiver<BTreeSet<Ipv4Addr>>), JoinError> {
    let (vtep, port) = (membership.data_path_addr, membership.data_path_port);
    let config = WorkerConfig { vtep, port, seed: rand::random(), identity };
    let (silent, seen) = watch::channel(BTreeSet::new());
    let note = move |vteps: &[Ipv4Addr]| _ = silent.send_replace(vteps.iter().copied().collect());
    Ok((on_a_thread(move || Worker::spawn(config, note)).await?, seen))
}

async fn take_down(host: &Host) {
    if let Err(error) = host.teardown().await {
        tracing::warn!("not everything could be taken down: {}", explain(&error));
    }
}

/// What an earlier run of this daemon was told last, if that is of use.
fn former(file: &DesiredFile, node: &NodeId) -> Option<Desired> {
    file.load(node).unwrap_or_else(|error| {
        tracing::warn!("the assignments on disk are not used: {error}; the manager's next ones replace them");
        None
    })
}

fn log_source(executor: ProcessExecutor) -> LogSource {
    Arc::new(move |wanted: &ReadLogs| {
        let options = ReadOptions { follow: wanted.follow, tail: wanted.tail, since: wanted.since };
        executor.logs(wanted.task.as_str(), options).map_err(|error| explain(&error))
    })
}
