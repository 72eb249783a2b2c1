//! Global services: one task on every node that takes tasks.

use super::restart;
use super::{Action, Place, is_evicted, takes_tasks};
use crate::state::State;
use jiff::Timestamp;
use skep_model::NodeId;
use skep_model::service::Service;
use skep_model::task::{Task, TaskState};
use std::collections::BTreeMap;

/// Replaces wanted tasks that ended, and stops those whose node has to be left: a global service has no
/// place elsewhere.
pub(super) fn replacements(state: &State, service: &Service, tasks: &[&Task], now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    for (node, tasks) in nodes(tasks) {
        let mut wanted: Vec<&Task> = tasks.iter().copied().filter(|task| task.is_wanted()).collect();
        let Some(current) = wanted.pop() else { continue };
        actions.extend(wanted.iter().map(|task| Action::ShutDown(task.id.clone())));
        if current.is_live() && !is_evicted(state, current) {
            continue;
        }
        actions.push(Action::ShutDown(current.id.clone()));
        if !is_evicted(state, current) {
            let time = restart::successor(&service.spec.task_template, &tasks, current, now);
            actions.extend(time.map(|time| {
                let (service, node) = (service.id.clone(), Some(node.clone()));
                Action::Create(Place { service, slot: 0, node, not_before: Some(time) })
            }));
        }
    }
    actions
}

/// A task for every node that takes tasks and has none.
pub(super) fn numbers(state: &State, service: &Service, tasks: &[&Task]) -> Vec<Action> {
    let served = nodes(tasks);
    let open = state.nodes.values().filter(|node| takes_tasks(node));
    let open = open.filter(|node| {
        !served.get(&node.id).is_some_and(|tasks| restart::is_filled(&service.spec.task_template, tasks))
    });
    open.map(|node| {
        let (service, node) = (service.id.clone(), Some(node.id.clone()));
        Action::Create(Place { service, slot: 0, node, not_before: None })
    })
    .collect()
}

/// Tasks by node, oldest first, without those that are being removed.
fn nodes<'a>(tasks: &[&'a Task]) -> BTreeMap<NodeId, Vec<&'a Task>> {
    let mut nodes: BTreeMap<NodeId, Vec<&Task>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.desired_state != TaskState::Remove) {
        nodes.entry(task.node_id.clone()).or_default().push(task);
    }
    nodes
}
