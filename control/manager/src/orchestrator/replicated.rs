//! Replicated services: `n` slots, each served by one task at a time.

use super::restart;
use super::{Action, Eviction, Place};
use crate::placement::Placement;
use crate::state::State;
use jiff::Timestamp;
use skep_model::NodeId;
use skep_model::service::Service;
use skep_model::task::{Task, TaskState};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Replaces wanted tasks that ended or have to leave their node. An evicted task's successor starts at
/// once, a failed one's after the restart delay.
pub(super) fn replacements(state: &State, service: &Service, tasks: &[&Task], now: Timestamp) -> Vec<Action> {
    let placement = Placement::of_or_nowhere(&service.spec.task_template);
    let mut actions = Vec::new();
    for (slot, tasks) in slots(tasks) {
        let mut wanted: Vec<&Task> = tasks.iter().copied().filter(|task| task.is_wanted()).collect();
        let Some(current) = wanted.pop() else { continue };
        // One task serves a slot: whatever else is wanted there is superseded.
        actions.extend(wanted.iter().map(|task| Action::ShutDown(task.id.clone())));
        let place = |not_before| Place { service: service.id.clone(), slot, node: None, not_before };
        if !current.is_live() {
            let time = restart::successor(&service.spec.task_template, &tasks, current, now);
            actions.push(Action::ShutDown(current.id.clone()));
            actions.extend(time.map(|time| Action::Create(place(Some(time)))));
        } else if let Some(eviction) = Eviction::of(state, current, &placement) {
            actions.push(eviction.action(current));
            actions.push(Action::Create(place(None)));
        }
    }
    actions
}

/// Fills missing slots and takes away superfluous ones.
pub(super) fn numbers(service: &Service, tasks: &[&Task]) -> Vec<Action> {
    let slots: BTreeMap<u64, Vec<&Task>> = slots(tasks)
        .into_iter()
        .filter(|(_, tasks)| restart::is_filled(&service.spec.task_template, tasks))
        .collect();
    let wanted = usize::try_from(service.spec.mode.replicas()).unwrap_or(usize::MAX);
    if slots.len() >= wanted {
        return removal_order(&slots)
            .into_iter()
            .take(slots.len() - wanted)
            .flat_map(|slot| &slots[&slot])
            .map(|task| Action::Remove(task.id.clone()))
            .collect();
    }
    let taken: BTreeSet<u64> = slots.keys().copied().collect();
    let free = (1..).filter(|slot| !taken.contains(slot)).take(wanted - slots.len());
    free.map(|slot| Action::Create(Place { service: service.id.clone(), slot, node: None, not_before: None }))
        .collect()
}

/// Tasks by slot, oldest first, without those that are being removed.
fn slots<'a>(tasks: &[&'a Task]) -> BTreeMap<u64, Vec<&'a Task>> {
    let mut slots: BTreeMap<u64, Vec<&Task>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.desired_state != TaskState::Remove) {
        slots.entry(task.slot).or_default().push(task);
    }
    slots
}

/// First those that have no node, then those that leave the nodes most loaded with this service, as
/// Swarm does; among equals tasks that do not run yet, then the highest slot.
fn removal_order<'s>(slots: &BTreeMap<u64, Vec<&'s Task>>) -> Vec<u64> {
    let mut ranked: Vec<(u64, Option<&'s Task>)> = slots
        .iter()
        .map(|(slot, tasks)| (*slot, tasks.iter().rev().copied().find(|task| task.is_wanted())))
        .collect();
    let runs = |task: Option<&Task>| task.is_some_and(|t| t.status.state == TaskState::Running);
    ranked.sort_by_key(|(slot, task)| (Reverse(runs(*task)), *slot));
    let mut copies: BTreeMap<&'s NodeId, u64> = BTreeMap::new();
    let mut nth_copy = |task: Option<&'s Task>| {
        let node = task.map(|task| &task.node_id).filter(|node| !node.as_str().is_empty());
        node.map_or(u64::MAX, |node| {
            let nth = copies.entry(node).or_default();
            *nth += 1;
            *nth
        })
    };
    let mut order: Vec<(u64, usize, u64)> =
        ranked.iter().enumerate().map(|(rank, (slot, task))| (nth_copy(*task), rank, *slot)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    order.into_iter().map(|(_, _, slot)| slot).collect()
}
