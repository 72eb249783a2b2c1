//! The process executor: a task is a command over the host's file system, read-only, in its own
//! network, mount, pid, uts and ipc namespaces.
//!
//! ```text
//! skepd ── control socket ── skep-shim ── pid 1 of the task (skep-init, then the command itself)
//!   │                          │  owns its output, exit status and life
//!   └── Process                └── <state dir>/<task>/{log.jsonl, exit.json, …}
//! ```
//!
//! As in Docker without `--init`, the command itself is pid 1 of its namespace: the kernel keeps from it
//! every signal it has no handler for (save SIGKILL and SIGSTOP), and orphans are its to reap. With pid 1
//! everything in its pid namespace dies, so no cgroup is made and none has to be cleared; limits on memory
//! and processes, which would need one, are not part of this executor.

mod init;
mod leftovers;
mod log;
mod mounts;
mod output;
mod privileges;
mod process;
mod protocol;
mod shim;
mod spec;
mod start;
mod sys;
mod terminal;
mod user;

pub use leftovers::LeftoversError;
pub use log::{LogError, ReadOptions};
pub use process::{Exit, Process, Streams};
pub use spec::{ExecutorConfig, ExecutorError, ProcessIo, ProcessSpec, StartError, TerminalSize};
pub use start::{MAX_PROCESSES, ProcessExecutor};
pub use terminal::Terminal;

use std::process::ExitCode;

/// Runs the shim or a task's first stage if this process was started as one; `None` otherwise. To be called
/// first thing in `main`, while the process has a single thread.
pub fn run_if_shim() -> Option<ExitCode> {
    let role = std::env::args_os().next()?;
    if role == protocol::SHIM {
        return Some(shim::main());
    }
    (role == protocol::INIT).then(init::main)
}
