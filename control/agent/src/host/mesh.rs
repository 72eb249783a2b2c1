//! The routing mesh on this host: `skep0`, published ports, and who else wants them.

use super::tap::Tap;
use ipnet::Ipv4Net;
use skep_dataplane::ids::{MacAddr, PortId};
use skep_model::service::Protocol;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How often a port another program holds is worth trying again.
pub const RECHECK_PERIOD: Duration = Duration::from_secs(10);

/// All of the mesh this host should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPlan {
    pub skep0: Skep0,
    pub ports: Vec<PublishedPort>,
    /// Ranges no client may claim as its source: overlays, VIPs and gateways.
    pub reserved: Vec<Ipv4Net>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skep0 {
    pub port: PortId,
    /// This node's ingress address with the ingress network's prefix length.
    pub addr: Ipv4Net,
    pub mac: MacAddr,
    pub mtu: u16,
}

/// Traffic to `published` of any local address goes to `vip:target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedPort {
    pub protocol: Protocol,
    pub published: u16,
    pub vip: Ipv4Addr,
    pub target: u16,
}

#[derive(Debug, Default)]
pub struct MeshReport {
    /// Set when `skep0` was made by this call (the first, or after its address or MTU changed): the
    /// engine has to take it as this port.
    pub new_tap: Option<(PortId, Tap)>,
    /// Published ports this node doesn't serve, because another program listens there.
    pub conflicts: Vec<PortConflict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConflict {
    pub protocol: Protocol,
    pub published: u16,
    /// None when no process of this host's process table holds the socket.
    pub holder: Option<Holder>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub pid: u32,
}

impl fmt::Display for PortConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, published, holder } = self;
        write!(f, "port {published}/{protocol} is in use on this node by ")?;
        match holder {
            Some(Holder { name, pid }) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("another program"),
        }?;
        f.write_str("; the other nodes serve it, and this one will as soon as the port is free")
    }
}
