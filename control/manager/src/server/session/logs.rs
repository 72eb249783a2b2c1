//! Log lines of the node on their way to those who asked for them.

use crate::server::sessions::{LogPart, LogQueue};
use skep_model::session::LogLine;
use std::collections::BTreeMap;

/// Why a reader's log ends early. The session cannot wait for a reader: heartbeats and statuses come
/// over the same stream.
const TOO_SLOW: &str = "the log comes faster than it is read: ask for less with --tail or --since";

/// Who reads which request's lines. Readers are people's commands; each entry goes with its reader.
#[derive(Default)]
pub(super) struct LogReaders {
    by_request: BTreeMap<u64, LogQueue>,
}

impl LogReaders {
    pub(super) fn begin(&mut self, request: u64, to: LogQueue) {
        self.by_request.insert(request, to);
    }

    /// Passes lines on; false if nobody wants more of them.
    pub(super) fn lines(&mut self, request: u64, lines: Vec<LogLine>) -> bool {
        let Some(to) = self.by_request.get(&request) else { return false };
        let room = u32::try_from(size(&lines)).ok();
        let room = room.and_then(|size| to.room.clone().try_acquire_many_owned(size).ok());
        let (part, wanted) = match (room, to.parts.capacity()) {
            // The last place in the queue is for the end.
            (None, _) | (_, 0 | 1) => (LogPart::End { error: Some(TOO_SLOW.to_owned()) }, false),
            (Some(room), _) => (LogPart::Lines { lines, room }, true),
        };
        let wanted = to.parts.try_send(part).is_ok() && wanted;
        if !wanted {
            self.by_request.remove(&request);
        }
        wanted
    }

    pub(super) fn end(&mut self, request: u64, error: Option<String>) {
        if let Some(to) = self.by_request.remove(&request) {
            // A reader that is gone needs no end.
            let _ = to.parts.try_send(LogPart::End { error });
        }
    }

    pub(super) fn stop(&mut self, request: u64) {
        self.by_request.remove(&request);
    }
}

/// Bytes the lines take while they wait.
fn size(lines: &[LogLine]) -> usize {
    lines.iter().map(|line| size_of::<LogLine>() + line.text.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use skep_model::session::LogStream;
    use std::sync::Arc;
    use tokio::sync::{Semaphore, mpsc};

    fn line(text: &str) -> Vec<LogLine> {
        vec![LogLine { time: Timestamp::UNIX_EPOCH, stream: LogStream::Stdout, text: text.to_owned() }]
    }

    fn queue(places: usize, bytes: usize) -> (LogQueue, mpsc::Receiver<LogPart>) {
        let (parts, from) = mpsc::channel(places);
        (LogQueue { parts, room: Arc::new(Semaphore::new(bytes)) }, from)
    }

    #[test]
    fn a_reader_that_does_not_keep_up_is_told_so_and_costs_nothing_more() {
        let (to, mut from) = queue(3, 10_000);
        let mut readers = LogReaders::default();
        readers.begin(7, to);
        assert!(readers.lines(7, line("a")));
        assert!(readers.lines(7, line("b")));
        assert!(!readers.lines(7, line("c")));
        assert!(!readers.lines(7, line("d")));
        assert!(matches!(from.try_recv(), Ok(LogPart::Lines { .. })));
        assert!(matches!(from.try_recv(), Ok(LogPart::Lines { .. })));
        assert!(matches!(from.try_recv(), Ok(LogPart::End { error: Some(error) }) if error == TOO_SLOW));
        assert!(matches!(from.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    #[test]
    fn lines_wait_in_no_more_bytes_than_there_is_room_for() {
        let long = "x".repeat(1_000);
        let (to, mut from) = queue(100, 2_500);
        let mut readers = LogReaders::default();
        readers.begin(7, to);
        assert!(readers.lines(7, line(&long)));
        assert!(readers.lines(7, line(&long)));
        drop(from.try_recv());
        assert!(readers.lines(7, line(&long)), "the first has gone on");
        assert!(!readers.lines(7, line(&long)));
        let parts: Vec<_> = std::iter::from_fn(|| from.try_recv().ok()).collect();
        assert!(matches!(
            parts.as_slice(),
            [LogPart::Lines { .. }, LogPart::Lines { .. }, LogPart::End { error: Some(_) }]
        ));
    }
}
