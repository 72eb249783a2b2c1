//! Global services: one task on every node that takes tasks and meets the constraints.

use super::restart;
use super::{Action, Eviction, Place, takes_tasks};
use crate::placement::Placement;
use crate::state::State;
use jiff::Timestamp;
use skep_model::NodeId;
use skep_model::service::Service;
use skep_model::task::{Task, TaskState};
use std::collections::BTreeMap;

/// Replaces wanted tasks that ended, and stops those whose node has to be left: a global service has no
/// place elsewhere.
pub(super) fn replacements(state: &State, service: &Service, tasks: &[&Task], now: Timestamp) -> Vec<Action> {
    let placement = Placement::of_or_nowhere(&service.spec.task_template);
    let mut actions = Vec::new();
    for (node, tasks) in nodes(tasks) {
        let mut wanted: Vec<&Task> = tasks.iter().copied().filter(|task| task.is_wanted()).collect();
        let Some(current) = wanted.pop() else { continue };
        actions.extend(wanted.iter().map(|task| Action::ShutDown(task.id.clone())));
        match (current.is_live(), Eviction::of(state, current, &placement)) {
            (true, None) => {}
            (true, Some(eviction)) => actions.push(eviction.action(current)),
            (false, eviction) => {
                actions.push(Action::ShutDown(current.id.clone()));
                let place = |time| Place {
                    service: service.id.clone(),
                    slot: 0,
                    node: Some(node.clone()),
                    not_before: Some(time),
                };
                let time = restart::successor(&service.spec.task_template, &tasks, current, now);
                actions.extend(time.filter(|_| eviction.is_none()).map(|time| Action::Create(place(time))));
            }
        }
    }
    actions
}

/// A task for every node that may have one and has none.
pub(super) fn numbers(state: &State, service: &Service, tasks: &[&Task]) -> Vec<Action> {
    let served = nodes(tasks);
    let placement = Placement::of_or_nowhere(&service.spec.task_template);
    let open = state.nodes.values().filter(|node| takes_tasks(node) && placement.allows(node));
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
