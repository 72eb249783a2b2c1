//! The cluster object: settings, tokens and the public half of the certificate authority.

use crate::ClusterId;
use crate::data_path::DataCipher;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Docker's `Version`: the store revision at which the object was last written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    pub index: u64,
}

/// What every object carries. `version` is filled in from the store at each read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    #[serde(default)]
    pub version: Version,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Meta {
    pub fn new(now: Timestamp) -> Self {
        Self { version: Version::default(), created_at: now, updated_at: now }
    }
}

/// Swarm's default pool and subnet size (`reference` constants of Swarm mode).
pub const DEFAULT_POOL: &str = "10.0.0.0/8";
pub const DEFAULT_SUBNET_SIZE: u8 = 24;
/// RFC 7348 §5: the port IANA assigned to VXLAN.
pub const DEFAULT_DATA_PATH_PORT: u16 = 4789;
pub const DEFAULT_LISTEN_PORT: u16 = 2377;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    #[serde(rename = "ID")]
    pub id: ClusterId,
    #[serde(flatten)]
    pub meta: Meta,
    /// Docker's `Swarm.Spec`, kept word for word.
    pub spec: ClusterSpec,
    pub default_addr_pool: Vec<Ipv4Net>,
    pub subnet_size: u8,
    pub data_path_port: u16,
    #[serde(default)]
    pub data_cipher: DataCipher,
    /// The VNI given last, 0 before the first: a removed network's VNI is not given again at once.
    #[serde(default)]
    pub last_vni: u32,
    /// PEM of the root certificate.
    pub root_ca: String,
    pub join_tokens: JoinTokens,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

/// Fields Skep reads are typed, the rest is kept as it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterSpec {
    pub name: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
