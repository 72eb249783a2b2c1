//! Statuses of tasks on their way to the manager. Each is sent until it was accepted, in this session or
//! the next; of a task only its latest is kept, for a later one says all the earlier did.

use skep_model::TaskId;
use skep_model::session::TaskReport;
use skep_model::task::TaskStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Bounded by the tasks of the node: at most one status each.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    pending: Mutex<Pending>,
    /// Rises with every status, and as statuses are accepted.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Pending {
    sequence: u64,
    statuses: BTreeMap<TaskId, (u64, TaskStatus)>,
}

impl Reports {
    pub(crate) fn report(&self, task: TaskId, status: TaskStatus) {
        {
            let mut pending = self.pending();
            pending.sequence += 1;
            let sequence = pending.sequence;
            pending.statuses.insert(task, (sequence, status));
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Everything not accepted yet, and the number to accept it under. None: nothing is pending.
    pub(crate) fn pending_message(&self) -> Option<(u64, Vec<TaskReport>)> {
        let pending = self.pending();
        let report = |(task, (_, status)): (&TaskId, &(u64, TaskStatus))| TaskReport {
            task: task.clone(),
            status: status.clone(),
        };
        let statuses: Vec<_> = pending.statuses.iter().map(report).collect();
        (!statuses.is_empty()).then_some((pending.sequence, statuses))
    }

    /// The manager has everything up to `sequence`.
    pub(crate) fn accepted(&self, sequence: u64) {
        self.pending().statuses.retain(|_, (number, _)| *number > sequence);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The tasks the manager hasn't heard the last of.
    pub(crate) fn pending_tasks(&self) -> BTreeSet<TaskId> {
        self.pending().statuses.keys().cloned().collect()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns when everything was accepted.
    pub(crate) async fn all_accepted(&self) {
        let mut changes = self.subscribe();
        while !self.pending().statuses.is_empty() {
            // The sender is a field of `self`, so that waiting cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// No statement of this module can panic half-way through a change.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use skep_model::task::TaskState;

    fn status(state: TaskState) -> TaskStatus {
        let (message, err) = Default::default();
        TaskStatus { timestamp: Timestamp::UNIX_EPOCH, state, message, err, container_status: None }
    }

    #[test]
    fn a_status_is_pending_until_it_was_accepted() {
        let reports = Reports::default();
        assert!(reports.pending_message().is_none());
        reports.report("t1".into(), status(TaskState::Running));
        let (sequence, statuses) = reports.pending_message().unwrap();
        assert_eq!(statuses.len(), 1);
        assert_eq!(reports.pending_message().unwrap().0, sequence, "sent again until accepted");
        reports.accepted(sequence);
        assert!(reports.pending_message().is_none());
    }

    #[test]
    fn a_late_acceptance_leaves_what_came_after_it() {
        let reports = Reports::default();
        reports.report("t1".into(), status(TaskState::Starting));
        let (first, _) = reports.pending_message().unwrap();
        reports.report("t1".into(), status(TaskState::Running));
        reports.accepted(first);
        let (_, statuses) = reports.pending_message().unwrap();
        assert_eq!(statuses[0].status.state, TaskState::Running);
    }

    #[test]
    fn only_the_latest_status_of_a_task_is_sent() {
        let reports = Reports::default();
        for state in [TaskState::Preparing, TaskState::Starting, TaskState::Running] {
            reports.report("t1".into(), status(state));
        }
        let (_, statuses) = reports.pending_message().unwrap();
        assert_eq!(statuses.iter().map(|r| r.status.state).collect::<Vec<_>>(), [TaskState::Running]);
    }
}
