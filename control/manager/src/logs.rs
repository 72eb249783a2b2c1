//! Task logs: asked of the agents that keep them, over their sessions, and merged into one stream.

mod merge;

use self::merge::Merge;
use crate::server::ManagerCore;
use crate::server::sessions::{Command, LogPart, LogQueue};
use crate::state::State;
use jiff::Timestamp;
use skep_model::session::{LogLine, LogStream, ReadLogs};
use skep_model::task::{Task, TaskState};
use skep_model::{NodeId, ServiceId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Lines waiting for the reader, and of each task for their turn; beyond it the parts below fill up.
const LINE_CAPACITY: usize = 256;
/// Parts (many lines each) of one task waiting for the reader. When they are full the log of that task
/// ends with a line that says so: the session they come over cannot wait.
const PART_CAPACITY: usize = 1024;
/// Bytes of all parts that wait for one reader: some 400,000 lines of usual length. A terminal that
/// was stopped with Ctrl-S must not fill the manager's memory with the longest lines there are.
const QUEUED_BYTES: usize = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Service(ServiceId),
    Task(TaskId),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with lines as they are written, and with tasks as they start.
    pub follow: bool,
    /// Only the last N lines of each task; None: all.
    pub tail: Option<usize>,
    pub since: Option<Timestamp>,
}

/// Whose line it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskLogContext {
    pub task: TaskId,
    pub node: NodeId,
    pub service: ServiceId,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Docker's texts.
    #[error("service {0} not found")]
    NoSuchService(ServiceId),
    #[error("task {0} not found")]
    NoSuchTask(TaskId),
    #[error("the manager is not running")]
    NotRunning,
}

pub type LogReceiver = mpsc::Receiver<(TaskLogContext, LogLine)>;
type LogSender = mpsc::Sender<(TaskLogContext, LogLine)>;

/// Starts to gather; ends when all is read or the receiver is dropped. Lines of one task are in order, and those
/// of several are interleaved by their times.
/// What cannot be read (its node is not connected, its file is gone) is said in a line on stderr.
pub(crate) fn read(
    core: &Arc<ManagerCore>,
    target: LogTarget,
    options: LogOptions,
) -> Result<LogReceiver, LogError> {
    let state = core.db.state();
    match &target {
        LogTarget::Service(id) if !state.services.contains_key(id) => {
            return Err(LogError::NoSuchService(id.clone()));
        }
        LogTarget::Task(id) if !state.tasks.contains_key(id) => return Err(LogError::NoSuchTask(id.clone())),
        LogTarget::Service(_) | LogTarget::Task(_) => {}
    }
    let (lines, receiver) = mpsc::channel(LINE_CAPACITY);
    tokio::spawn(gather(core.clone(), target, options, lines));
    Ok(receiver)
}

async fn gather(core: Arc<ManagerCore>, target: LogTarget, mut options: LogOptions, lines: LogSender) {
    let mut revision = core.db.watch();
    let mut begun = BTreeSet::new();
    let mut readers = JoinSet::new();
    let mut merge = Merge::default();
    let room = Arc::new(Semaphore::new(QUEUED_BYTES));
    'begin: loop {
        revision.mark_unchanged();
        let state = core.db.state();
        // Ids are not used again; of a service that fails for weeks there are many.
        begun.retain(|task| state.tasks.contains_key(task));
        for context in due(&state, &target) {
            if begun.insert(context.task.clone()) {
                let (to, from) = mpsc::channel(LINE_CAPACITY);
                merge.add(context.clone(), from);
                readers.spawn(read_task(core.clone(), context, options, room.clone(), to));
            }
        }
        // The tail of a task that starts later is all of it.
        options.tail = None;
        let grows = options.follow && may_grow(&state, &target);
        while grows || !merge.is_empty() {
            tokio::select! {
                line = merge.next(), if !merge.is_empty() => {
                    if let Some(line) = line && lines.send(line).await.is_err() {
                        break 'begin;
                    }
                }
                Some(_ended) = readers.join_next() => {}
                Ok(()) = revision.changed(), if options.follow => continue 'begin,
                () = lines.closed() => break 'begin,
                () = core.stopped() => return,
            }
        }
        return;
    }
    // They see that nobody takes their lines, and tell their nodes to stop.
    drop(merge);
    while readers.join_next().await.is_some() {}
}

/// Tasks of the target that have, or may have, written something.
fn due(state: &State, target: &LogTarget) -> Vec<TaskLogContext> {
    let wanted = |task: &&Task| match target {
        LogTarget::Service(id) => task.service_id == *id,
        LogTarget::Task(id) => task.id == *id,
    };
    let tasks = state.tasks.values().filter(wanted).filter(|task| has_started(task) && !task.is_attachment());
    tasks.map(context).collect()
}

/// A node that is asked earlier has no log of the task yet; of one that never started it never has.
fn has_started(task: &Task) -> bool {
    let status = &task.status;
    let started = status.state == TaskState::Running || status.container_status.is_some();
    started && !task.node_id.as_str().is_empty()
}

fn context(task: &Task) -> TaskLogContext {
    TaskLogContext { task: task.id.clone(), node: task.node_id.clone(), service: task.service_id.clone() }
}

/// Whether tasks may still start.
fn may_grow(state: &State, target: &LogTarget) -> bool {
    match target {
        LogTarget::Service(id) => state.services.contains_key(id),
        LogTarget::Task(id) => state.tasks.get(id).is_some_and(|task| task.is_live() && !has_started(task)),
    }
}

async fn read_task(
    core: Arc<ManagerCore>,
    context: TaskLogContext,
    options: LogOptions,
    room: Arc<Semaphore>,
    lines: mpsc::Sender<LogLine>,
) {
    let LogOptions { follow, tail, since } = options;
    let request = ReadLogs { follow, tail, since, ..core.sessions.log_request(context.task.clone()) };
    let number = request.request;
    let (to, parts) = mpsc::channel(PART_CAPACITY);
    let to = LogQueue { parts: to, room };
    let asked = match core.sessions.commands(&context.node) {
        Some(session) => session.send(Command::ReadLogs { request, to }).await.is_ok(),
        None => false,
    };
    let problem = match asked {
        true => pass_on(parts, &lines).await,
        false => Some(format!("node {} is not connected", hostname(&core, &context.node))),
    };
    if let Some(problem) = problem {
        let text = format!("skep: the log of this task is incomplete: {problem}");
        let line = LogLine { time: Timestamp::now(), stream: LogStream::Stderr, text };
        // A reader that is gone needs no explanation.
        let _ = lines.send(line).await;
    }
    if lines.is_closed()
        && let Some(session) = core.sessions.commands(&context.node)
    {
        // A session that is gone has stopped.
        let _ = session.send(Command::StopLogs { request: number }).await;
    }
}

/// Passes lines on until the log ends or the reader is gone; returns what went wrong.
async fn pass_on(mut parts: mpsc::Receiver<LogPart>, lines: &mpsc::Sender<LogLine>) -> Option<String> {
    loop {
        let part = tokio::select! {
            part = parts.recv() => part,
            () = lines.closed() => return None,
        };
        match part {
            Some(LogPart::Lines { lines: batch, room }) => {
                for line in batch {
                    lines.send(line).await.ok()?;
                }
                drop(room);
            }
            Some(LogPart::End { error }) => return error,
            None => return Some("the connection to its node was lost".to_owned()),
        }
    }
}

fn hostname(core: &ManagerCore, node: &NodeId) -> String {
    let state = core.db.state();
    state.nodes.get(node).map_or_else(|| node.to_string(), |node| node.description.hostname.clone())
}
