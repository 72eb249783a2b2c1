//! Logs the manager asked for: one small task per reader, which waits for the connection rather than
//! gather what it can't send.

use skep_model::session::{LogLine, ReadLogs, ToManager};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Readers of one node at a time; `service logs` is one per task. Further ones are told to come back.
const MAX_READERS: usize = 256;
/// Lines that go into one message: what a busy task writes between two turns of the reader.
const LINES_PER_MESSAGE: usize = 64;
/// Messages of all readers that wait for the session.
const MESSAGE_CAPACITY: usize = 8;

/// Begins to read a log: its lines, or why there are none.
pub(crate) type LogSource = Arc<dyn Fn(&ReadLogs) -> Result<mpsc::Receiver<LogLine>, String> + Send + Sync>;

pub(super) struct LogReaders {
    source: LogSource,
    readers: BTreeMap<u64, JoinHandle<()>>,
    messages: mpsc::Sender<ToManager>,
    outbox: mpsc::Receiver<ToManager>,
}

impl LogReaders {
    pub(super) fn new(source: LogSource) -> Self {
        let (messages, outbox) = mpsc::channel(MESSAGE_CAPACITY);
        Self { source, readers: BTreeMap::new(), messages, outbox }
    }

    /// Begins an answer; its messages come out of [`Self::next`].
    pub(super) fn begin(&mut self, wanted: &ReadLogs) {
        self.readers.retain(|_, reader| !reader.is_finished());
        let lines = match self.readers.len() {
            MAX_READERS.. => Err(format!("this node already sends {MAX_READERS} logs: try again later")),
            _ => (self.source)(wanted),
        };
        let reader = tokio::spawn(read(wanted.request, lines, self.messages.clone()));
        if let Some(former) = self.readers.insert(wanted.request, reader) {
            former.abort();
        }
    }

    pub(super) fn stop(&mut self, request: u64) {
        if let Some(reader) = self.readers.remove(&request) {
            reader.abort();
        }
    }

    /// The next message to send; waits for ever while no log is read.
    pub(super) async fn next(&mut self) -> ToManager {
        match self.outbox.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }
}

impl Drop for LogReaders {
    fn drop(&mut self) {
        for reader in self.readers.values() {
            reader.abort();
        }
    }
}

async fn read(
    request: u64,
    source: Result<mpsc::Receiver<LogLine>, String>,
    messages: mpsc::Sender<ToManager>,
) {
    let error = match source {
        Ok(mut source) => loop {
            let mut lines = Vec::new();
            if source.recv_many(&mut lines, LINES_PER_MESSAGE).await == 0 {
                break None;
            }
            if messages.send(ToManager::Log { request, lines }).await.is_err() {
                return;
            }
        },
        Err(error) => Some(error),
    };
    // Fails when the session is over: nobody waits for the end then.
    let _ = messages.send(ToManager::LogEnd { request, error }).await;
}
