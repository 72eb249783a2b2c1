//! Finds objects by what users type: the id, the name, or the start of an id that fits one object only.

use super::ApiError;
use crate::state::State;
use skep_model::network::Network;
use skep_model::node::Node;
use skep_model::service::Service;
use skep_model::task::Task;

pub fn network<'a>(state: &'a State, reference: &str) -> Result<&'a Network, ApiError> {
    let networks = state.networks.values();
    find("network", reference, networks.map(|n| (n.id.as_str(), n.spec.name.as_str(), n)))
}

pub fn service<'a>(state: &'a State, reference: &str) -> Result<&'a Service, ApiError> {
    let services = state.services.values();
    find("service", reference, services.map(|s| (s.id.as_str(), s.spec.name.as_str(), s)))
}

/// A node's name is its host's.
pub fn node<'a>(state: &'a State, reference: &str) -> Result<&'a Node, ApiError> {
    let nodes = state.nodes.values();
    find("node", reference, nodes.map(|n| (n.id.as_str(), n.description.hostname.as_str(), n)))
}

pub fn task<'a>(state: &'a State, reference: &str) -> Result<&'a Task, ApiError> {
    find("task", reference, state.tasks.values().map(|t| (t.id.as_str(), "", t)))
}

fn find<'a, T>(
    kind: &str,
    reference: &str,
    objects: impl Iterator<Item = (&'a str, &'a str, &'a T)> + Clone,
) -> Result<&'a T, ApiError> {
    let unknown = || ApiError::NotFound(format!("{kind} {reference} not found"));
    if reference.is_empty() {
        return Err(unknown());
    }
    if let Some((_, _, object)) = objects.clone().find(|(id, _, _)| *id == reference) {
        return Ok(object);
    }
    let named: Vec<&T> = objects.clone().filter(|o| o.1 == reference).map(|o| o.2).collect();
    let candidates: Vec<&T> = match named.is_empty() {
        true => objects.filter(|o| o.0.starts_with(reference)).map(|o| o.2).collect(),
        false => named,
    };
    match candidates[..] {
        [] => Err(unknown()),
        [object] => Ok(object),
        _ => {
            let found = candidates.len();
            let text = format!("{kind} {reference} is ambiguous ({found} matches found): give the id of one");
            Err(ApiError::BadRequest(text))
        }
    }
}
