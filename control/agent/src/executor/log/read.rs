//! The reading side: from the oldest line kept, over the turn of the file, to the task's end.

use super::{CURRENT, EXIT_FILE, PREVIOUS};
use crate::executor::spec::valid_id;
use crate::executor::sys;
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use skep_model::session::LogLine;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

/// Lines read ahead of a slow reader.
const CHANNEL_LINES: usize = 256;
const READ_BYTES: usize = 64 << 10;

/// Which lines of a task's log are wanted. The default: all there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Also the lines to come, until the task ends.
    pub follow: bool,
    /// Only the last so many of the lines there are.
    pub tail: Option<usize>,
    /// Only lines written at this time or later.
    pub since: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("this node keeps no log of task {0}: it never ran here, or has been removed")]
    NoLog(String),
    #[error("cannot read the log of task {id}: {source}")]
    Read { id: String, source: io::Error },
    #[error("cannot follow the log of task {id} (fs.inotify.max_user_instances may be too low): {source}")]
    Watch { id: String, source: io::Error },
}

/// Starts reading the log of task `id` below `state_dir`. To be called within a tokio runtime.
pub(in crate::executor) fn read(
    state_dir: &Path,
    id: &str,
    options: ReadOptions,
) -> Result<mpsc::Receiver<LogLine>, LogError> {
    let directory = state_dir.join(id);
    if !valid_id(id) || !directory.join(CURRENT).exists() {
        return Err(LogError::NoLog(id.to_owned()));
    }
    let watch = match options.follow {
        true => Some(watch(&directory).map_err(|source| LogError::Watch { id: id.to_owned(), source })?),
        false => None,
    };
    let (lines, receiver) = mpsc::channel(CHANNEL_LINES);
    let reading = Reading { directory, since: options.since, lines };
    let id = id.to_owned();
    tokio::spawn(async move {
        if let Err(source) = reading.run(options.tail, watch).await {
            tracing::warn!("{}", LogError::Read { id, source });
        }
    });
    Ok(receiver)
}

/// Becomes readable when a file of the directory changes, appears or goes.
fn watch(directory: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let changes = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(directory, changes)?;
    sys::readable(inotify.into())
}

struct Reading {
    directory: PathBuf,
    since: Option<Timestamp>,
    lines: mpsc::Sender<LogLine>,
}

impl Reading {
    /// Returns at the end of the log, or when nobody reads it any more.
    async fn run(self, tail: Option<usize>, watch: Option<AsyncFd<OwnedFd>>) -> io::Result<()> {
        let Some(mut position) = Position::oldest(&self.directory).await? else { return Ok(()) };
        let mut ended = self.directory.join(EXIT_FILE).exists();
        if !self.history(&mut position, tail).await? {
            return Ok(());
        }
        let Some(watch) = watch else { return Ok(()) };
        while !ended && self.directory.exists() {
            tokio::select! {
                changed = next_change(&watch) => changed?,
                () = self.lines.closed() => return Ok(()),
            }
            // Looked at before the lines are read: what the task wrote last is read then, too.
            ended = self.directory.join(EXIT_FILE).exists();
            while let Some(line) = position.next_line(&self.directory).await? {
                if self.wanted(&line) && self.lines.send(line).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The lines there are; false when nobody reads them any more.
    async fn history(&self, position: &mut Position, tail: Option<usize>) -> io::Result<bool> {
        let mut last = VecDeque::new();
        while let Some(line) = position.next_line(&self.directory).await? {
            if !self.wanted(&line) {
                continue;
            }
            let Some(tail) = tail else {
                if self.lines.send(line).await.is_err() {
                    return Ok(false);
                }
                continue;
            };
            last.push_back(line);
            if last.len() > tail {
                last.pop_front();
            }
        }
        for line in last {
            if self.lines.send(line).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn wanted(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| line.time >= since)
    }
}

async fn next_change(watch: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut events = [0u8; 4096];
    loop {
        let mut ready = watch.readable().await?;
        match ready.try_io(|fd| nix::unistd::read(fd.get_ref(), &mut events).map_err(io::Error::from)) {
            Ok(read) => return read.map(drop),
            Err(_would_block) => continue,
        }
    }
}

/// A place in one of the two files.
struct Position {
    file: BufReader<File>,
    inode: u64,
    /// A line whose end isn't written yet.
    partial: Vec<u8>,
    /// Whether the file had been turned over, and so was complete, before its end was last met.
    complete: bool,
}

impl Position {
    async fn oldest(directory: &Path) -> io::Result<Option<Self>> {
        match Self::open(&directory.join(PREVIOUS)).await? {
            Some(position) => Ok(Some(position)),
            None => Self::open(&directory.join(CURRENT)).await,
        }
    }

    async fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let inode = file.metadata().await?.ino();
        let file = BufReader::with_capacity(READ_BYTES, file);
        Ok(Some(Self { file, inode, partial: Vec::new(), complete: false }))
    }

    /// None at the end of what is written. Text that is no log line (a write the disk cut off) is passed over.
    async fn next_line(&mut self, directory: &Path) -> io::Result<Option<LogLine>> {
        loop {
            let read = self.file.read_until(b'\n', &mut self.partial).await?;
            if self.partial.ends_with(b"\n") {
                let line = serde_json::from_slice(&self.partial);
                self.partial.clear();
                if let Ok(line) = line {
                    return Ok(Some(line));
                }
            } else if self.complete && read == 0 {
                match self.next_file(directory).await? {
                    Some(next) => *self = next,
                    None => return Ok(None),
                }
            } else {
                // A file that is complete may have grown between the end met above and its turn: read on.
                self.complete = inode(&directory.join(CURRENT)).await? != Some(self.inode);
                if !self.complete {
                    return Ok(None);
                }
            }
        }
    }

    /// A reader that is slower than two turns of the file misses what was given up.
    async fn next_file(&self, directory: &Path) -> io::Result<Option<Self>> {
        let previous = directory.join(PREVIOUS);
        match inode(&previous).await? {
            Some(inode) if inode != self.inode => Self::open(&previous).await,
            _ => Self::open(&directory.join(CURRENT)).await,
        }
    }
}

async fn inode(path: &Path) -> io::Result<Option<u64>> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogWriter;
    use super::*;
    use skep_model::session::LogStream;
    use tempfile::TempDir;

    fn log() -> (TempDir, LogWriter) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("t1")).unwrap();
        let log = LogWriter::create(dir.path().join("t1")).unwrap().with_small_files(2000);
        (dir, log)
    }

