//! The writing side: output cut into lines, lines into bounded files.

use super::{CURRENT, MAX_FILE_BYTES, MAX_LINE_BYTES, PREVIOUS};
use jiff::Timestamp;
use skep_model::session::{LogLine, LogStream};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Cuts one stream of output into lines.
#[derive(Debug, Default)]
pub(in crate::executor) struct Splitter {
    /// What follows the last line's end; at most [`MAX_LINE_BYTES`].
    partial: Vec<u8>,
}

impl Splitter {
    /// Passes each line that `bytes` complete to `line`, without its end.
    pub(in crate::executor) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            self.partial.extend_from_slice(text);
            while self.partial.len() > MAX_LINE_BYTES {
                let rest = self.partial.split_off(cut(&self.partial));
                line(&self.partial);
                self.partial = rest;
            }
            if ended {
                line(&self.partial);
                self.partial.clear();
            }
        }
    }

    /// What the stream ended with, if that was no line's end.
    pub(in crate::executor) fn finish(&mut self, line: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial.clear();
        }
    }
}

/// Where to cut a line that is too long: not within a UTF-8 character (RFC 3629 section 3: continuation bytes
/// are 10xxxxxx, three at most).
fn cut(line: &[u8]) -> usize {
    let is_start = |&at: &usize| line[at] & 0b1100_0000 != 0b1000_0000;
    (MAX_LINE_BYTES - 3..=MAX_LINE_BYTES).rev().find(is_start).unwrap_or(MAX_LINE_BYTES)
}

/// Appends to a task's log. A disk that takes no more costs lines, never the task: how many is noted in the log
/// once it takes lines again.
#[derive(Debug)]
pub(in crate::executor) struct LogWriter {
    directory: PathBuf,
    file: File,
    written: u64,
    max_file_bytes: u64,
    /// Lines of the batch being put together.
    batch: Vec<u8>,
    batched: u64,
    lost: u64,
}

impl LogWriter {
    /// Goes on with the log that is there.
    pub(in crate::executor) fn create(directory: PathBuf) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create(true).open(directory.join(CURRENT))?;
        let written = file.metadata()?.len();
        if written > 0 {
            // Whoever wrote it may have been killed within a line; readers pass over that, and over an empty one.
            file.write_all(b"\n")?;
        }
        let batch = Vec::new();
        Ok(Self { directory, file, written, max_file_bytes: MAX_FILE_BYTES, batch, batched: 0, lost: 0 })
    }

    /// Adds a line to the batch that [`LogWriter::flush`] writes.
    pub(in crate::executor) fn add(&mut self, time: Timestamp, stream: LogStream, line: &[u8]) {
        let line = LogLine { time, stream, text: String::from_utf8_lossy(line).into_owned() };
        serde_json::to_writer(&mut self.batch, &line).expect("a log line is always JSON");
        self.batch.push(b'\n');
        self.batched += 1;
    }

    /// Writes the batch, into a fresh file if this one would become too large.
    pub(in crate::executor) fn flush(&mut self, now: Timestamp) {
        if self.batch.is_empty() {
            return;
        }
        if self.lost > 0 {
            let note = format!("skep: {} lines before this one could not be written to the log", self.lost);
            // A line that was cut off by the failure is ended first; readers pass over it.
            self.batch.insert(0, b'\n');
            self.add(now, LogStream::Stderr, note.as_bytes());
            self.batched -= 1;
        }
        match self.write_batch() {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += self.batched,
        }
        self.batch.clear();
        self.batched = 0;
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let length = self.batch.len() as u64;
        if self.written > 0 && self.written + length > self.max_file_bytes {
            self.turn_over()?;
        }
        self.file.write_all(&self.batch)?;
        self.written += length;
        Ok(())
    }

    fn turn_over(&mut self) -> io::Result<()> {
        fs::rename(self.directory.join(CURRENT), self.directory.join(PREVIOUS))?;
        self.file = File::create(self.directory.join(CURRENT))?;
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
impl LogWriter {
    pub(super) fn with_small_files(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line.to_vec()));
        }
        splitter.finish(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn a_line_is_whole_however_it_arrives() {
        assert_eq!(lines(&[b"on", b"e\n\ntw", b"o\nthree"]), [&b"one"[..], b"", b"two", b"three"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = "ü".repeat(MAX_LINE_BYTES);
        let text = format!("x{long}");
        let cut = lines(&[text.as_bytes()]);
        assert_eq!(cut.len(), 3);
        assert!(cut.iter().all(|line| line.len() <= MAX_LINE_BYTES && std::str::from_utf8(line).is_ok()));
        assert_eq!(cut.concat(), text.as_bytes());
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_chunks(
            text in proptest::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'\n')], 0..400),
            size in 1usize..50,
        ) {
            let mut expected: Vec<Vec<u8>> = text.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(lines(&text.chunks(size).collect::<Vec<_>>()), expected);
        }
    }

    #[test]
    fn the_files_stay_within_their_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(dir.path().into()).unwrap().with_small_files(1000);
        for number in 0..200 {
            log.add(Timestamp::UNIX_EPOCH, LogStream::Stdout, format!("line {number}").as_bytes());
            log.flush(Timestamp::UNIX_EPOCH);
        }
        let sizes: Vec<u64> =
            fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
        assert!(fs::read_to_string(dir.path().join(CURRENT)).unwrap().contains("line 199"));
    }

    #[test]
    fn lost_lines_are_counted_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(dir.path().into()).unwrap();
        let good = std::mem::replace(&mut log.file, File::create("/dev/full").unwrap());
        log.add(Timestamp::UNIX_EPOCH, LogStream::Stdout, b"one");
        log.add(Timestamp::UNIX_EPOCH, LogStream::Stdout, b"two");
        log.flush(Timestamp::UNIX_EPOCH);
        log.file = good;
        log.add(Timestamp::UNIX_EPOCH, LogStream::Stdout, b"three");
        log.flush(Timestamp::UNIX_EPOCH);
        let text = fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        assert!(text.contains("three") && text.contains("skep: 2 lines"), "{text}");
    }
}
