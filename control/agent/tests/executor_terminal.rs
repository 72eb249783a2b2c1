//! Terminals, users and directories of tasks, against the kernel. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod executor_host;

use executor_host::{Host, PATIENCE, ended};
use skep_agent::executor::{Process, ProcessIo, ProcessSpec, Streams, TerminalSize};
use skep_model::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SIZE: TerminalSize = TerminalSize { rows: 30, columns: 101 };

/// A shell at a terminal, and what it has said so far.
struct Session {
    task: Process,
    streams: Streams,
    seen: String,
}

impl Session {
    async fn new(host: &Host, args: &[&str]) -> Self {
        let spec = ProcessSpec { io: ProcessIo::Attached, terminal: Some(SIZE), ..host.spec("t", args) };
        let mut task = host.executor.start(spec).await.unwrap();
        let streams = task.take_streams().unwrap();
        Self { task, streams, seen: String::new() }
    }

    async fn types(&mut self, text: &str) {
        self.streams.stdin.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until `text` appears, and forgets what is before its end.
    async fn sees(&mut self, text: &str) {
        let found = async {
            loop {
                if let Some((_, rest)) = self.seen.split_once(text) {
                    self.seen = rest.to_owned();
                    return;
                }
                let mut buffer = [0; 4096];
                let read = self.streams.stdout.read(&mut buffer).await.unwrap();
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, found).await.is_ok();
        assert!(in_time, "no {text:?} in {:?}", self.seen);
    }
}

#[tokio::test]
async fn a_shell_has_a_terminal_with_job_control_and_a_size_that_follows() {
    let host = Host::new();
    let mut session = Session::new(&host, &["bash", "--norc", "-i"]).await;
    // Quoted in what is typed, so that the terminal's echo of it is not taken for the answer.
    session.types("echo 'si'ze $(stty size) on $(tty), term $TERM\n").await;
    session.sees("size 30 101 on /dev/pts/0, term xterm").await;
    session.streams.terminal.as_ref().unwrap().resize(TerminalSize { rows: 50, columns: 120 }).unwrap();
    session.types("echo 'si'ze $(stty size)\n").await;
    session.sees("size 50 120").await;
    // Said by the job itself: it has the terminal by then.
    session.types("sh -c 'echo be''gun; exec sleep 1000'\n").await;
    session.sees("begun").await;
    session.types("\x03").await;
    session.sees("^C").await;
    session.types("echo 'sta'tus $?\n").await;
    session.sees("status 130").await;
    session.types("exit 7\n").await;
    assert_eq!(ended(&session.task).await.code, 7);
    host.assert_no_process_left().await;
}

#[tokio::test]
async fn a_terminal_that_hangs_up_ends_its_shell() {
    let host = Host::new();
    let Session { task, streams, .. } = Session::new(&host, &["sh", "-i"]).await;
    drop(streams);
    ended(&task).await;
    host.assert_no_process_left().await;
}

#[tokio::test]
async fn what_is_written_to_a_terminal_nobody_is_attached_to_is_logged() {
    let host = Host::new();
    let script = "test -t 1 && echo on a terminal; echo error >&2; exit 3";
    let spec = ProcessSpec { terminal: Some(SIZE), ..host.spec("t", &["sh", "-c", script]) };
    let task = host.executor.start(spec).await.unwrap();
    assert_eq!(ended(&task).await.code, 3);
    let lines: Vec<String> = host.log("t").await.into_iter().map(|line| line.text).collect();
    assert_eq!(lines, ["on a terminal\r", "error\r"]);
}

#[tokio::test]
async fn a_task_runs_as_its_user_in_its_directory() {
    let host = Host::new();
    let script = "id -u; id -g; id -G; pwd; touch $HOME/mine && echo kept; grep CapEff /proc/self/status; \
                  echo error >/dev/stderr";
    let spec = ProcessSpec {
        user: "www-data:games".into(),
        dir: "/usr/bin".into(),
        ..host.spec("t", &["sh", "-c", script])
    };
    let task = host.executor.start(spec).await.unwrap();
    assert_eq!(ended(&task).await.code, 0);
    let mut lines: Vec<String> = host.log("t").await.into_iter().map(|line| line.text).collect();
    lines.sort();
    let mut expected = ["33", "60", "60", "/usr/bin", "kept", "CapEff:\t0000000000000000", "error"];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_user_or_directory_that_is_not_there_is_named() {
    let host = Host::new();
    let unknown = ProcessSpec { user: "no-such-user".into(), ..host.spec("t", &["true"]) };
    let error = host.executor.start(unknown).await.unwrap_err().to_string();
    assert!(error.contains("find user no-such-user in /etc/passwd: "), "{error}");
    let nowhere = ProcessSpec { dir: "/no/such/directory".into(), ..host.spec("t", &["true"]) };
    let error = host.executor.start(nowhere).await.unwrap_err().to_string();
    assert!(error.contains("enter the working directory /no/such/directory: "), "{error}");
    host.assert_no_process_left().await;
}

#[tokio::test]
async fn the_stop_signal_is_the_tasks_own_and_the_end_of_its_grace_ends_everything() {
    let host = Host::new();
    let polite = host.shell("trap 'exit 9' INT; trap '' TERM; echo ready; while :; do sleep 0.1; done").await;
    host.wait_for_line("t", "ready").await;
    assert_eq!(polite.stop("SIGINT".parse().unwrap(), PATIENCE).await.code, 9);
    let deaf = host.start("deaf", &["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000 & echo ready; wait"]);
    let deaf = deaf.await.unwrap();
    host.wait_for_line("deaf", "ready").await;
    assert_eq!(deaf.stop(Signal::TERM, std::time::Duration::from_millis(200)).await.code, 137);
    host.assert_no_process_left().await;
}
