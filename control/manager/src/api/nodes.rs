//! Changing and removing nodes.

use super::{ApiError, lookup, service_spec, unsupported};
use crate::db::Db;
use crate::draft::Draft;
use crate::state::{Change, State};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use skep_model::node::{Availability, NodeSpec, NodeState, Role};
use std::collections::BTreeMap;

/// As long as a host name may be (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 255;

/// The body of `POST /nodes/{id}/update`: the whole spec, as it was read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateNode {
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    role: String,
    availability: String,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl UpdateNode {
    /// The texts are Docker's where it has any.
    pub(super) fn read(self) -> Result<NodeSpec, ApiError> {
        if let Some((field, _)) = self.extra.iter().find(|(_, value)| !unsupported::asks_nothing(value)) {
            return Err(ApiError::BadRequest(format!(
                "a node has no {field}: its spec is Name, Labels, Role and Availability"
            )));
        }
        let role = match self.role.to_ascii_lowercase().as_str() {
            "worker" => Role::Worker,
            "manager" => Role::Manager,
            _ => return Err(invalid("Role", &self.role, "worker and manager")),
        };
        let availability = match self.availability.to_ascii_lowercase().as_str() {
            "active" => Availability::Active,
            "pause" => Availability::Pause,
            "drain" => Availability::Drain,
            _ => return Err(invalid("Availability", &self.availability, "active, pause and drain")),
        };
        let labels = self.labels.unwrap_or_default();
        service_spec::check_labels(&labels)?;
        if labels.contains_key("") {
            return Err(ApiError::invalid("a label needs a name: KEY or KEY=VALUE"));
        }
        let name = self.name.filter(|name| !name.is_empty());
        if name.as_ref().is_some_and(|name| name.len() > MAX_NAME_BYTES) {
            return Err(ApiError::invalid(format!("a node's name has {MAX_NAME_BYTES} bytes at most")));
        }
        Ok(NodeSpec { name, labels, role, availability, extra: Map::new() })
    }
}

fn invalid(field: &str, value: &str, known: &str) -> ApiError {
    ApiError::BadRequest(format!("invalid {field}: \"{value}\" (there are {known})"))
}

/// Changes the labels and the availability of a node that is at `version` (its `Version.Index`).
pub fn update(db: &Db, reference: &str, version: u64, spec: UpdateNode) -> Result<(), ApiError> {
    let spec = spec.read()?;
    db.update(|state| plan_update(state, reference, version, &spec, Timestamp::now()))?;
    Ok(())
}

/// Removes a node. Its tasks are made anew elsewhere, and it is no member from this moment on. One that may
/// still run has to be removed by `force`.
pub fn remove(db: &Db, reference: &str, force: bool) -> Result<(), ApiError> {
    db.update(|state| plan_remove(state, reference, force))?;
    Ok(())
}

pub(crate) fn plan_update(
    state: &State,
    reference: &str,
    version: u64,
    spec: &NodeSpec,
    now: Timestamp,
) -> Result<Vec<Change>, ApiError> {
    let mut node = lookup::node(state, reference)?.clone();
    if node.meta.version.index != version {
        return Err(ApiError::OutOfSequence);
    }
    match (node.spec.role, spec.role) {
        (Role::Worker, Role::Manager) => {
            return Err(ApiError::unimplemented(
                "a cluster with several managers is not supported in this release: \
                 the node stays a worker",
            ));
        }
        (Role::Manager, Role::Worker) => {
            let text = "attempting to demote the last manager of the swarm";
            return Err(ApiError::FailedPrecondition(text.to_owned()));
        }
        (Role::Worker, Role::Worker) | (Role::Manager, Role::Manager) => {}
    }
    node.spec = spec.clone();
    let mut draft = Draft::new(state, now);
    draft.put_node(node);
    Ok(draft.into_changes())
}

/// The texts are Swarm's.
pub(crate) fn plan_remove(state: &State, reference: &str, force: bool) -> Result<Vec<Change>, ApiError> {
    let node = lookup::node(state, reference)?;
    let id = &node.id;
    if node.spec.role == Role::Manager {
        return Err(ApiError::FailedPrecondition(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        )));
    }
    // One that lost its connection runs its tasks on and may be back within the second.
    let may_run = matches!(node.status.state, NodeState::Ready | NodeState::Disconnected);
    if may_run && !force {
        return Err(ApiError::FailedPrecondition(format!("node {id} is not down and can't be removed")));
    }
    Ok(vec![Change::DeleteNode(id.clone())])
}

#[cfg(test)]
mod tests;
