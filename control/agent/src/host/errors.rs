//! One error per action, each with what an operator needs to act on it.

use ipnet::Ipv4Net;
use std::fmt;
use std::io;

/// Why this machine can't be a node. Each item is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("{}", .0.join("\n"))]
    Missing(Vec<String>),
    #[error("cannot open a netlink connection to the kernel")]
    Netlink(#[source] io::Error),
    #[error("cannot open the host's network namespace")]
    Netns(#[source] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("cannot read the host's links, addresses and routes: {0}")]
    Netlink(String),
}

#[derive(Debug, thiserror::Error)]
pub enum GwbridgeError {
    #[error(
        "no subnet is left for the egress bridge: every candidate overlaps a route of this host ({})",
        list(routed)
    )]
    NoFreeSubnet { routed: Vec<Ipv4Net> },
    #[error("cannot {step}")]
    Step {
        step: String,
        #[source]
        source: io::Error,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot {step} for {id}")]
    Step {
        id: String,
        step: String,
        #[source]
        source: io::Error,
    },
    #[error("no interface name eth0 … eth255 is free in the namespace of {id}")]
    NoInterfaceName { id: String },
    #[error("the egress bridge has no free address left for {id}: its subnet {subnet} is used up")]
    NoEgressAddress { id: String, subnet: Ipv4Net },
    #[error(transparent)]
    Gwbridge(#[from] GwbridgeError),
}

#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    #[error("cannot {step}")]
    Step {
        step: String,
        #[source]
        source: io::Error,
    },
    #[error("nft refused the rules of the routing mesh: {message}")]
    Nft { message: String },
}

/// What could not be taken down; everything else was.
#[derive(Debug, thiserror::Error)]
pub struct TeardownError(pub Vec<String>);

impl fmt::Display for TeardownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

fn list(subnets: &[Ipv4Net]) -> String {
    subnets.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(", ")
}