    fn write(log: &mut LogWriter, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let time = Timestamp::from_second(number.into()).unwrap();
            log.add(time, LogStream::Stdout, number.to_string().as_bytes());
            log.flush(time);
        }
    }

    fn end(dir: &TempDir) {
        std::fs::write(dir.path().join("t1").join(EXIT_FILE), "{}").unwrap();
    }

    async fn all(mut lines: mpsc::Receiver<LogLine>) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(line) = lines.recv().await {
            all.push(line.text.parse().unwrap());
        }
        all
    }

    #[tokio::test]
    async fn reads_over_the_turn_of_the_file() {
        let (dir, mut log) = log();
        write(&mut log, 0..40);
        assert!(dir.path().join("t1").join(PREVIOUS).exists());
        let lines = all(read(dir.path(), "t1", ReadOptions::default()).unwrap()).await;
        assert_eq!(lines, (0..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn tail_and_since_choose() {
        let (dir, mut log) = log();
        write(&mut log, 0..40);
        let tail = ReadOptions { tail: Some(3), ..ReadOptions::default() };
        assert_eq!(all(read(dir.path(), "t1", tail).unwrap()).await, [37, 38, 39]);
        let none = ReadOptions { tail: Some(0), ..ReadOptions::default() };
        assert!(all(read(dir.path(), "t1", none).unwrap()).await.is_empty());
        let since =
            ReadOptions { since: Some(Timestamp::from_second(38).unwrap()), ..ReadOptions::default() };
        assert_eq!(all(read(dir.path(), "t1", since).unwrap()).await, [38, 39]);
    }

    #[tokio::test]
    async fn following_sees_new_lines_and_ends_with_the_task() {
        let (dir, mut log) = log();
        write(&mut log, 0..3);
        let options = ReadOptions { follow: true, tail: Some(1), since: None };
        let mut lines = read(dir.path(), "t1", options).unwrap();
        assert_eq!(lines.recv().await.unwrap().text, "2");
        for number in 3..100 {
            write(&mut log, number..number + 1);
            assert_eq!(lines.recv().await.unwrap().text, number.to_string());
        }
        write(&mut log, 100..101);
        end(&dir);
        assert_eq!(all(lines).await, [100]);
    }

    #[tokio::test]
    async fn following_ends_when_the_log_is_removed() {
        let (dir, mut log) = log();
        write(&mut log, 0..1);
        let mut lines = read(dir.path(), "t1", ReadOptions { follow: true, ..Default::default() }).unwrap();
        assert_eq!(lines.recv().await.unwrap().text, "0");
        std::fs::remove_dir_all(dir.path().join("t1")).unwrap();
        assert_eq!(lines.recv().await, None);
    }

    #[tokio::test]
    async fn a_line_cut_off_by_a_full_disk_is_passed_over() {
        let (dir, mut log) = log();
        write(&mut log, 0..1);
        let path = dir.path().join("t1").join(CURRENT);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{}\n{text}", &text[..20])).unwrap();
        assert_eq!(all(read(dir.path(), "t1", ReadOptions::default()).unwrap()).await, [0, 0]);
    }

    #[tokio::test]
    async fn a_task_that_starts_again_goes_on_with_its_log() {
        let (dir, mut log) = log();
        write(&mut log, 0..2);
        let path = dir.path().join("t1");
        let cut = std::fs::read_to_string(path.join(CURRENT)).unwrap() + "{\"ti";
        std::fs::write(path.join(CURRENT), cut).unwrap();
        drop(log);
        write(&mut LogWriter::create(path).unwrap(), 2..4);
        assert_eq!(all(read(dir.path(), "t1", ReadOptions::default()).unwrap()).await, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_task_without_a_log_is_said_to_have_none() {
        let (dir, _log) = log();
        for id in ["t2", "../t1", ""] {
            assert!(matches!(read(dir.path(), id, ReadOptions::default()), Err(LogError::NoLog(_))), "{id}");
        }
    }
}
