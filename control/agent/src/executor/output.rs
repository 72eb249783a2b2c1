//! A task's output on its way into its log.

use super::log::{LogWriter, Splitter};
use jiff::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use skep_model::session::LogStream;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// As much as a pipe holds by default (pipe(7)).
const READ_BYTES: usize = 64 << 10;

/// The near ends of a task's output, and where it goes.
pub(super) struct Output {
    log: LogWriter,
    pipes: Vec<Pipe>,
}

impl Output {
    pub(super) fn new(directory: PathBuf, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let pipes = vec![Pipe::new(stdout, LogStream::Stdout)?, Pipe::new(stderr, LogStream::Stderr)?];
        Ok(Self { log: LogWriter::create(directory)?, pipes })
    }

    /// A terminal has one stream of output.
    pub(super) fn of_terminal(directory: PathBuf, master: OwnedFd) -> io::Result<Self> {
        Ok(Self { log: LogWriter::create(directory)?, pipes: vec![Pipe::new(master, LogStream::Stdout)?] })
    }

    /// Those to wait for.
    pub(super) fn open_pipes(&self) -> impl Iterator<Item = &File> {
        self.pipes.iter().filter_map(|pipe| pipe.file.as_ref())
    }

    /// Writes what is there to read to the log; all of it if the task has ended.
    pub(super) fn drain(&mut self, ended: bool) {
        let now = Timestamp::now();
        for pipe in &mut self.pipes {
            while pipe.read(&mut self.log, now) && ended {}
            if ended {
                pipe.finish(&mut self.log, now);
            }
        }
        self.log.flush(now);
    }
}

struct Pipe {
    /// None after its end.
    file: Option<File>,
    stream: LogStream,
    splitter: Splitter,
}

impl Pipe {
    fn new(fd: OwnedFd, stream: LogStream) -> io::Result<Self> {
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { file: Some(fd.into()), stream, splitter: Splitter::default() })
    }

    /// Reads once; false if nothing was there.
    fn read(&mut self, log: &mut LogWriter, now: Timestamp) -> bool {
        let Some(file) = &mut self.file else { return false };
        let mut buffer = [0u8; READ_BYTES];
        match file.read(&mut buffer) {
            Ok(0) => {
                self.finish(log, now);
                false
            }
            Ok(read) => {
                let stream = self.stream;
                self.splitter.push(&buffer[..read], |line| log.add(now, stream, line));
                true
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                false
            }
            // What a terminal's master says once nobody has the terminal open.
            Err(_ended) => {
                self.finish(log, now);
                false
            }
        }
    }

    fn finish(&mut self, log: &mut LogWriter, now: Timestamp) {
        let stream = self.stream;
        self.splitter.finish(|line| log.add(now, stream, line));
        self.file = None;
    }
}
