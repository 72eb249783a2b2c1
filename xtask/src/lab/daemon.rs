//! A host's skepd.

use super::host::{Host, arguments, kill as kill_process, log_tail, processes};
use crate::interrupt::Interrupt;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// How long a starting skepd may take to answer.
const START: Duration = Duration::from_secs(20);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two looks at whether something has happened that cannot be waited for.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// Starts a host's skepd and waits until its API answers.
pub(super) fn start(host: &Host, interrupt: &Interrupt) -> Result<()> {
    ensure!(host.is_node(), "{} is the outside machine, it has no skepd", host.name());
    ensure!(pid(host)?.is_none(), "skepd of {} runs already", host.name());
    let log = OpenOptions::new().create(true).append(true).open(host.log())?;
    let mut daemon = host
        .command("skepd")?
        .arg("--socket")
        .arg(host.socket())
        .arg("--state-dir")
        .arg(host.state())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot run nsenter (Debian: util-linux)")?;
    let deadline = Instant::now() + START;
    while !answers(host) {
        interrupt.check()?;
        if let Some(status) = daemon.try_wait()? {
            bail!("skepd of {} ended ({status}):\n{}", host.name(), log_tail(&host.log()));
        }
        ensure!(
            Instant::now() < deadline,
            "skepd of {} does not answer:\n{}",
            host.name(),
            log_tail(&host.log())
        );
        thread::sleep(POLL);
    }
    Ok(())
}

/// SIGKILL, as when it crashes; the host's other processes are left to themselves.
pub(super) fn kill(host: &Host) -> Result<()> {
    let pid = pid(host)?.with_context(|| format!("no skepd runs on {}", host.name()))?;
    kill_process(pid)?;
    let deadline = Instant::now() + ANSWER;
    while !has_ended(pid) {
        ensure!(Instant::now() < deadline, "skepd of {} does not end", host.name());
        thread::sleep(POLL);
    }
    Ok(())
}

/// A killed process has closed its files once it is a zombie or gone, not before (`do_exit` of the kernel).
fn has_ended(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state follows the command in parentheses (proc_pid_stat(5)).
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The process that was started with the host's socket; helpers it starts are others.
pub(super) fn pid(host: &Host) -> Result<Option<u32>> {
    let socket = host.socket().to_string_lossy().into_owned();
    let is_daemon = |process: &u32| {
        let line = arguments(*process);
        let program = line.first().is_some_and(|program| program.rsplit('/').next() == Some("skepd"));
        program && line.get(1).is_some_and(|word| word == "--socket") && line.contains(&socket)
    };
    Ok(processes()?.find(is_daemon))
}

pub(super) fn answers(host: &Host) -> bool {
    get(host, "/_ping").is_ok()
}

/// The body of a successful answer of the host's API.
pub(super) fn get(host: &Host, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(host.socket())?;
    stream.set_read_timeout(Some(ANSWER))?;
    // HTTP/1.0: the body ends where the connection does.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: skep\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {head}\n{body}");
    Ok(body.to_owned())
}
