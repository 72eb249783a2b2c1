//! What nodes report, as changes of the state. Pure.

#[cfg(test)]
mod tests;

use super::join::MAX_HOSTNAME_BYTES;
use crate::state::{Change, State};
use jiff::Timestamp;
use skep_model::data_path::{CertificateKeyError, DataPathKey};
use skep_model::node::{Node, NodeDescription, NodeState, NodeStatus, PortConflict};
use skep_model::session::{Hello, TaskReport};
use skep_model::task::{Task, TaskState, TaskStatus};
use skep_model::text::line;
use skep_model::{NodeId, TaskId};
use std::net::IpAddr;

/// Longest `message` and `err` of a status that is stored: a line for people, not a log.
const MAX_TEXT_BYTES: usize = 1024;
/// A platform, a version.
const MAX_WORD_BYTES: usize = 64;
/// Routed subnets and port conflicts stored per node. A host with a full routing table still gives the
/// allocator enough to keep clear of.
const MAX_LISTED: usize = 1024;

const HEARTBEAT_FAILURE: &str = "heartbeat failure";
const LEFT: &str = "the node left the cluster";
const RESTARTED: &str = "the daemon restarted";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node was removed from the cluster: run `skep swarm leave` on it, then join again")]
pub(crate) struct NodeRemoved;

/// A certificate that peers could not know its node by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node's certificate is not taken: {0}; run `skep swarm leave --force` on the node, then join again"
)]
pub(crate) struct NoKey(pub(crate) CertificateKeyError);

/// Two nodes with one key would be one to their peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node's data-path key is that of node {other} already: run `skep swarm leave --force` on this node, then join again, which makes a key of its own"
)]
pub(crate) struct KeyTaken {
    other: NodeId,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloRefused {
    #[error(transparent)]
    Removed(#[from] NodeRemoved),
    #[error(transparent)]
    KeyTaken(#[from] KeyTaken),
}

/// Where a Hello comes from, and the key that the certificate shown there binds to the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) addr: IpAddr,
    pub(crate) data_path_key: DataPathKey,
}

/// A node has connected.
pub(crate) fn connected(
    state: &State,
    node: &NodeId,
    hello: &Hello,
    origin: Origin,
    now: Timestamp,
) -> Result<Vec<Change>, HelloRefused> {
    let known = state.nodes.get(node).ok_or(NodeRemoved)?;
    free_key(state, Some(node), origin.data_path_key)?;
    let mut changes: Vec<_> = not_held(state, node, hello, now).collect();
    let mut updated = known.clone();
    updated.description = presentable(&hello.description);
    let addr = origin.addr.to_string();
    updated.status = NodeStatus { state: NodeState::Ready, message: String::new(), addr };
    updated.skep.data_path_addr = Some(hello.data_path_addr);
    updated.skep.data_path_key = Some(origin.data_path_key);
    updated.skep.routed = hello.routed.iter().take(MAX_LISTED).copied().collect();
    changes.extend(put_node(known, updated, now));
    Ok(changes)
}

/// Whether no node but `node` has the key. One that is down counts: it stays a peer until it is removed.
pub(crate) fn free_key(state: &State, node: Option<&NodeId>, key: DataPathKey) -> Result<(), KeyTaken> {
    let mut others = state.nodes.values().filter(|other| Some(&other.id) != node);
    match others.find(|other| other.skep.data_path_key == Some(key)) {
        Some(other) => Err(KeyTaken { other: other.id.clone() }),
        None => Ok(()),
    }
}

/// What the store says the node runs and the node doesn't: tasks that ended with its daemon, and
/// attachments that were given up meanwhile.
fn not_held<'a>(
    state: &'a State,
    node: &'a NodeId,
    hello: &'a Hello,
    now: Timestamp,
) -> impl Iterator<Item = Change> + 'a {
    tasks_on(state, node).filter(|task| task.is_live()).filter_map(move |task| {
        if task.is_attachment() {
            return (!hello.attachments.contains(&task.id)).then(|| Change::DeleteTask(task.id.clone()));
        }
        // Before `Starting` there is nothing that could have been lost: the node starts it on sight.
        let lost = task.status.state >= TaskState::Starting && !hello.running.contains(&task.id);
        lost.then(|| ended(task, RESTARTED, now))
    })
}

/// The end of a task nobody can report any more: failed if it was wanted, else shut down.
fn ended(task: &Task, why: &str, now: Timestamp) -> Change {
    let mut task = task.clone();
    let (state, err) = match task.is_wanted() {
        true => (TaskState::Failed, why.to_owned()),
        false => (TaskState::Shutdown, String::new()),
    };
    let container_status = task.status.container_status.take();
    task.status = TaskStatus { timestamp: now, state, message: why.to_owned(), err, container_status };
    task.meta.updated_at = now;
    Change::PutTask(Box::new(task))
}

