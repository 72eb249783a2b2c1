//! Which nodes are connected, and how to reach their sessions.

use skep_model::session::{LogLine, ReadLogs};
use skep_model::{NodeId, TaskId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Commands are log requests, which people make; a session that is this far behind is stuck.
const COMMAND_CAPACITY: usize = 64;

/// What other parts of the manager ask of a session.
#[derive(Debug)]
pub(crate) enum Command {
    ReadLogs { request: ReadLogs, to: LogQueue },
    StopLogs { request: u64 },
}

/// Where the parts of one task's log wait for whoever asked for them.
#[derive(Debug)]
pub(crate) struct LogQueue {
    pub(crate) parts: mpsc::Sender<LogPart>,
    /// A permit a byte, for all the tasks that are read together.
    pub(crate) room: Arc<Semaphore>,
}

/// A piece of one task's log.
#[derive(Debug)]
pub(crate) enum LogPart {
    Lines {
        lines: Vec<LogLine>,
        /// Given back when the lines have gone on.
        room: OwnedSemaphorePermit,
    },
    /// The last part; without it the connection was lost.
    End { error: Option<String> },
}

/// At most one session per node: a newer one replaces the older, whose end nobody may have noticed.
#[derive(Default)]
pub(crate) struct Sessions {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_node: BTreeMap<NodeId, Handle>,
    next_generation: u64,
    next_log_request: u64,
}

struct Handle {
    generation: u64,
    commands: mpsc::Sender<Command>,
}

/// What a session holds of its registration.
pub(crate) struct Registered {
    pub(crate) generation: u64,
    /// Ends when a newer session replaced this one, or the manager closed it.
    pub(crate) commands: mpsc::Receiver<Command>,
}

impl Sessions {
    pub(crate) fn register(&self, node: &NodeId) -> Registered {
        let (sender, commands) = mpsc::channel(COMMAND_CAPACITY);
        let mut table = self.lock();
        table.next_generation += 1;
        let generation = table.next_generation;
        table.by_node.insert(node.clone(), Handle { generation, commands: sender });
        Registered { generation, commands }
    }

    /// Ends the registration unless it was replaced; true if the node is left without a session by it.
    pub(crate) fn unregister(&self, node: &NodeId, generation: u64) -> bool {
        let mut table = self.lock();
        let current = table.by_node.get(node).is_some_and(|handle| handle.generation == generation);
        if current {
            table.by_node.remove(node);
        }
        current
    }

    /// Closes the node's session, if it has one.
    pub(crate) fn close(&self, node: &NodeId) {
        self.lock().by_node.remove(node);
    }

    /// Whether no newer session of the node has begun.
    pub(crate) fn is_current(&self, node: &NodeId, generation: u64) -> bool {
        self.lock().by_node.get(node).is_some_and(|handle| handle.generation == generation)
    }

    pub(crate) fn is_connected(&self, node: &NodeId) -> bool {
        self.lock().by_node.contains_key(node)
    }

    /// The way to the node's session; None while it is not connected.
    pub(crate) fn commands(&self, node: &NodeId) -> Option<mpsc::Sender<Command>> {
        self.lock().by_node.get(node).map(|handle| handle.commands.clone())
    }

    /// A request for `task`'s log with a number of its own.
    pub(crate) fn log_request(&self, task: TaskId) -> ReadLogs {
        let mut table = self.lock();
        table.next_log_request += 1;
        ReadLogs { request: table.next_log_request, task, follow: false, tail: None, since: None }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic cannot leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_session_ends_the_older_whose_end_then_changes_nothing() {
        let (sessions, node) = (Sessions::default(), NodeId::from("a"));
        let mut older = sessions.register(&node);
        let newer = sessions.register(&node);
        assert!(matches!(older.commands.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert!(
            sessions.is_current(&node, newer.generation) && !sessions.is_current(&node, older.generation)
        );
        assert!(!sessions.unregister(&node, older.generation));
        assert!(sessions.is_connected(&node));
        assert!(sessions.unregister(&node, newer.generation));
        assert!(!sessions.is_connected(&node));
    }
}
