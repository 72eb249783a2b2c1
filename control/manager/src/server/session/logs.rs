//! Log lines of the node on their way to those who asked for them.

use crate::server::sessions::LogPart;
use skep_model::session::LogLine;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Why a reader's log ends early. The session cannot wait for a reader: heartbeats and statuses come
/// over the same stream.
const TOO_SLOW: &str = "the log comes faster than it is read: ask for less with --tail or --since";

/// Who reads which request's lines. Readers are people's commands; each entry goes with its reader.
#[derive(Default)]
pub(super) struct LogReaders {
    by_request: BTreeMap<u64, mpsc::Sender<LogPart>>,
}

impl LogReaders {
    pub(super) fn begin(&mut self, request: u64, to: mpsc::Sender<LogPart>) {
        self.by_request.insert(request, to);
    }

    /// Passes lines on; false if nobody wants more of them.
    pub(super) fn lines(&mut self, request: u64, lines: Vec<LogLine>) -> bool {
        let Some(to) = self.by_request.get(&request) else { return false };
        // The last place in the queue is for the end.
        let (part, wanted) = match to.capacity() {
            0 | 1 => (LogPart::End { error: Some(TOO_SLOW.to_owned()) }, false),
            _ => (LogPart::Lines(lines), true),
        };
        let wanted = to.try_send(part).is_ok() && wanted;
        if !wanted {
            self.by_request.remove(&request);
        }
        wanted
    }

    pub(super) fn end(&mut self, request: u64, error: Option<String>) {
        if let Some(to) = self.by_request.remove(&request) {
            // A reader that is gone needs no end.
            let _ = to.try_send(LogPart::End { error });
        }
    }

    pub(super) fn stop(&mut self, request: u64) {
        self.by_request.remove(&request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use skep_model::session::LogStream;

    fn line(text: &str) -> Vec<LogLine> {
        vec![LogLine { time: Timestamp::UNIX_EPOCH, stream: LogStream::Stdout, text: text.to_owned() }]
    }

    #[test]
    fn a_reader_that_does_not_keep_up_is_told_so_and_costs_nothing_more() {
        let (to, mut from) = mpsc::channel(3);
        let mut readers = LogReaders::default();
        readers.begin(7, to);
        assert!(readers.lines(7, line("a")));
        assert!(readers.lines(7, line("b")));
        assert!(!readers.lines(7, line("c")));
        assert!(!readers.lines(7, line("d")));
        assert!(matches!(from.try_recv(), Ok(LogPart::Lines(_))));
        assert!(matches!(from.try_recv(), Ok(LogPart::Lines(_))));
        assert!(matches!(from.try_recv(), Ok(LogPart::End { error: Some(error) }) if error == TOO_SLOW));
        assert!(matches!(from.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
