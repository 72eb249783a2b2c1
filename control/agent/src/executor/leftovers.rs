//! What an earlier daemon left: the directories of its tasks with their logs and, where the shim was killed with a
//! killed daemon, processes.

use super::log::{CURRENT, EXIT_FILE, PREVIOUS};
use super::shim;
use super::sys;
use jiff::SignedDuration;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// In the task's directory from before its command is executed.
const PROCESSES_FILE: &str = "processes.json";
/// SIGKILL takes milliseconds; only a process stuck in the kernel (a dead NFS mount) needs longer.
const KILL_TIMEOUT: SignedDuration = SignedDuration::from_secs(10);

/// Exit code of what nobody saw end.
const KILLED: i32 = 128 + libc::SIGKILL;

#[derive(Debug, thiserror::Error)]
pub enum LeftoversError {
    #[error("cannot clear what tasks of an earlier run left in {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot end process {pid} of an earlier run's task in {path}: {source}")]
    Process { pid: i32, path: PathBuf, source: io::Error },
}

/// Names the two processes of a task for a later daemon.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Processes {
    shim: ProcessName,
    task: ProcessName,
}

/// A pid alone may name another process by then; with its start time, in this boot, it may not.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ProcessName {
    boot: String,
    pid: i32,
    /// Clock ticks since boot.
    started: u64,
}

impl Processes {
    /// Records this process as the shim of `task` in the task's directory.
    pub(super) fn record(directory: &Path, task: i32) -> io::Result<()> {
        let shim = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let processes = Self { shim: ProcessName::of(shim)?, task: ProcessName::of(task)? };
        fs::write(directory.join(PROCESSES_FILE), serde_json::to_vec(&processes)?)
    }
}

impl ProcessName {
    fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { boot: boot_id()?, pid, started: start_time(pid)? })
    }

    /// The process, if it still runs.
    fn find(&self) -> io::Result<Option<OwnedFd>> {
        let Ok(pidfd) = sys::pidfd_open(self.pid) else { return Ok(None) };
        // Compared after the pidfd holds the process: the pid cannot change hands in between.
        let same = self.boot == boot_id()? && start_time(self.pid).is_ok_and(|time| time == self.started);
        Ok(same.then_some(pidfd))
    }

    fn end(&self) -> io::Result<()> {
        let Some(pidfd) = self.find()? else { return Ok(()) };
        sys::kill(&pidfd)?;
        let timeout = PollTimeout::try_from(KILL_TIMEOUT.as_millis()).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Field 22 of /proc/PID/stat; the name, field 2, is in parentheses and may hold anything (proc_pid_stat(5)).
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or(io::ErrorKind::InvalidData.into())
}

/// Ends processes, and removes all but the logs of tasks whose id `keep` takes. Goes through all of it; the first
/// failure is returned at the end.
pub(super) fn clear(state_dir: &Path, keep: impl Fn(&str) -> bool) -> Result<(), LeftoversError> {
    let failed = |source| LeftoversError::Directory { path: state_dir.to_owned(), source };
    let mut result = Ok(());
    for entry in fs::read_dir(state_dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let cleared = clear_task(&entry.path(), entry.file_name().to_str().is_some_and(&keep));
        result = result.and(cleared);
    }
    result
}

/// Tasks of which an ended one's log is kept, in the order of their ends.
pub(super) fn ended(state_dir: &Path) -> io::Result<Vec<String>> {
    let mut ended = Vec::new();
    for entry in fs::read_dir(state_dir)? {
        let entry = entry?;
        let end = fs::metadata(entry.path().join(EXIT_FILE)).and_then(|file| file.modified());
        if let (Ok(end), Ok(id)) = (end, entry.file_name().into_string()) {
            ended.push((end, id));
        }
    }
    ended.sort();
    Ok(ended.into_iter().map(|(_, id)| id).collect())
}

fn clear_task(path: &Path, keep: bool) -> Result<(), LeftoversError> {
    // The shim first: it then writes nothing more into the directory. A directory without a readable record is
    // one whose command was never executed.
    let recorded =
        fs::read(path.join(PROCESSES_FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(Processes { shim, task }) = recorded {
        for process in [shim, task] {
            process.end().map_err(|source| LeftoversError::Process {
                pid: process.pid,
                path: path.to_owned(),
                source,
            })?;
        }
    }
    let cleared = match keep && path.join(CURRENT).is_file() {
        true => keep_log(path),
        false => fs::remove_dir_all(path),
    };
    cleared.map_err(|source| LeftoversError::Directory { path: path.to_owned(), source })
}

/// The log says from now on that it is complete.
fn keep_log(path: &Path) -> io::Result<()> {
    if !path.join(EXIT_FILE).exists() {
        shim::record_exit(path, KILLED, Some(libc::SIGKILL))?;
    }
    remove_all_but(path, &[CURRENT, PREVIOUS, EXIT_FILE])
}

fn remove_all_but(directory: &Path, kept: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !kept.iter().any(|kept| entry.file_name() == *kept) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A directory for a task that is to start. One that ran before, in an earlier daemon, goes on with its log.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_all_but(path, &[CURRENT, PREVIOUS])
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    fn record(path: &Path, shim: ProcessName, task: ProcessName) {
        fs::create_dir(path).unwrap();
        fs::write(path.join(PROCESSES_FILE), serde_json::to_vec(&Processes { shim, task }).unwrap()).unwrap();
    }

    fn of(pid: u32) -> ProcessName {
        ProcessName::of(pid.try_into().unwrap()).unwrap()
    }

    #[test]
    fn recorded_processes_are_ended_and_directories_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [mut shim, mut task] = [(); 2].map(|()| Command::new("sleep").arg("1000").spawn().unwrap());
        record(&dir.path().join("t1"), of(shim.id()), of(task.id()));
        fs::create_dir(dir.path().join("t2")).unwrap();
        clear(dir.path(), |_| true).unwrap();
        assert_eq!(shim.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(task.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn logs_of_wanted_tasks_stay_and_are_complete() {
        let dir = tempfile::tempdir().unwrap();
        for (task, files) in [
            ("cut", &[CURRENT, PREVIOUS, "hosts"][..]),
            ("ended", &[CURRENT, EXIT_FILE]),
            ("silent", &["hosts"]),
            ("other", &[CURRENT]),
        ] {
            fs::create_dir(dir.path().join(task)).unwrap();
            files.iter().for_each(|file| fs::write(dir.path().join(task).join(file), "{}\n").unwrap());
        }
        clear(dir.path(), |task| task != "other").unwrap();
        let mut kept = ended(dir.path()).unwrap();
        kept.sort();
        assert_eq!(kept, ["cut", "ended"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        let mut files: Vec<_> =
            fs::read_dir(dir.path().join("cut")).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, [EXIT_FILE, PREVIOUS, CURRENT]);
    }

    #[test]
    fn another_process_of_the_same_pid_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let earlier = ProcessName { started: of(other.id()).started - 1, ..of(other.id()) };
        let other_boot = ProcessName { boot: "another".into(), ..of(other.id()) };
        record(&dir.path().join("t1"), earlier, other_boot);
        clear(dir.path(), |_| false).unwrap();
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
