//! A manager on loopback with nodes that are played by the tests.

mod client;
mod full;
mod joining;
mod logs;
mod renewing;
mod sessions;

use self::client::{Agent, Client, LIMIT};
use crate::manager::{InitOptions, Manager};
use crate::state::{Change, State};
use jiff::Timestamp;
use skep_model::cluster::{ClusterSpec, DEFAULT_DATA_PATH_PORT, DEFAULT_POOL, DEFAULT_SUBNET_SIZE, Meta};
use skep_model::data_path::{DataCipher, DataPathKey};
use skep_model::join::Credentials;
use skep_model::node::Availability;
use skep_model::service::{ContainerSpec, Service, ServiceSpec, TaskSpec};
use skep_model::task::{Task, TaskState, TaskStatus};
use skep_model::{NodeId, ServiceId, TaskId};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

struct Cluster {
    manager: Manager,
    addr: SocketAddr,
    first: Credentials,
    dir: tempfile::TempDir,
}

fn options() -> InitOptions {
    InitOptions {
        hostname: "n1".to_owned(),
        advertise: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 2377)),
        data_path_port: DEFAULT_DATA_PATH_PORT,
        data_cipher: DataCipher::Aes256Gcm,
        data_path_key: DataPathKey([1; 32]),
        default_addr_pool: vec![DEFAULT_POOL.parse().unwrap()],
        subnet_size: DEFAULT_SUBNET_SIZE,
        availability: Availability::Active,
        spec: ClusterSpec::default(),
    }
}

impl Cluster {
    async fn new() -> Self {
        Self::with_heartbeat(Duration::from_secs(600)).await
    }

    async fn with_heartbeat(heartbeat: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (made, first) = Manager::init(dir.path(), options()).unwrap();
        drop(made);
        let manager = Manager::open_with_heartbeat(dir.path(), heartbeat).unwrap();
        manager.start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let addr = manager.listen_addr().unwrap();
        Self { manager, addr, first, dir }
    }

    async fn stranger(&self) -> Client {
        Client::connect(self.addr, self.manager.root_ca_pem(), None).await.unwrap()
    }

    async fn worker(&self) -> Credentials {
        let token = self.state().cluster.as_ref().unwrap().join_tokens.worker.clone();
        self.stranger().await.join(&token).await.unwrap()
    }

    async fn agent(&self, identity: &Credentials) -> Agent {
        Agent::open(self.addr, self.manager.root_ca_pem(), identity).await.unwrap()
    }

    fn state(&self) -> std::sync::Arc<State> {
        self.manager.db().state()
    }

    fn write(&self, changes: Vec<Change>) {
        self.manager.db().update(|_| Ok::<_, Infallible>(changes.clone())).unwrap();
    }

    /// Waits until the state is as asked for.
    async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let mut revision = self.manager.db().watch();
        let reached = async {
            while !wanted(&self.state()) {
                revision.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, reached).await.unwrap_or_else(|_| panic!("never happened: {what}"));
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { timestamp: now(), state, message: String::new(), err: String::new(), container_status: None }
}

/// A service with as many slots as the test fills itself, so that the orchestrator adds nothing.
fn service(id: &str, replicas: u64) -> Change {
    let mut spec = ServiceSpec { name: id.to_owned(), ..ServiceSpec::default() };
    spec.mode.replicated = Some(skep_model::service::Replicated { replicas: Some(replicas) });
    Change::PutService(Box::new(Service {
        id: ServiceId::from(id),
        meta: Meta::new(now()),
        spec,
        previous_spec: None,
        endpoint: skep_model::service::Endpoint::default(),
        pending_reason: String::new(),
    }))
}

/// A task of the service `web`, without networks, on `node`.
fn task(id: &str, slot: u64, node: &NodeId, state: TaskState) -> Task {
    Task {
        id: TaskId::from(id),
        meta: Meta::new(now()),
        spec: TaskSpec { container_spec: Some(ContainerSpec::default()), ..TaskSpec::default() },
        service_id: ServiceId::from("web"),
        service_name: "web".to_owned(),
        slot,
        node_id: node.clone(),
        status: status(state),
        desired_state: TaskState::Running,
        not_before: None,
        attachments: Vec::new(),
    }
}

fn put(task: Task) -> Change {
    Change::PutTask(Box::new(task))
}
