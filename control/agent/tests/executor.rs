//! The process executor against the kernel: real shims, namespaces and mounts. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod executor_host;

use executor_host::{Host, PATIENCE, ended, netns};
use skep_agent::executor::{Exit, ProcessIo, ReadOptions, StartError};
use skep_model::signal::Signal;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn output_and_exit_code_are_the_commands() {
    let host = Host::new();
    let task = host.shell("echo out; echo err >&2; printf unfinished; exit 3").await;
    assert_eq!(ended(&task).await, Exit { code: 3, signal: None, shim_lost: false });
    let mut lines: Vec<String> =
        host.log("t").await.iter().map(|line| format!("{:?} {}", line.stream, line.text)).collect();
    lines.sort();
    assert_eq!(lines, ["Stderr err", "Stdout out", "Stdout unfinished"]);
}

#[tokio::test]
async fn more_output_than_a_pipe_holds_is_logged_in_order() {
    let host = Host::new();
    let task = host.shell("seq 1 50000").await;
    assert_eq!(ended(&task).await.code, 0);
    let lines = host.log("t").await;
    assert!(lines.iter().map(|line| line.text.clone()).eq((1..=50_000).map(|number| number.to_string())));
}

#[tokio::test]
async fn a_follower_reads_while_the_task_runs_and_ends_with_it() {
    let host = Host::new();
    let _task = host.shell("echo ready; read -r never; sleep 0.3; echo last").await;
    let options = ReadOptions { follow: true, ..ReadOptions::default() };
    let mut lines = host.executor.logs(&host.id("t"), options).unwrap();
    assert_eq!(lines.recv().await.unwrap().text, "ready");
    assert_eq!(lines.recv().await.unwrap().text, "last");
    assert_eq!(lines.recv().await, None);
}

#[tokio::test]
async fn a_kill_of_pid_1_is_noticed_at_once_and_ends_its_children() {
    let host = Host::new();
    let task = host.shell("sleep 1000 & exec sleep 1000").await;
    let begun = Instant::now();
    kill("-9", task.pid());
    assert_eq!(ended(&task).await, Exit { code: 137, signal: Some(9), shim_lost: false });
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    host.assert_no_process_left().await;
}

#[tokio::test]
async fn stop_asks_and_then_kills() {
    let host = Host::new();
    let polite = host.shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done").await;
    host.wait_for_line("t", "ready").await;
    assert_eq!(polite.stop(Signal::TERM, PATIENCE).await.code, 7);
    // Without a handler, pid 1 of a namespace is not reached by SIGTERM.
    let deaf = host.start("deaf", &["sleep", "1000"]).await.unwrap();
    assert_eq!(deaf.stop(Signal::TERM, Duration::from_millis(200)).await.signal, Some(9));
}

#[tokio::test]
async fn what_cannot_be_executed_is_named() {
    let host = Host::new();
    let error = host.start("t", &["no-such-program", "x"]).await.unwrap_err();
    assert_eq!(error.to_string(), "no such command: no-such-program");
    let error = host.start("t", &["/no/such/program"]).await.unwrap_err();
    assert_eq!(error.to_string(), "no such command: /no/such/program");
    for command in ["/etc/hosts", "/"] {
        let error = host.start("t", &[command]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot execute {command}: Permission denied (os error 13)"));
    }
    assert!(matches!(host.start("t", &[]).await, Err(StartError::NoCommand)));
    let long = "x".repeat(1 << 20);
    assert!(matches!(host.start("t", &["true", &long]).await, Err(StartError::TooLong)));
    host.assert_no_process_left().await;
    host.executor.remove(&host.id("t")).unwrap();
    assert_eq!(host.kept_directories(), 0);
}

#[tokio::test]
async fn a_namespace_that_is_none_is_refused_with_the_step_that_failed() {
    let host = Host::new();
    let mut spec = host.spec("t", &["true"]);
    spec.netns = fs::File::open("/dev/null").unwrap().into();
    let error = host.executor.start(spec).await.unwrap_err();
    assert!(
        error.to_string().starts_with("cannot set the task up: enter the network namespace: "),
        "{error}"
    );
    host.assert_no_process_left().await;
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_given_and_three_defaults() {
    let host = Host::new();
    let mut spec = host.spec("t", &["env"]);
    spec.env = vec!["GREETING=hello".into(), "EMPTY=".into()];
    let task = host.executor.start(spec).await.unwrap();
    ended(&task).await;
    let mut lines: Vec<String> = host.log("t").await.into_iter().map(|line| line.text).collect();
    lines.sort();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["EMPTY=", "GREETING=hello", "HOME=/run/task", "HOSTNAME=host-t", path]);
}

#[tokio::test]
async fn names_come_from_the_task() {
    let host = Host::new();
    let text = host.run("hostname; cat /etc/hostname /etc/resolv.conf /etc/hosts").await;
    assert_eq!(text, "host-t\nhost-t\nnameserver 127.0.0.11\n127.0.0.1 localhost\n10.0.0.2 t\n");
}

#[tokio::test]
async fn attached_streams_reach_the_daemon_and_no_log() {
    let host = Host::new();
    let mut spec = host.spec("t", &["sh", "-c", "cat; echo error >&2; exit 4"]);
    spec.io = ProcessIo::Attached;
    let mut task = host.executor.start(spec).await.unwrap();
    let mut streams = task.take_streams().unwrap();
    assert!(task.take_streams().is_none());
    let text = "x".repeat(300_000);
    let written = async {
        streams.stdin.write_all(text.as_bytes()).await.unwrap();
        drop(streams.stdin);
    };
    let (mut out, mut err) = (String::new(), String::new());
    let read = async {
        streams.stdout.read_to_string(&mut out).await.unwrap();
        streams.stderr.unwrap().read_to_string(&mut err).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(written, read) }).await.unwrap();
    assert_eq!(ended(&task).await.code, 4);
    assert!(out == text && err == "error\n");
    assert!(host.executor.logs(&host.id("t"), ReadOptions::default()).is_err());
}

