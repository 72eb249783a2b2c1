//! Endpoints for what a node runs itself: `skep attach`, `skep run`, containers of the host's engine.
//! An attachment is a task without a service; its node answers for the process.

use crate::allocator::{AddressError, Addresses};
use crate::api::lookup;
use crate::api::names::{self, NameError};
use crate::draft::Draft;
use crate::state::{Change, State};
use jiff::Timestamp;
use skep_model::cluster::Meta;
use skep_model::network::Network;
use skep_model::service::{NetworkAttachmentConfig, NetworkAttachmentSpec, TaskSpec};
use skep_model::session::AttachRequest;
use skep_model::task::{Attachment, Task, TaskState, TaskStatus};
use skep_model::{NetworkId, NodeId, ServiceId, TaskId};

/// More endpoints than a host's kernel comfortably has interfaces; stops a runaway script.
pub const MAX_PER_NODE: usize = 4_096;
/// Longest description of what is attached: a path fits.
pub const MAX_CONTAINER_BYTES: usize = 4_096;

/// The texts of the first two are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("{0}")]
    NoSuchNetwork(String),
    #[error("network {0} not manually attachable")]
    NotAttachable(String),
    #[error("the ingress network cannot be attached to: publish a port of a service instead")]
    Ingress,
    #[error("node {0} not found")]
    NoSuchNode(NodeId),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("name {name} is taken on network {network} by {holder}: choose another")]
    NameTaken { name: String, network: String, holder: String },
    #[error("{0}")]
    Address(String),
    #[error("this node has {MAX_PER_NODE} attachments, the most there may be: detach one first")]
    TooMany,
    #[error("the description of what is attached is longer than {MAX_CONTAINER_BYTES} bytes")]
    TooLong,
}

impl From<AddressError> for AttachError {
    fn from(error: AddressError) -> Self {
        Self::Address(error.to_string())
    }
}

/// The attachment for a request of `node`, and what to write for it.
pub fn plan(
    state: &State,
    node: &NodeId,
    request: &AttachRequest,
    now: Timestamp,
) -> Result<(Task, Vec<Change>), AttachError> {
    let network = lookup::network(state, &request.network)
        .map_err(|error| AttachError::NoSuchNetwork(error.to_string()))?;
    check(state, node, network, request)?;
    let mut addresses = Addresses::of(state);
    let addr = match request.addr {
        Some(addr) => addresses.take_exactly(&network.id, addr)?,
        None => addresses.take_one(&network.id)?,
    };
    let attachment = Attachment { network: network.id.clone(), addr, aliases: Vec::new() };
    let task = task(node, request, attachment, now);
    let mut draft = Draft::new(state, now);
    draft.put_task(task.clone());
    addresses.store(&mut draft);
    Ok((task, draft.into_changes()))
}

fn of_node<'a>(state: &'a State, node: &'a NodeId) -> impl Iterator<Item = &'a Task> {
    state.tasks.values().filter(move |task| task.is_attachment() && task.node_id == *node)
}

fn check(
    state: &State,
    node: &NodeId,
    network: &Network,
    request: &AttachRequest,
) -> Result<(), AttachError> {
    if !state.nodes.contains_key(node) {
        return Err(AttachError::NoSuchNode(node.clone()));
    }
    if network.spec.ingress {
        return Err(AttachError::Ingress);
    }
    if !network.spec.attachable {
        return Err(AttachError::NotAttachable(network.spec.name.clone()));
    }
    if request.container.len() > MAX_CONTAINER_BYTES {
        return Err(AttachError::TooLong);
    }
    if of_node(state, node).count() >= MAX_PER_NODE {
        return Err(AttachError::TooMany);
    }
    if request.name.is_empty() { Ok(()) } else { check_name(state, network, &request.name) }
}

fn check_name(state: &State, network: &Network, name: &str) -> Result<(), AttachError> {
    names::check(name)?;
    match holder(state, &network.id, name) {
        Some(holder) => {
            let (name, network) = (name.to_owned(), network.spec.name.clone());
            Err(AttachError::NameTaken { name, network, holder })
        }
        None => Ok(()),
    }
}

/// Who answers to the name on the network already.
fn holder(state: &State, network: &NetworkId, name: &str) -> Option<String> {
    let mut services = state.services.values().filter(|service| {
        crate::allocator::networks_of(&service.spec).any(|id| id == *network)
            && service.spec.name.eq_ignore_ascii_case(name)
    });
    let mut attachments = state.tasks.values().filter(|task| {
        task.is_attachment()
            && task.attachments.iter().any(|attachment| attachment.network == *network)
            && task.service_name.eq_ignore_ascii_case(name)
    });
    let service = services.next().map(|service| format!("service {}", service.id));
    service.or_else(|| attachments.next().map(|task| format!("an attachment of node {}", task.node_id)))
}

fn task(node: &NodeId, request: &AttachRequest, attachment: Attachment, now: Timestamp) -> Task {
    let target = attachment.network.0.clone();
    let container_id = request.container.clone();
    Task {
        id: TaskId::random(),
        meta: Meta::new(now),
        spec: TaskSpec {
            network_attachment_spec: Some(NetworkAttachmentSpec { container_id }),
            networks: vec![NetworkAttachmentConfig { target, ..NetworkAttachmentConfig::default() }],
            ..TaskSpec::default()
        },
        service_id: ServiceId::default(),
        service_name: request.name.clone(),
        slot: 0,
        node_id: node.clone(),
        status: TaskStatus {
            timestamp: now,
            state: TaskState::Running,
            message: "attached".to_owned(),
            err: String::new(),
            container_status: None,
        },
        desired_state: TaskState::Running,
        not_before: None,
        attachments: vec![attachment],
    }
}
