//! Endpoints for what a node runs itself: `skep attach`, `skep run`, containers of the host's engine.
//! An attachment is a task without a service; its node answers for the process.

use crate::allocator::{self, AddressError, Addresses};
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
    #[error("the node has connected anew meanwhile: try again")]
    Replaced,
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
    let mut draft = Draft::new(state, now);
    // The network may be as new as the node: the control loop has not seen it then.
    allocator::allocate_networks(&mut draft);
    let mut addresses = Addresses::of(draft.state());
    let addr = match request.addr {
        Some(addr) => addresses.take_exactly(&network.id, addr)?,
        None => addresses.take_one(&network.id)?,
    };
    let attachment = Attachment { network: network.id.clone(), addr, aliases: Vec::new() };
    let task = task(node, request, attachment, now);
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
        allocator::networks_of(&service.spec).any(|id| id == *network)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_loop::sim::{Sim, node_id, on};
    use std::net::Ipv4Addr;

    fn request(name: &str, addr: Option<&str>) -> AttachRequest {
        AttachRequest {
            request: 1,
            network: "backend".to_owned(),
            name: name.to_owned(),
            addr: addr.map(|addr| addr.parse().unwrap()),
            container: "/run/netns/x".to_owned(),
        }
    }

    fn sim() -> Sim {
        let mut sim = Sim::new(1);
        sim.network("backend", None);
        sim.service("web", |spec| spec.task_template.networks = on(&["backend"]));
        sim.run();
        sim
    }

    fn refusal(sim: &Sim, request: &AttachRequest) -> String {
        plan(&sim.state, &node_id(1), request, sim.now).unwrap_err().to_string()
    }

    #[test]
    fn an_attachment_runs_on_its_node_and_keeps_its_address() {
        let mut sim = sim();
        let (task, changes) = plan(&sim.state, &node_id(1), &request("laptop", None), sim.now).unwrap();
        sim.commit(changes);
        sim.settle();
        assert_eq!(task.name(), "laptop");
        assert_eq!((&task.node_id, task.status.state), (&node_id(1), TaskState::Running));
        assert_eq!(task.attachments[0].addr.to_string(), "10.0.1.4/24");
        assert_eq!(sim.state.tasks[&task.id].attachments, task.attachments);
        let wanted = request("", Some("10.0.1.99"));
        let (exact, changes) = plan(&sim.state, &node_id(1), &wanted, sim.now).unwrap();
        sim.commit(changes);
        assert_eq!(exact.attachments[0].addr.addr(), Ipv4Addr::new(10, 0, 1, 99));
        let (next, _) = plan(&sim.state, &node_id(1), &request("", None), sim.now).unwrap();
        assert_eq!(next.attachments[0].addr.addr(), Ipv4Addr::new(10, 0, 1, 5));
        sim.check_addresses();
    }

    #[test]
    fn what_cannot_be_attached_is_refused() {
        let mut sim = sim();
        let on = |network: &str| AttachRequest { network: network.to_owned(), ..request("a", None) };
        assert_eq!(refusal(&sim, &on("nosuch")), "network nosuch not found");
        assert!(refusal(&sim, &on("ingress")).starts_with("the ingress network cannot be attached to"));
        assert_eq!(refusal(&sim, &request("a b", None)), "name must be valid as a DNS name component");
        assert_eq!(
            refusal(&sim, &request("WEB", None)),
            "name WEB is taken on network backend by service service-web: choose another"
        );
        assert_eq!(refusal(&sim, &request("a", Some("10.0.1.2"))), "Address already in use: 10.0.1.2");
        for outside in ["10.0.1.1", "10.0.1.0", "10.0.1.255", "10.0.2.7"] {
            let text = refusal(&sim, &request("a", Some(outside)));
            assert!(text.starts_with("Requested address is out of range: "), "{text}");
        }
        let long = AttachRequest { container: "x".repeat(4_097), ..request("a", None) };
        assert!(refusal(&sim, &long).contains("longer than 4096 bytes"));
        let stranger = plan(&sim.state, &NodeId::from("x"), &request("a", None), sim.now).unwrap_err();
        assert_eq!(stranger.to_string(), "node x not found");
        let mut closed = lookup::network(&sim.state, "backend").unwrap().clone();
        closed.spec.attachable = false;
        sim.put(Change::PutNetwork(Box::new(closed)));
        assert_eq!(refusal(&sim, &request("a", None)), "network backend not manually attachable");
    }

    #[test]
    fn a_name_is_given_once() {
        let mut sim = sim();
        let (_, changes) = plan(&sim.state, &node_id(1), &request("laptop", None), sim.now).unwrap();
        sim.commit(changes);
        assert_eq!(
            refusal(&sim, &request("Laptop", None)),
            "name Laptop is taken on network backend by an attachment of node node-1: choose another"
        );
    }

    #[test]
    fn attachments_of_a_removed_node_go_with_it() {
        let mut sim = sim();
        sim.join(2);
        sim.settle();
        let (task, changes) = plan(&sim.state, &node_id(2), &request("laptop", None), sim.now).unwrap();
        sim.commit(changes);
        sim.node(2, |node| node.status.state = skep_model::node::NodeState::Down);
        sim.settle();
        assert!(sim.state.tasks.contains_key(&task.id), "a node that is down may come back with it");
        sim.put(Change::DeleteNode(node_id(2)));
        sim.settle();
        assert!(!sim.state.tasks.contains_key(&task.id));
    }
}
