//! Services as Docker's API shapes them. Fields Skep acts on are typed; everything else a client sent
//! is kept word for word, because clients send back what they read.

use crate::cluster::Meta;
use crate::signal::{InvalidSignal, Signal};
use crate::{NetworkId, ServiceId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: ServiceId,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: ServiceSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<Box<ServiceSpec>>,
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Why the allocator cannot serve the spec yet, empty when it could; shown in `service ps`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pending_reason: String,
}

/// `null` is what Go clients send for an absent map, list or struct.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    pub name: String,
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    pub task_template: TaskSpec,
    #[serde(deserialize_with = "null_default")]
    pub mode: Mode,
    #[serde(deserialize_with = "null_default")]
    pub endpoint_spec: EndpointSpec,
    /// Old place of `TaskTemplate.Networks` (API below 1.25).
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Exactly one of the fields is set; nothing set means one replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mode {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Global>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Mode {
    pub fn is_global(&self) -> bool {
        self.global.is_some()
    }

    /// Number of replicas asked for; 1 where the client left it out, as Swarm has it.
    pub fn replicas(&self) -> u64 {
        self.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Replicated {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Global {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_spec: Option<ContainerSpec>,
    /// Set instead of `container_spec` for attachments and `skep run`: the node brings the process itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_attachment_spec: Option<NetworkAttachmentSpec>,
    #[serde(deserialize_with = "null_default")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    pub force_update: u64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where tasks may go, and where they had better go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Placement {
    /// `node.labels.disk==ssd`, all of which a node has to meet.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<PlacementPreference>,
    /// Tasks of the service that a node takes at most; 0: any number.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub max_replicas: u64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlacementPreference {
    pub spread: Option<SpreadOver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SpreadOver {
    /// `node.labels.zone`
    pub spread_descriptor: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSpec {
    pub image: String,
    /// Docker's entrypoint override; prepended to `args`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `NAME=value`
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Empty: the first digits of the container's id.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Where the command starts; empty: the container's own writable directory.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// `USER[:GROUP]`, each by name or number; empty: root.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// What a stop begins with, by name or number; empty: SIGTERM.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Nanoseconds from the stop signal to SIGKILL; None: [`DEFAULT_STOP_GRACE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<i64>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Docker's default.
pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);

impl ContainerSpec {
    /// What a stop begins with.
    pub fn stop_signal(&self) -> Result<Signal, InvalidSignal> {
        if self.stop_signal.is_empty() { Ok(Signal::TERM) } else { self.stop_signal.parse() }
    }

    /// From the stop signal to SIGKILL.
    pub fn stop_grace(&self) -> Duration {
        let grace =
            self.stop_grace_period.map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)));
        grace.unwrap_or(DEFAULT_STOP_GRACE)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachmentSpec {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachmentConfig {
    /// Name or id as the client sent it; the API stores the id.
    pub target: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    pub mode: EndpointMode,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    #[default]
    #[serde(alias = "")]
    Vip,
    Dnsrr,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub protocol: Protocol,
    pub target_port: u16,
    /// 0 in a spec: the allocator picks one of 30000–32767.
    pub published_port: u16,
    pub publish_mode: PublishMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    #[serde(alias = "")]
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    #[default]
    #[serde(alias = "")]
    Ingress,
    Host,
}

/// What the allocator gave the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    pub spec: EndpointSpec,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub virtual_ips: Vec<VirtualIp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VirtualIp {
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// Address with the network's prefix length, as Docker writes it: `10.0.1.2/24`.
    pub addr: ipnet::Ipv4Net,
}
