//! Namespaces that are not Skep's own, on networks of the cluster.

use ipnet::Ipv4Net;
use skep_model::TaskId;
use std::net::Ipv4Addr;
use std::path::PathBuf;

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
    pub network: String,
    pub netns: PathBuf,
    pub address: Ipv4Net,
    /// The interface's name inside the namespace.
    pub interface: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetachTarget {
    Id(TaskId),
    Netns { netns: PathBuf, network: String },
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("this node is not part of a swarm: run `skep swarm init` or `skep swarm join` first")]
    NotAMember,
}

#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    #[error("nothing is attached as {0}: `skep attach` printed the id when it attached")]
    Unknown(String),
}
