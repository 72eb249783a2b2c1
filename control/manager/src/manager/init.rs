//! Making a new cluster.

use super::{CA_KEY_FILE, Manager, STORE_FILE};
use crate::ca::{Authority, CaError, Subject};
use crate::db::{self, Db, UpdateError};
use crate::liveness::HEARTBEAT_PERIOD;
use crate::server::join::new_node;
use crate::state::{Change, State};
use crate::store::{RedbOpenError, RedbStore};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use skep_model::cluster::{Cluster, ClusterSpec, JoinTokens, Meta};
use skep_model::data_path::{DataCipher, DataPathKey};
use skep_model::join::Credentials;
use skep_model::network::{INGRESS, Network, NetworkSpec};
use skep_model::node::{Availability, ManagerStatus, Node, Role};
use skep_model::token::JoinToken;
use skep_model::{ClusterId, NetworkId, NodeId};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Swarm reserves four addresses of each subnet.
const LARGEST_PREFIX: u8 = 29;
/// Swarm's range for `--data-path-port`.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49151;

#[derive(Clone, Debug)]
pub struct InitOptions {
    pub hostname: String,
    /// Where the other nodes reach this manager.
    pub advertise: SocketAddr,
    /// UDP port of every node's VTEP.
    pub data_path_port: u16,
    /// Of every node's sealed frames, for as long as the cluster lives.
    pub data_cipher: DataCipher,
    /// Of the node that this manager runs on.
    pub data_path_key: DataPathKey,
    /// Where the networks' subnets come from, in this order.
    pub default_addr_pool: Vec<Ipv4Net>,
    /// Prefix length of the subnets taken from the pool.
    pub subnet_size: u8,
    pub availability: Availability,
    pub spec: ClusterSpec,
}

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("subnet size is out of range: {0}")]
    SubnetSize(u8),
    #[error("invalid CIDR: \"{0}\". Subnet size is too small for pool: {1}")]
    PoolTooSmall(Ipv4Net, u8),
    #[error("pool {0} overlaps pool {1}: give each address range once")]
    PoolsOverlap(Ipv4Net, Ipv4Net),
    #[error("no address pool was given")]
    NoPool,
    #[error("data path port {0} is out of range: it has to be between 1024 and 49151")]
    DataPathPort(u16),
    #[error("{0} already holds a cluster: leave it first with `skep swarm leave --force`")]
    Exists(PathBuf),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Redb(#[from] RedbOpenError),
    #[error(transparent)]
    Db(#[from] db::OpenError),
    #[error("the cluster could not be recorded: {0}")]
    Record(String),
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl InitOptions {
    fn check(&self) -> Result<(), InitError> {
        if self.default_addr_pool.is_empty() {
            return Err(InitError::NoPool);
        }
        if self.subnet_size > LARGEST_PREFIX {
            return Err(InitError::SubnetSize(self.subnet_size));
        }
        if !DATA_PATH_PORTS.contains(&self.data_path_port) {
            return Err(InitError::DataPathPort(self.data_path_port));
        }
        for (index, pool) in self.default_addr_pool.iter().enumerate() {
            if pool.prefix_len() > self.subnet_size {
                return Err(InitError::PoolTooSmall(*pool, self.subnet_size));
            }
            let overlaps =
                |other: &&Ipv4Net| other.contains(&pool.network()) || pool.contains(&other.network());
            if let Some(other) = self.default_addr_pool[..index].iter().find(overlaps) {
                return Err(InitError::PoolsOverlap(*pool, *other));
            }
        }
        Ok(())
    }
}

impl Manager {
    /// Makes a cluster in `dir` with this node as its first member. The directory is created and
    /// closed to others. Nothing listens yet.
    pub fn init(dir: &Path, options: InitOptions) -> Result<(Self, Credentials), InitError> {
        options.check()?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(write_error(dir))?;
        let db = Db::open(Arc::new(RedbStore::open(&dir.join(STORE_FILE))?))?;
        if db.state().cluster.is_some() {
            return Err(InitError::Exists(dir.to_owned()));
        }
        let authority = Authority::create(ClusterId::random())?;
        // First the key: a cluster whose root cannot sign would be of no use.
        write_secret(&dir.join(CA_KEY_FILE), &authority.key_pem())?;
        let (node, credentials) = first_node(&authority, &options)?;
        record(&db, &authority, &options, node)?;
        let node = credentials.node_id.clone();
        Ok((Self::new(db, authority, node, HEARTBEAT_PERIOD), credentials))
    }
}

fn first_node(authority: &Authority, options: &InitOptions) -> Result<(Node, Credentials), InitError> {
    let (node_id, role) = (NodeId::random(), Role::Manager);
    let (leaf, key) =
        authority.issue(&Subject { node: &node_id, role, data_path_key: Some(options.data_path_key) })?;
    let addr = options.advertise;
    let mut node =
        new_node(node_id.clone(), role, &options.hostname, options.availability, addr.ip(), Timestamp::now());
    node.manager_status = Some(ManagerStatus { leader: true, reachability: "reachable".to_owned(), addr });
    node.skep.certificate = leaf.pem();
    let credentials = Credentials {
        node_id,
        cluster_id: authority.cluster().clone(),
        role,
        certificate: leaf.pem(),
        private_key: key.serialize_pem(),
        root_ca: authority.root_pem().to_owned(),
    };
    Ok((node, credentials))
}

fn record(db: &Db, authority: &Authority, options: &InitOptions, node: Node) -> Result<(), InitError> {
    let now = Timestamp::now();
    let token = || JoinToken::generate(authority.root_der()).to_string();
    let mut spec = options.spec.clone();
    if spec.name.is_empty() {
        spec.name = "default".to_owned();
    }
    let cluster = Cluster {
        id: authority.cluster().clone(),
        meta: Meta::new(now),
        spec,
        default_addr_pool: options.default_addr_pool.clone(),
        subnet_size: options.subnet_size,
        data_path_port: options.data_path_port,
        data_cipher: options.data_cipher,
        last_vni: 0,
        root_ca: authority.root_pem().to_owned(),
        join_tokens: JoinTokens { worker: token(), manager: token() },
    };
    let ingress = Network {
        id: NetworkId::random(),
        meta: Meta::new(now),
        spec: NetworkSpec { name: INGRESS.to_owned(), ingress: true, ..NetworkSpec::default() },
        allocation: None,
    };
    let changes = vec![
        Change::PutCluster(Box::new(cluster)),
        Change::PutNetwork(Box::new(ingress)),
        Change::PutNode(Box::new(node)),
    ];
    let recorded: Result<_, UpdateError<std::convert::Infallible>> =
        db.update(|_: &State| Ok(changes.clone()));
    recorded.map(|_revision| ()).map_err(|error| InitError::Record(error.to_string()))
}

fn write_secret(path: &Path, secret: &str) -> Result<(), InitError> {
    // An interrupted init may have left one, of a root nobody knows.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write_error(path)(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write_error(path))?;
    file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()).map_err(write_error(path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(write_error(dir))
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> InitError {
    move |source| InitError::Write { path: path.to_owned(), source }
}
