//! Forgets tasks: those meant to go once they have stopped, and history beyond its limit.

use super::restart;
use crate::draft::Draft;
use crate::state::State;
use jiff::{SignedDuration, Timestamp};
use skep_model::node::NodeState;
use skep_model::task::{Task, TaskState, TaskStatus};
use skep_model::{NodeId, ServiceId, TaskId};
use std::collections::BTreeMap;

/// Swarm's default of `TaskHistoryRetentionLimit`: tasks kept per slot, the current one included.
const HISTORY: usize = 5;
/// What a limit below zero (`unlimited`) and large ones come to: the store must stay bounded.
const MAX_HISTORY: usize = 100;
/// After this long a node that is down is not expected to come back with its tasks (Swarm's figure).
const ORPHAN_AFTER: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn run(draft: &mut Draft<'_>) {
    close_unstarted(draft);
    orphan(draft);
    forget(draft);
    trim_history(draft);
}

/// No agent was ever told of these, so that nobody else will say that they ended.
fn close_unstarted(draft: &mut Draft<'_>) {
    let never_sent = |task: &Task| !task.is_wanted() && task.status.state < TaskState::Assigned;
    for id in matching(draft.state(), never_sent) {
        end(draft, &id, TaskState::Shutdown, "shutdown before it was assigned to a node");
    }
}

/// Tasks of nodes that were removed, or are down for so long that they are given up.
fn orphan(draft: &mut Draft<'_>) {
    let now = draft.now();
    let mut given_up: Vec<TaskId> = Vec::new();
    let mut wakeups: Vec<Timestamp> = Vec::new();
    let stopping = |task: &&Task| !task.is_wanted() && task.is_live() && !task.node_id.as_str().is_empty();
    for task in draft.state().tasks.values().filter(stopping) {
        let due = match draft.state().nodes.get(&task.node_id) {
            None => now,
            Some(node) if node.status.state == NodeState::Down => {
                node.meta.updated_at.checked_add(ORPHAN_AFTER).unwrap_or(Timestamp::MAX)
            }
            Some(_) => continue,
        };
        match due <= now {
            true => given_up.push(task.id.clone()),
            false => wakeups.push(due),
        }
    }
    for id in given_up {
        end(draft, &id, TaskState::Orphaned, "the node is gone");
    }
    wakeups.into_iter().for_each(|time| draft.wake_at(time));
}

fn forget(draft: &mut Draft<'_>) {
    let state = draft.state();
    let node_lost =
        |task: &Task| !state.nodes.get(&task.node_id).is_some_and(|n| n.status.state != NodeState::Down);
    let removable = |task: &Task| match task.is_attachment() {
        true => !task.is_live() || !state.nodes.contains_key(&task.node_id),
        false => task.desired_state == TaskState::Remove && (!task.is_live() || node_lost(task)),
    };
    for id in matching(state, removable) {
        draft.delete_task(&id);
    }
}

/// Deletes the oldest ended tasks of each slot (or node, for a global service) beyond the limit. The
/// newest stays in any case: it says whether the slot is done.
fn trim_history(draft: &mut Draft<'_>) {
    let state = draft.state();
    let limit = history_limit(state);
    let mut surplus: Vec<TaskId> = Vec::new();
    for ((service, ..), mut tasks) in places(state) {
        let needed =
            state.services.get(service).map_or(0, |s| restart::history_needed(&s.spec.task_template));
        let Some(excess) = tasks.len().checked_sub(limit.max(needed)) else { continue };
        tasks.sort_by_key(|task| super::age(task));
        tasks.pop();
        let ended = tasks.iter().filter(|task| !task.is_live() && !task.is_wanted());
        surplus.extend(ended.take(excess).map(|task| task.id.clone()));
    }
    for id in surplus {
        draft.delete_task(&id);
    }
}

fn history_limit(state: &State) -> usize {
    let orchestration = state.cluster.as_ref().and_then(|cluster| cluster.spec.extra.get("Orchestration"));
    match orchestration.and_then(|o| o.get("TaskHistoryRetentionLimit")?.as_i64()) {
        None => HISTORY,
        Some(limit) => usize::try_from(limit).unwrap_or(MAX_HISTORY).clamp(1, MAX_HISTORY),
    }
}

type Place<'a> = (&'a ServiceId, u64, Option<&'a NodeId>);

fn places(state: &State) -> BTreeMap<Place<'_>, Vec<&Task>> {
    let mut places: BTreeMap<Place<'_>, Vec<&Task>> = BTreeMap::new();
    for task in state.tasks.values().filter(|task| !task.is_attachment()) {
        let node = (task.slot == 0).then_some(&task.node_id);
        places.entry((&task.service_id, task.slot, node)).or_default().push(task);
    }
    places
}

fn matching(state: &State, wanted: impl Fn(&Task) -> bool) -> Vec<TaskId> {
    state.tasks.values().filter(|task| wanted(task)).map(|task| task.id.clone()).collect()
}

fn end(draft: &mut Draft<'_>, id: &TaskId, state: TaskState, message: &str) {
    let timestamp = draft.now();
    draft.edit_task(id, |task| {
        task.status = TaskStatus { timestamp, state, message: message.to_owned(), ..task.status.clone() };
    });
}