/// Statuses of the node's own tasks. A status that would move a task backward is a repeated or late
/// report and changes nothing.
pub(crate) fn statuses(state: &State, node: &NodeId, reports: &[TaskReport], now: Timestamp) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut seen: Vec<&TaskId> = Vec::new();
    // The last report of a task is its furthest.
    for report in reports.iter().rev().filter(|report| is_nodes_to_say(report.status.state)) {
        let Some(task) = state.tasks.get(&report.task).filter(|task| task.node_id == *node) else { continue };
        if task.is_attachment() || seen.contains(&&report.task) || !moves_forward(task, &report.status) {
            continue;
        }
        seen.push(&report.task);
        let mut task = task.clone();
        let known = std::mem::replace(&mut task.status, bounded(&report.status));
        if !task.is_wanted() && task.status.err.is_empty() {
            // Why the task had to go is the manager's to say.
            task.status.err = known.err;
        }
        task.meta.updated_at = now;
        changes.push(Change::PutTask(Box::new(task)));
    }
    changes.reverse();
    changes
}

/// The states before `Accepted` and after `Rejected` are the manager's own words.
fn is_nodes_to_say(state: TaskState) -> bool {
    (TaskState::Accepted..=TaskState::Rejected).contains(&state)
}

/// A terminal state is final; a live one may be reported again with more detail.
fn moves_forward(task: &Task, status: &TaskStatus) -> bool {
    let known = &task.status;
    task.is_live()
        && (status.state > known.state
            || (status.state == known.state
                && status.timestamp > known.timestamp
                && bounded(status) != *known))
}

fn bounded(status: &TaskStatus) -> TaskStatus {
    let mut status = status.clone();
    truncate(&mut status.message);
    truncate(&mut status.err);
    status
}

fn truncate(text: &mut String) {
    *text = line(text, MAX_TEXT_BYTES).into_owned();
}

/// What a node says of itself is in everybody's tables.
fn presentable(said: &NodeDescription) -> NodeDescription {
    let mut description = said.clone();
    let NodeDescription { hostname, platform, engine, .. } = &mut description;
    for text in [&mut platform.architecture, &mut platform.os, &mut engine.engine_version] {
        *text = line(text, MAX_WORD_BYTES).into_owned();
    }
    *hostname = line(hostname, MAX_HOSTNAME_BYTES).into_owned();
    description
}

/// Nothing was heard of the node for the whole grace.
pub(crate) fn unheard(state: &State, node: &NodeId, now: Timestamp) -> Vec<Change> {
    set_state(state, node, NodeState::Down, HEARTBEAT_FAILURE, now)
}

/// The connection has ended. The node may be back before its grace ends, and its tasks run on.
pub(crate) fn disconnected(state: &State, node: &NodeId, now: Timestamp) -> Vec<Change> {
    match state.nodes.get(node).map(|node| node.status.state) {
        Some(NodeState::Ready) => set_state(state, node, NodeState::Disconnected, "connection lost", now),
        _ => Vec::new(),
    }
}

/// The node has left on its own: nothing of it runs any more.
pub(crate) fn left(state: &State, node: &NodeId, now: Timestamp) -> Vec<Change> {
    let mut changes = set_state(state, node, NodeState::Down, LEFT, now);
    changes.extend(tasks_on(state, node).filter(|task| task.is_live()).map(|task| {
        if task.is_attachment() { Change::DeleteTask(task.id.clone()) } else { ended(task, LEFT, now) }
    }));
    changes
}

pub(crate) fn port_conflicts(
    state: &State,
    node: &NodeId,
    conflicts: &[PortConflict],
    now: Timestamp,
) -> Vec<Change> {
    let Some(known) = state.nodes.get(node) else { return Vec::new() };
    let mut updated = known.clone();
    updated.skep.port_conflicts = conflicts.iter().take(MAX_LISTED).cloned().collect();
    for conflict in &mut updated.skep.port_conflicts {
        truncate(&mut conflict.holder);
    }
    put_node(known, updated, now).into_iter().collect()
}

/// The node gives up an attachment of its own.
pub(crate) fn detached(state: &State, node: &NodeId, task: &TaskId) -> Vec<Change> {
    let attachment = tasks_on(state, node).find(|known| known.id == *task && known.is_attachment());
    attachment.map(|task| Change::DeleteTask(task.id.clone())).into_iter().collect()
}

fn set_state(state: &State, node: &NodeId, to: NodeState, message: &str, now: Timestamp) -> Vec<Change> {
    let Some(known) = state.nodes.get(node) else { return Vec::new() };
    let mut updated = known.clone();
    updated.status.state = to;
    updated.status.message = message.to_owned();
    put_node(known, updated, now).into_iter().collect()
}

fn put_node(known: &Node, mut updated: Node, now: Timestamp) -> Option<Change> {
    if *known == updated {
        return None;
    }
    updated.meta.updated_at = now;
    Some(Change::PutNode(Box::new(updated)))
}

fn tasks_on<'a>(state: &'a State, node: &'a NodeId) -> impl Iterator<Item = &'a Task> {
    state.tasks.values().filter(move |task| task.node_id == *node)
}
