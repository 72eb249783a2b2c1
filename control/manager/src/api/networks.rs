//! Creating and removing networks.

use super::{ApiError, CreateNetwork, lookup, services};
use crate::allocator;
use crate::db::Db;
use crate::draft::Draft;
use crate::state::{Change, State};
use jiff::Timestamp;
use skep_model::NetworkId;
use skep_model::cluster::Meta;
use skep_model::network::{INGRESS, Network, NetworkSpec};
use skep_model::task::Task;

/// Networks every Docker host has; scripts expect to find these names taken.
const PREDEFINED: [&str; 5] = ["bridge", "docker_gwbridge", "host", INGRESS, "none"];
/// Bounds what every run of the control loop looks at.
const MAX_NETWORKS: usize = 10_000;

/// Creates an overlay network and gives it its VNI and subnet.
pub fn create(db: &Db, request: CreateNetwork) -> Result<NetworkId, ApiError> {
    let spec = request.read()?;
    let id = NetworkId::random();
    db.update(|state| plan_create(state, &id, &spec, Timestamp::now()))?;
    Ok(id)
}

/// Removes a network nobody uses.
pub fn remove(db: &Db, reference: &str) -> Result<(), ApiError> {
    db.update(|state| plan_remove(state, reference))?;
    Ok(())
}

pub(crate) fn plan_create(
    state: &State,
    id: &NetworkId,
    spec: &NetworkSpec,
    now: Timestamp,
) -> Result<Vec<Change>, ApiError> {
    let name = &spec.name;
    let taken = |network: &Network| network.spec.name.eq_ignore_ascii_case(name);
    if PREDEFINED.contains(&name.as_str()) || state.networks.values().any(taken) {
        return Err(ApiError::Conflict(format!("network with name {name} already exists")));
    }
    if state.networks.len() >= MAX_NETWORKS {
        let text = format!("the cluster has {MAX_NETWORKS} networks, the most there may be");
        return Err(ApiError::FailedPrecondition(text));
    }
    let mut draft = Draft::new(state, now);
    let (id, spec) = (id.clone(), spec.clone());
    draft.put_network(Network { id: id.clone(), meta: Meta::new(now), spec, allocation: None });
    match allocator::allocate_networks(&mut draft).remove(&id) {
        Some(error) => Err(ApiError::invalid(error.to_string())),
        None => Ok(draft.into_changes()),
    }
}

pub(crate) fn plan_remove(state: &State, reference: &str) -> Result<Vec<Change>, ApiError> {
    let network = lookup::network(state, reference)?;
    if network.spec.ingress {
        return Err(ApiError::unimplemented(
            "the ingress network cannot be removed in this release: published ports live on it",
        ));
    }
    let id = &network.id;
    let in_use = |by: String| Err(ApiError::FailedPrecondition(format!("network {id} is in use by {by}")));
    if let Some(service) = services::using(state, id).next() {
        return in_use(format!("service {}", service.id));
    }
    let on_it = |task: &&Task| {
        task.is_wanted()
            && task.is_live()
            && task.attachments.iter().any(|attachment| attachment.network == *id)
    };
    match state.tasks.values().find(on_it) {
        Some(task) => in_use(format!("task {}", task.id)),
        None => Ok(vec![Change::DeleteNetwork(id.clone())]),
    }
}
