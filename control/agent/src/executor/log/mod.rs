//! A task's log: JSON lines (`time`, `stream`, `text`) in two files of its directory, the older of which is
//! given up when the newer is full. The shim writes, the daemon reads.

mod read;
mod write;

pub(super) use read::read;
pub use read::{LogError, ReadOptions};
pub(super) use write::{LogWriter, Splitter};

/// The file written to, and the one before it.
pub(super) const CURRENT: &str = "log.jsonl";
pub(super) const PREVIOUS: &str = "log.1.jsonl";
/// Size at which the file is turned over: with two files a task keeps at least its last 10 MiB, and 1,000 tasks
/// fill 20 GB at most.
const MAX_FILE_BYTES: u64 = 10 << 20;
/// A longer line is cut into several, as Docker does at the same length.
const MAX_LINE_BYTES: usize = 16 << 10;
/// Its presence says that the task has ended and its log is complete.
pub(super) const EXIT_FILE: &str = "exit.json";
