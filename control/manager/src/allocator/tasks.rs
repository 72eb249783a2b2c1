//! Addresses of tasks: one per network of the service, in the order of its spec, then one on ingress.

use super::addresses::Addresses;
use super::services::{networks_of, publishes};
use crate::draft::Draft;
use crate::state::State;
use skep_model::NetworkId;
use skep_model::service::Service;
use skep_model::task::{Attachment, Task, TaskState, TaskStatus};

/// Moves every new task that can have its addresses on to `Pending`; the others say what is missing.
pub(crate) fn allocate(draft: &mut Draft<'_>) {
    let mut waiting: Vec<Task> =
        draft.state().tasks.values().filter(|task| is_waiting(task)).cloned().collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by(|a, b| key(a).cmp(&key(b)));
    let mut addresses = Addresses::of(draft.state());
    for mut task in waiting {
        match attachments_for(draft.state(), &task, &mut addresses) {
            Ok(attachments) => {
                task.attachments = attachments;
                task.status = TaskStatus {
                    timestamp: draft.now(),
                    state: TaskState::Pending,
                    message: "pending task scheduling".to_owned(),
                    err: String::new(),
                    container_status: None,
                };
            }
            Err(reason) => task.status.err = reason,
        }
        draft.put_task(task);
    }
    addresses.store(draft);
}

fn is_waiting(task: &Task) -> bool {
    task.status.state == TaskState::New && task.is_wanted()
}

fn key(task: &Task) -> (jiff::Timestamp, &str, u64, &str, &str) {
    let ids = (task.service_name.as_str(), task.node_id.as_str(), task.id.as_str());
    (task.meta.created_at, ids.0, task.slot, ids.1, ids.2)
}

fn attachments_for(state: &State, task: &Task, addresses: &mut Addresses) -> Result<Vec<Attachment>, String> {
    let Some(service) = state.services.get(&task.service_id) else {
        return Err(format!("service {} not found", task.service_id));
    };
    if !service.pending_reason.is_empty() {
        return Err(service.pending_reason.clone());
    }
    let networks = networks_with_aliases(state, service);
    let ids: Vec<NetworkId> = networks.iter().map(|(id, _)| id.clone()).collect();
    let granted = addresses.take(&ids).map_err(|error| error.to_string())?;
    let attachments = networks.into_iter().zip(granted);
    Ok(attachments.map(|((network, aliases), addr)| Attachment { network, addr, aliases }).collect())
}

fn networks_with_aliases(state: &State, service: &Service) -> Vec<(NetworkId, Vec<String>)> {
    let aliases = service.spec.task_template.networks.iter().map(|config| config.aliases.clone());
    let mut networks: Vec<_> = networks_of(&service.spec).zip(aliases).collect();
    if publishes(&service.spec) {
        networks.extend(super::ingress(state).map(|ingress| (ingress.id.clone(), Vec::new())));
    }
    networks
}
