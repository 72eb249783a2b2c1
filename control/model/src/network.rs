//! Networks of the cluster. Stored in Skep's own shape; the API renders Docker's from it.

use crate::NetworkId;
use crate::cluster::Meta;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The name of the network published ports live on.
pub const INGRESS: &str = "ingress";
/// Swarm's first automatic VNI (`vxlanIDStart`).
pub const FIRST_VNI: u32 = 4096;
/// RFC 7348 §5: VNIs are 24 bits wide.
pub const LAST_VNI: u32 = (1 << 24) - 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// Set by the allocator, at once; only its cursor moves afterwards.
    pub allocation: Option<NetworkAllocation>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// The subnet the user asked for; without it the allocator takes the next free one of the pool.
    pub subnet: Option<Ipv4Net>,
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet that addresses are given from; the whole one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<Ipv4Net>,
    /// Addresses of the subnet that are somebody else's, by whose: nobody is given them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, Ipv4Addr>,
    pub attachable: bool,
    /// Its frames travel as they are. All others are sealed, also where nothing says so.
    #[serde(default)]
    pub plain: bool,
    /// No gateway to the outside and no forwarding of unknown names.
    pub internal: bool,
    pub ingress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAllocation {
    pub vni: u32,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    /// The address given last. The next one is searched behind it, so that a freed address is not
    /// given to another task while peers may still send to the one that had it.
    #[serde(default)]
    pub last_addr: Option<Ipv4Addr>,
}
