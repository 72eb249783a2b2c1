//! One error per action, each with what an operator needs to act on it.

use ipnet::Ipv4Net;
use std::fmt;
use std::io;
use std::path::PathBuf;

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
    #[error("cannot read the host's links, addresses and routes")]
    Netlink(#[source] io::Error),
    #[error("cannot read the host's name")]
    Hostname(#[source] io::Error),
    #[error("cannot read the host's resolvers from {path}")]
    Resolvers {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
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
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error(transparent)]
    Rules(#[from] RulesError),
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
    #[error("the egress bridge has no place left for {id}: a Linux bridge takes {limit} containers")]
    EgressFull { id: String, limit: usize },
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
    #[error(transparent)]
    Gwbridge(#[from] GwbridgeError),
    #[error("port {port}/sctp cannot be published: the routing mesh carries tcp and udp")]
    Sctp { port: u16 },
    #[error(transparent)]
    Rules(#[from] RulesError),
}

#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    #[error("the kernel refused Skep's nft table: {0}")]
    Refused(String),
}

/// What could not be taken down; everything else was.
#[derive(Debug, thiserror::Error)]
pub struct TeardownError(pub Vec<String>);

impl TeardownError {
    pub(super) fn unless_empty(errors: Vec<String>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }
}

impl fmt::Display for TeardownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

fn list(subnets: &[Ipv4Net]) -> String {
    subnets.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(", ")
}
