//! Becoming a member: the root certificate for everybody, a leaf for those who show a join token.

use super::ManagerCore;
use super::join_rate::PER_SECOND;
use super::reports::{KeyTaken, free_key};
use crate::ca::{CaError, Subject};
use crate::db::UpdateError;
use crate::state::{Change, State};
use hyper::StatusCode;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use skep_model::NodeId;
use skep_model::cluster::{Cluster, Meta};
use skep_model::join::{JoinRequest, JoinResponse};
use skep_model::node::{
    Availability, Node, NodeDescription, NodeInternals, NodeSpec, NodeState, NodeStatus, Role,
};
use skep_model::text::line;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// RFC 1035 §2.3.4: no host name is longer.
pub(super) const MAX_HOSTNAME_BYTES: usize = 255;

/// Nodes the cluster keeps, those that are down or left included: four times the hosts Skep is made for,
/// so that a token in the wrong hands or a script gone wild fills neither the store nor every node's
/// assignments.
const MAX_NODES: usize = 4_096;

#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The first words are Swarm's; scripts match them.
    #[error(
        "A valid join token is necessary to join this cluster: this one was rotated, or never was one; `skep swarm join-token worker` on a manager prints the present one"
    )]
    Token,
    #[error("{0} tries to join more than {PER_SECOND} times a second: wait a second and try again")]
    TooOften(IpAddr),
    #[error(
        "this is the token for managers, and a cluster with several managers isn't there yet: join with the token that `skep swarm join-token worker` prints"
    )]
    SecondManager,
    #[error("the host name is longer than 255 bytes")]
    Hostname,
    #[error(
        "this cluster has {MAX_NODES} nodes, the most it takes, those that are down or left included: join another cluster"
    )]
    Full,
    #[error(transparent)]
    KeyTaken(#[from] KeyTaken),
    #[error(transparent)]
    Request(CaError),
    #[error("the node could not be recorded: {0}")]
    Store(String),
}

impl JoinError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Token => StatusCode::FORBIDDEN,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::SecondManager => StatusCode::NOT_IMPLEMENTED,
            Self::Hostname | Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::Full | Self::KeyTaken(_) => StatusCode::CONFLICT,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Makes the sender a member. Blocks for one disk sync.
pub(crate) fn join(
    core: &ManagerCore,
    request: &JoinRequest,
    from: IpAddr,
) -> Result<JoinResponse, JoinError> {
    let role = role_of(&core.db.state(), &request.token)?;
    if request.hostname.len() > MAX_HOSTNAME_BYTES {
        return Err(JoinError::Hostname);
    }
    let id = NodeId::random();
    let subject = Subject { node: &id, role, data_path_key: Some(request.data_path_key) };
    let certificate = core.authority.sign_request(&subject, &request.csr).map_err(JoinError::Request)?;
    let hostname = line(&request.hostname, MAX_HOSTNAME_BYTES);
    let mut node = new_node(id.clone(), role, &hostname, request.availability, from, Timestamp::now());
    node.skep.certificate = certificate.clone();
    let mut joined = None;
    core.db
        .update(|state| {
            // Again, under the lock: the token may have been rotated meanwhile.
            role_of(state, &request.token)?;
            has_room(state)?;
            free_key(state, None, request.data_path_key)?;
            joined = state.cluster.clone();
            Ok(vec![Change::PutNode(Box::new(node.clone()))])
        })
        .map_err(|error| match error {
            UpdateError::Refused(refused) => refused,
            other => JoinError::Store(other.to_string()),
        })?;
    let Cluster { id: cluster_id, data_path_port, data_cipher, .. } = joined.ok_or(JoinError::Token)?;
    Ok(JoinResponse { node_id: id, cluster_id, role, certificate, data_path_port, data_cipher })
}

/// What the token allows its holder to become.
fn role_of(state: &State, token: &str) -> Result<Role, JoinError> {
    let Cluster { join_tokens, .. } = state.cluster.as_ref().ok_or(JoinError::Token)?;
    if is_secret(token, &join_tokens.manager) {
        return Err(JoinError::SecondManager);
    }
    if is_secret(token, &join_tokens.worker) {
        return Ok(Role::Worker);
    }
    Err(JoinError::Token)
}

fn has_room(state: &State) -> Result<(), JoinError> {
    if state.nodes.len() < MAX_NODES { Ok(()) } else { Err(JoinError::Full) }
}

/// Compares digests, so that the time it takes says nothing of how much of the secret was right.
fn is_secret(shown: &str, secret: &str) -> bool {
    !secret.is_empty() && Sha256::digest(shown.trim()) == Sha256::digest(secret)
}

/// A member that has not connected yet.
pub(crate) fn new_node(
    id: NodeId,
    role: Role,
    hostname: &str,
    availability: Availability,
    addr: IpAddr,
    now: Timestamp,
) -> Node {
    Node {
        id,
        meta: Meta::new(now),
        spec: NodeSpec {
            name: None,
            labels: BTreeMap::new(),
            role,
            availability,
            extra: serde_json::Map::new(),
        },
        description: NodeDescription { hostname: hostname.to_owned(), ..NodeDescription::default() },
        status: NodeStatus { state: NodeState::Unknown, message: String::new(), addr: addr.to_string() },
        manager_status: None,
        skep: NodeInternals::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_full_cluster_takes_no_further_node() {
        let mut state = State::default();
        let put = |number: usize| {
            let id = NodeId::from(number.to_string().as_str());
            let addr = Ipv4Addr::LOCALHOST.into();
            let node =
                new_node(id, Role::Worker, "worker", Availability::Active, addr, Timestamp::UNIX_EPOCH);
            Change::PutNode(Box::new(node))
        };
        state.apply(1, (1..MAX_NODES).map(put));
        assert!(has_room(&state).is_ok());
        state.apply(2, [put(MAX_NODES)]);
        assert!(matches!(has_room(&state), Err(JoinError::Full)));
    }
}
