//! Which of the tasks that are to stop may: those that no node sends new connections to any more. Pure: state,
//! acknowledgements and time in, who is drained out.
//!
//! A task that is no longer wanted leaves names and backends with the next assignments of every node. It gets
//! its stop signal when all nodes that can be reached have that in place, or after [`DRAIN_LIMIT`]: one node
//! that does not answer holds up nobody for longer. Once drained, a task stays drained.

#[cfg(test)]
mod tests;

use crate::state::State;
use skep_model::assign::{Assignment, Key};
use skep_model::node::{Node, NodeState};
use skep_model::task::{Task, TaskState};
use skep_model::{NodeId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a node that does not acknowledge is waited for.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Bounded by the cluster's nodes and tasks. Kept in memory alone: after a restart the nodes are asked again.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    /// The newest state looked at.
    revision: Option<u64>,
    awaited: BTreeSet<NodeId>,
    /// The newest revision each node has in place.
    covered: BTreeMap<NodeId, u64>,
    tasks: BTreeMap<TaskId, Drain>,
}

#[derive(Debug)]
struct Drain {
    /// Nodes that have this revision in place send the task nothing new.
    revision: u64,
    until: Instant,
    is_drained: bool,
}

impl Drains {
    /// Takes the state in; an older one than the last changes nothing. Returns whether a task became drained.
    pub(crate) fn observe(&mut self, state: &State, now: Instant) -> bool {
        if self.revision.is_some_and(|known| state.revision <= known) {
            return false;
        }
        self.revision = Some(state.revision);
        self.awaited = state.nodes.values().filter(|node| is_awaited(node)).map(|n| n.id.clone()).collect();
        self.covered.retain(|node, _| state.nodes.contains_key(node));
        self.tasks.retain(|id, _| state.tasks.get(id).is_some_and(is_ending));
        for task in state.tasks.values().filter(|task| is_ending(task)) {
            self.tasks.entry(task.id.clone()).or_insert_with(|| Drain {
                revision: state.revision,
                until: now + DRAIN_LIMIT,
                // Nobody was ever sent to a task that was not known to run.
                is_drained: task.status.state < TaskState::Running,
            });
        }
        self.judge(now)
    }

    /// A session of the node begins: what the node has in place is still to be said.
    pub(crate) fn begins(&mut self, node: &NodeId) {
        self.covered.remove(node);
    }

    /// The node has `revision` in place. Returns whether a task became drained.
    pub(crate) fn covers(&mut self, node: &NodeId, revision: u64, now: Instant) -> bool {
        let covered = self.covered.entry(node.clone()).or_default();
        *covered = revision.max(*covered);
        self.judge(now)
    }

    /// Time has passed. Returns whether a task became drained.
    pub(crate) fn judge(&mut self, now: Instant) -> bool {
        let Self { awaited, covered, tasks, .. } = self;
        let slowest = awaited.iter().map(|node| covered.get(node).copied().unwrap_or(0)).min();
        let mut changed = false;
        for drain in tasks.values_mut().filter(|drain| !drain.is_drained) {
            let is_acknowledged = slowest.is_none_or(|slowest| slowest >= drain.revision);
            drain.is_drained = is_acknowledged || now >= drain.until;
            changed |= drain.is_drained;
        }
        changed
    }

    /// When to ask [`Self::judge`] again; None: nothing waits.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.tasks.values().filter(|drain| !drain.is_drained).map(|drain| drain.until).min()
    }

    pub(crate) fn is_drained(&self, task: &TaskId) -> bool {
        self.tasks.get(task).is_some_and(|drain| drain.is_drained)
    }

    /// Says in a node's assignments which of its tasks may be stopped.
    pub(crate) fn mark(&self, assignments: &mut BTreeMap<Key, Assignment>) {
        for assignment in assignments.values_mut() {
            if let Assignment::Task(task) = assignment {
                task.drained = self.is_drained(&task.id);
            }
        }
    }

    /// Whether a node that was sent `assignments` has to hear of a drained task.
    pub(crate) fn has_news_for(&self, assignments: &BTreeMap<Key, Assignment>) -> bool {
        assignments.values().any(
            |assignment| matches!(assignment, Assignment::Task(task) if !task.drained && self.is_drained(&task.id)),
        )
    }
}

/// A node that never connected has no names or backends; one that is down is out of reach, and so are its
/// clients.
fn is_awaited(node: &Node) -> bool {
    !matches!(node.status.state, NodeState::Down | NodeState::Unknown)
}

fn is_ending(task: &Task) -> bool {
    task.is_live() && !task.is_wanted()
}
