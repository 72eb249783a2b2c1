//! A task's life as its user sees it: terminals, exit codes, restarts, stops and logs.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Lab, eventually};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::ttyname;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command at a terminal of its own, and what it has shown.
struct Session {
    master: File,
    terminal: OwnedFd,
    /// How the terminal was.
    before: Termios,
    child: Child,
    shown: String,
}

impl Session {
    fn new(wanted: &Command) -> Result<Self> {
        let size = Winsize { ws_row: 33, ws_col: 117, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave: terminal } = openpty(Some(&size), None)?;
        // As a login does: the terminal's signals go to who has it as the controlling one.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(wanted.get_program()).args(wanted.get_args());
        let before = tcgetattr(&terminal)?;
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal.try_clone()?);
        Ok(Self { master: master.into(), terminal, before, child: command.spawn()?, shown: String::new() })
    }

    fn types(&mut self, text: &str) -> Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Waits for `text`, and forgets what is before its end.
    fn sees(&mut self, text: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some((_, rest)) = self.shown.split_once(text) {
                self.shown = rest.to_owned();
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            ensure!(poll(&mut fds, PollTimeout::try_from(left)?)? > 0, "no {text:?} in {:?}", self.shown);
            let mut buffer = [0; 4096];
            let read = self.master.read(&mut buffer)?;
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    fn code(&mut self) -> Result<i32> {
        self.child.wait()?.code().context("it ended by a signal")
    }
}

/// A shell in a container, by `skep` or the stock CLI: a size that follows, ^C, an exit code, and the terminal as it was.
fn use_a_terminal(lab: &Lab, program: &str) -> Result<()> {
    let socket = socket(lab);
    let run = ["run", "-it", "--rm", "--network", "net", "host", "bash", "--norc", "-i"];
    let mut session = Session::new(&lab.command("n1", &[&[program, "-H", &socket], &run[..]].concat())?)?;
    // Quoted in what is typed, so that the echo of it is not taken for the answer.
    session.types("echo 'si'ze $(stty size)\n")?;
    session.sees("size 33 117")?;
    let path = ttyname(&session.terminal)?;
    let grown = Command::new("stty").arg("-F").arg(path).args(["rows", "44", "cols", "120"]).status()?;
    ensure!(grown.success(), "stty failed");
    session.types("until test \"$(stty size)\" = '44 120'; do sleep 0.1; done; echo 'gr'own\n")?;
    session.sees("grown")?;
    session.types("sh -c 'echo be''gun; exec sleep 1000'\n")?;
    session.sees("begun")?;
    session.types("\x03")?;
    session.sees("^C")?;
    session.types("echo 'sta'tus $?\n")?;
    session.sees("status 130")?;
    session.types("exit 7\n")?;
    session.sees("exit")?;
    ensure!(session.code()? == 7, "{program} passes the exit code on");
    ensure!(tcgetattr(&session.terminal)? == session.before, "{program} leaves the terminal as it was");
    Ok(())
}

#[test]
fn a_container_has_a_real_terminal() -> Result<()> {
    let lab = Lab::up(1)?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "net"])?;
    for program in ["skep", "docker"] {
        use_a_terminal(&lab, program).with_context(|| format!("with {program}"))?;
    }
    let run = ["skep", "run", "--rm", "--network", "net", "host"];
    for (command, code) in [("no-such-program", 127), ("/etc", 126), ("false", 1)] {
        let output = lab.try_exec("n1", &[&run[..], &[command]].concat())?;
        ensure!(output.status.code() == Some(code), "{command}: {output:?}");
    }
    let detached =
        ["skep", "run", "-d", "--network", "net", "--name", "box", "host", "sh", "-c", "echo hello; exit 5"];
    lab.exec("n1", &detached)?;
    let docker = |words: &[&str]| lab.exec("n1", &[&["docker", "-H", &socket(&lab)], words].concat());
    ensure!(docker(&["wait", "box"])? == "5\n" && docker(&["logs", "box"])? == "hello\n");
    docker(&["rm", "box"])?;
    let left = docker(&["ps", "-aq"])?;
    ensure!(left.is_empty(), "left: {left}");
    lab.finish()
}