#[tokio::test]
async fn redis_starts_answers_and_stops() {
    let host = Host::new();
    let netns = netns();
    let mut server = host.spec("redis", &["redis-server", "--port", "6379"]);
    server.netns = netns.try_clone().unwrap();
    let server = host.executor.start(server).await.unwrap();
    host.wait_for_line("redis", "Ready to accept connections").await;
    let mut client = host.spec("client", &["redis-cli", "-h", "127.0.0.1", "ping"]);
    client.netns = netns;
    let client = host.executor.start(client).await.unwrap();
    assert_eq!(ended(&client).await.code, 0);
    assert_eq!(host.log("client").await[0].text, "PONG");
    assert_eq!(server.stop(Signal::TERM, PATIENCE).await, Exit { code: 0, signal: None, shim_lost: false });
}

#[tokio::test]
async fn a_dropped_task_is_killed() {
    let host = Host::new();
    let task = host.shell("trap '' TERM INT HUP; sleep 1000 & wait").await;
    drop(task);
    host.assert_no_process_left().await;
}

/// Also when the task has changed its user, which makes the kernel forget that it is to die with its parent.
#[tokio::test]
async fn the_death_of_a_shim_is_the_tasks() {
    let host = Host::new();
    for (name, command) in [
        ("root", &["sleep", "1000"][..]),
        ("nobody", &["setpriv", "--reuid", "65534", "--clear-groups", "sleep", "1000"]),
    ] {
        let task = host.start(name, command).await.unwrap();
        kill("-9", parent(task.pid()));
        let exit = ended(&task).await;
        assert_eq!(exit, Exit { code: 137, signal: Some(9), shim_lost: true }, "{name}");
        assert!(!executor_host::is_alive(task.pid()));
    }
    host.assert_no_process_left().await;
}

#[tokio::test]
async fn a_shim_outlives_the_signals_of_a_terminal_and_a_service_manager() {
    let host = Host::new();
    let task = host.shell("read -r never; sleep 0.5; exit 5").await;
    for signal in ["-INT", "-TERM", "-HUP"] {
        kill(signal, parent(task.pid()));
    }
    assert_eq!(ended(&task).await, Exit { code: 5, signal: None, shim_lost: false });
}

#[tokio::test]
async fn a_killed_daemon_takes_its_tasks_along() {
    let host = Host::new();
    let (mut daemon, pid) = host.daemon(&["sleep", "1000"]);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    executor_host::wait_until_gone(pid).await;
}

/// By the kernel alone: the daemon, which would see to it as well, is stopped.
#[tokio::test]
async fn a_killed_shim_takes_its_task_along_without_the_daemons_help() {
    let host = Host::new();
    let (mut daemon, pid) = host.daemon(&["sleep", "1000"]);
    kill("-STOP", daemon.id().cast_signed());
    kill("-9", parent(pid));
    executor_host::wait_until_gone(pid).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Daemon and shim killed together, and the task out of the kernel's reach: the next daemon ends it.
#[tokio::test]
async fn what_a_killed_daemon_left_is_cleared() {
    let host = Host::new();
    let (mut daemon, pid) = host.daemon(&["setpriv", "--reuid", "65534", "--clear-groups", "sleep", "1000"]);
    executor_host::wait_for_command(pid, "sleep").await;
    let shim = parent(pid);
    kill("-STOP", shim);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    kill("-9", shim);
    executor_host::wait_until_gone(shim).await;
    assert!(executor_host::is_alive(pid), "the task must survive both, or this shows nothing");
    assert_eq!(host.kept_directories(), 1);
    host.executor.clear_leftovers(|_| false).unwrap();
    assert!(!executor_host::is_alive(pid));
    assert_eq!(host.kept_directories(), 0);
}

fn kill(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Of a task's pid 1: its shim.
fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}
