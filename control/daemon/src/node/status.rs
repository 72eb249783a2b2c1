//! What a node says of itself.

use super::{Config, Node};
use ipnet::Ipv4Net;
use skep_agent::Agent;
use skep_model::NodeId;
use skep_model::node::NodeDescription;
use std::net::{Ipv4Addr, SocketAddr};

/// Docker's `LocalNodeState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalState {
    Inactive,
    Pending,
    Active,
}

impl LocalState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
        }
    }
}

impl Node {
    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn description(&self) -> NodeDescription {
        self.agent.description()
    }

    pub(crate) fn local_state(&self) -> LocalState {
        match (self.current(|current| current.member.is_some()), self.agent.status().joined) {
            (false, _) => LocalState::Inactive,
            (true, false) => LocalState::Pending,
            (true, true) => LocalState::Active,
        }
    }

    pub(crate) fn node_id(&self) -> Option<NodeId> {
        self.current(|current| current.member.as_ref().map(|member| member.credentials.node_id.clone()))
    }

    pub(crate) fn node_addr(&self) -> Option<Ipv4Addr> {
        self.current(|current| current.member.as_ref().map(|member| member.advertise))
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.current(|current| current.error.clone()).or_else(|| self.agent.status().last_error)
    }

    /// What keeps the cluster from being changed, and what of this host keeps parts of the network from working.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let trouble = self.manager().and_then(|manager| manager.db().trouble());
        trouble.map(|trouble| trouble.to_string()).into_iter().chain(self.agent.status().warnings).collect()
    }

    /// Every reason this node dropped packets for, or gave no answer to a question for a name (`dns_…`), with its
    /// count. None: it is no member.
    pub(crate) async fn drops(&self) -> Option<Vec<(String, u64)>> {
        let (stats, names) = (self.agent.stats().await?, self.agent.names()?);
        let engine = stats.engine.drops.iter().map(|(reason, count)| (reason.to_string(), *count));
        let kernel = stats.io_drops.iter().map(|(reason, count)| (reason.to_string(), *count));
        let names = names.losses().map(|(reason, count)| (format!("dns_{reason}"), count));
        Some(engine.chain(kernel).chain(names).collect())
    }

    /// The managers this node knows of; the id where it is this node's own.
    pub(crate) fn remote_managers(&self) -> Vec<(Option<NodeId>, SocketAddr)> {
        self.current(|current| {
            let Some(member) = &current.member else { return Vec::new() };
            let own = current.manager.is_some().then(|| member.credentials.node_id.clone());
            member.managers.iter().map(|addr| (own.clone(), *addr)).collect()
        })
    }

    pub(crate) fn gateway_bridge(&self) -> Option<Ipv4Net> {
        self.agent.gateway_bridge()
    }
}