fn socket(lab: &Lab) -> String {
    format!("unix://{}/n1.sock", lab.dir().display())
}

/// Rows of `service ps`, newest first, as STATE and ERROR.
fn history(lab: &Lab, service: &str) -> Result<Vec<String>> {
    let rows =
        lab.skep(&["service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", service])?;
    Ok(rows.lines().map(str::to_owned).collect())
}

#[test]
fn tasks_end_as_they_were_told_to_and_their_logs_stay() -> Result<()> {
    let lab = Lab::up(2)?;
    let create = ["service", "create", "-d", "--name"];
    let fails = [
        "fails",
        "--restart-condition",
        "on-failure",
        "--restart-delay",
        "100ms",
        "--restart-max-attempts",
        "2",
    ];
    lab.skep(&[&create[..], &fails, &["host", "sh", "-c", "echo try; exit 3"]].concat())?;
    let once = ["once", "--restart-condition", "on-failure"];
    lab.skep(&[&create[..], &once, &["host", "sh", "-c", "echo done"]].concat())?;
    let script = "trap 'echo asked; exit 9' INT; echo up; while :; do sleep 0.1; done";
    let polite = ["polite", "--replicas", "2", "--stop-signal", "INT", "--stop-grace-period", "1m"];
    lab.skep(&[&create[..], &polite, &["host", "sh", "-c", script]].concat())?;
    let deaf = [
        "deaf",
        "--stop-grace-period",
        "300ms",
        "host",
        "sh",
        "-c",
        "trap '' TERM; echo up; sleep 1000 & wait",
    ];
    lab.skep(&[&create[..], &deaf].concat())?;
    lab.until_running("polite", 2)?;
    lab.until_running("deaf", 1)?;

    eventually(PATIENCE, "the failing service is given up", || Ok(history(&lab, "fails")?.len() == 3))?;
    eventually(PATIENCE, "all have failed", || {
        Ok(history(&lab, "fails")?
            .iter()
            .all(|row| row.starts_with("Failed") && row.contains("non-zero exit (3)")))
    })?;
    eventually(PATIENCE, "the other is done", || Ok(history(&lab, "once")?[0].starts_with("Complete")))?;
    ensure!(history(&lab, "once")?.len() == 1);
    ensure!(lab.skep(&["service", "logs", "--raw", "fails"])?.lines().eq(["try"; 3]));

    eventually(PATIENCE, "both have said that they are up", || {
        Ok(lab.skep(&["service", "logs", "--raw", "polite"])?.lines().count() == 2)
    })?;
    // Docker's own client reads the same log, in the order of the lines' times.
    let docker = ["docker", "-H", &socket(&lab), "service", "logs", "-t", "polite"];
    let lines = lab.exec("n1", &docker)?;
    let times: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').next()).collect();
    ensure!(times.len() == 2 && times.is_sorted(), "{lines}");
    let follow = ["timeout", "20", "skep", "service", "logs", "-f", "-t", "polite"];
    let mut follower = lab.command("n1", &follow)?.stdout(Stdio::piped()).spawn()?;
    let mut followed = BufReader::new(follower.stdout.take().context("piped")?).lines().map_while(Result::ok);
    ensure!(followed.by_ref().take(2).all(|line| line.ends_with("    | up")), "the follower has both tasks");
    lab.skep(&["service", "scale", "-d", "polite=1", "deaf=0"])?;
    let asked = followed.find(|line| line.ends_with("    | asked"));
    follower.kill()?;
    follower.wait()?;
    let asked = asked.context("the follower was not told of the end")?;
    ensure!(asked.contains(" polite.") && asked.contains("@n"), "{asked}");
    lab.finish()
}
