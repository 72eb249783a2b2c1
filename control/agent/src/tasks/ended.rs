//! Logs of tasks that ended. The manager keeps a history of tasks but doesn't say when one leaves it, so
//! the newest logs are kept.

use crate::containers::is_container_id;
use crate::executor::ProcessExecutor;
use skep_model::TaskId;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Swarm's history is 5 tasks per slot; this holds it for the 20 slots a busy node has that keep failing,
/// and at 20 MiB a log bounds what ended tasks leave on disk to 2 GiB.
const KEPT: usize = 100;

#[derive(Clone)]
pub(super) struct EndedLogs {
    executor: ProcessExecutor,
    kept: Arc<Mutex<VecDeque<TaskId>>>,
}

impl EndedLogs {
    /// With those that an earlier daemon or membership of this node has left.
    pub(super) fn new(executor: ProcessExecutor) -> Self {
        let left = executor.ended().unwrap_or_else(|error| {
            tracing::warn!(%error, "logs of earlier tasks are kept, but can't be counted");
            Vec::new()
        });
        let this = Self { executor, kept: Arc::default() };
        left.into_iter().filter(|id| !is_container_id(id)).for_each(|id| this.keep(TaskId(id)));
        this
    }

    /// Keeps the log of `task` and gives up the oldest beyond the limit.
    pub(super) fn keep(&self, task: TaskId) {
        let given_up = {
            // A queue is whole after every call.
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(task);
            if kept.len() > KEPT { kept.pop_front() } else { None }
        };
        let Some(given_up) = given_up else { return };
        let executor = self.executor.clone();
        // Nobody waits for files to be removed.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = executor.remove(given_up.as_str()) {
                tracing::warn!(task = %given_up, %error, "the log of an ended task could not be removed");
            }
        }));
    }
}
