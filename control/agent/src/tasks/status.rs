//! What is told of a task, in Swarm's words: scripts match them.

use super::StopReason;
use super::spec::container_id;
use crate::executor::Exit;
use jiff::Timestamp;
use skep_model::TaskId;
use skep_model::task::{ContainerStatus, TaskState, TaskStatus};

fn status(state: TaskState, message: &str, err: String, container: Option<ContainerStatus>) -> TaskStatus {
    let (timestamp, message) = (Timestamp::now(), message.to_owned());
    TaskStatus { timestamp, state, message, err, container_status: container }
}

pub(super) fn preparing() -> TaskStatus {
    status(TaskState::Preparing, "preparing", String::new(), None)
}

pub(super) fn starting() -> TaskStatus {
    status(TaskState::Starting, "starting", String::new(), None)
}

pub(super) fn running(task: &TaskId, pid: i32) -> TaskStatus {
    status(TaskState::Running, "started", String::new(), Some(container(task, pid, 0)))
}

/// This node can't run it; another may.
pub(super) fn rejected(why: String) -> TaskStatus {
    status(TaskState::Rejected, "preparing", why, None)
}

pub(super) fn not_started(why: String) -> TaskStatus {
    status(TaskState::Failed, "starting", format!("starting container failed: {why}"), None)
}

/// It ended by itself.
pub(super) fn exited(task: &TaskId, pid: i32, exit: &Exit) -> TaskStatus {
    let container = Some(container(task, pid, exit.code));
    match exit.code {
        0 => status(TaskState::Complete, "finished", String::new(), container),
        code => {
            let why = if exit.shim_lost { format!(": {exit}") } else { String::new() };
            status(TaskState::Failed, "started", format!("task: non-zero exit ({code}){why}"), container)
        }
    }
}

/// It was stopped.
pub(super) fn stopped(task: &TaskId, reason: StopReason, ended: Option<(i32, &Exit)>) -> TaskStatus {
    let container = ended.map(|(pid, exit)| container(task, pid, exit.code));
    match reason {
        StopReason::Wanted => shut_down(container),
        StopReason::DaemonStops => {
            status(TaskState::Failed, "stopped", "task: its node's daemon stopped".to_owned(), container)
        }
    }
}

pub(super) fn shut_down(container: Option<ContainerStatus>) -> TaskStatus {
    status(TaskState::Shutdown, "shutdown", String::new(), container)
}

fn container(task: &TaskId, pid: i32, exit_code: i32) -> ContainerStatus {
    ContainerStatus { container_id: container_id(task.as_str()), pid, exit_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit { code, signal: None, shim_lost: false }
    }

    #[test]
    fn a_killed_task_has_failed_with_swarms_words() {
        let status = exited(&"t1".into(), 42, &exit(137));
        assert_eq!(status.state, TaskState::Failed);
        assert_eq!(status.err, "task: non-zero exit (137)");
        assert_eq!(status.container_status.unwrap().exit_code, 137);
    }

    #[test]
    fn an_exit_code_of_zero_is_complete() {
        let status = exited(&"t1".into(), 42, &exit(0));
        assert_eq!((status.state, status.err.as_str()), (TaskState::Complete, ""));
    }

    #[test]
    fn a_task_its_manager_stopped_is_shut_down_and_one_its_daemon_took_along_has_failed() {
        let ended = exit(143);
        let wanted = stopped(&"t1".into(), StopReason::Wanted, Some((42, &ended)));
        assert_eq!((wanted.state, wanted.err.as_str()), (TaskState::Shutdown, ""));
        let taken_along = stopped(&"t1".into(), StopReason::DaemonStops, Some((42, &ended)));
        assert_eq!(taken_along.state, TaskState::Failed);
    }
}
