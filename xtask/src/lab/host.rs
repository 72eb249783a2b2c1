//! A host of the lab: namespaces, and the init that holds them.

use super::build::Build;
use super::layout::{Lab, OUTSIDE, OUTSIDE_2};
use crate::program::{command, run, run_in_reach};
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a host's processes.
const POWER_OFF: Duration = Duration::from_secs(10);

/// What a host's pid 1 runs: makes the host its own machine, then waits and reaps for ever. A shell's `wait`
/// collects every child, also those whose parent has died. Where resolv.conf is a link into /run, the file it
/// names went with the host's own /run.
const INIT: &str = r#"
set -e
echo "$LAB_HOSTNAME" > /proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 tmpfs /run
mount -t sysfs sysfs /sys
resolv=$(readlink -m /etc/resolv.conf)
[ -e "$resolv" ] || { mkdir -p "${resolv%/*}"; : > "$resolv"; }
mount --bind "$LAB_RESOLV_CONF" "$resolv"
echo ready
exec >/dev/null
while :; do sleep infinity & wait $! || :; done
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Node(usize),
    Client,
}

impl Role {
    pub(super) fn parse(called: &str) -> Option<Self> {
        if called == "client" {
            return Some(Self::Client);
        }
        let digits = called.strip_prefix('n')?;
        let number: usize = digits.parse().ok().filter(|number| *number > 0)?;
        (digits == number.to_string()).then_some(Self::Node(number))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(number) => write!(f, "n{number}"),
            Self::Client => f.write_str("client"),
        }
    }
}

/// A node or the outside machine.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    lab: Lab,
    role: Role,
}

impl Host {
    pub(super) fn new(lab: Lab, role: Role) -> Self {
        Self { lab, role }
    }

    /// The process of its `skepd`, if that runs.
    pub(crate) fn daemon_pid(&self) -> Result<Option<u32>> {
        super::daemon::pid(self)
    }

    /// What the user calls it, and its host name: n1, n2, …, client.
    pub(crate) fn name(&self) -> String {
        self.role.to_string()
    }

    pub(super) fn is_node(&self) -> bool {
        matches!(self.role, Role::Node(_))
    }

    pub(super) fn netns(&self) -> String {
        format!("{}-{}", self.lab.name(), self.role)
    }

    /// Its addresses on the underlay; the first is the main one.
    pub(super) fn addresses(&self) -> Vec<Ipv4Addr> {
        match self.role {
            // `MAX_NODES` keeps it in a byte.
            Role::Node(number) => vec![Ipv4Addr::new(192, 168, 77, u8::try_from(number).unwrap_or(u8::MAX))],
            Role::Client => vec![OUTSIDE, OUTSIDE_2],
        }
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.addresses()[0]
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.file("log")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.lab.directory().join(self.name())
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.lab.directory().join(format!("{}.{extension}", self.role))
    }

    /// Starts its init. The network namespace must exist.
    pub(super) fn power_on(&self) -> Result<()> {
        let resolv_conf = self.file("resolv.conf");
        let servers = [OUTSIDE, OUTSIDE_2].map(|server| format!("nameserver {server}\n"));
        // One second and one attempt per server, so that a dead one costs little.
        fs::write(&resolv_conf, format!("{}options timeout:1 attempts:2\n", servers.concat()))?;
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut init = command(&format!("nsenter --net=/run/netns/{} -- unshare", self.netns()))
            .args(["--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--mount-proc"])
            .args(["--", "sh", "-c", INIT, &self.marker()])
            .env("LAB_HOSTNAME", self.name())
            .env("LAB_RESOLV_CONF", &resolv_conf)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot run nsenter (Debian: util-linux)")?;
        let mut line = String::new();
        let stdout = init.stdout.take().context("standard output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "{} did not start: {}", self.netns(), log_tail(&self.log()));
        Ok(())
    }

    /// Ends everything that runs on it: the kernel kills what is in a pid namespace with its init.
    pub(crate) fn power_off(&self) -> Result<()> {
        let Some(init) = self.init()? else {
            return Ok(());
        };
        kill(init)?;
        let deadline = Instant::now() + POWER_OFF;
        while self.init()?.is_some() {
            ensure!(Instant::now() < deadline, "processes of {} do not end", self.netns());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(super) fn is_on(&self) -> Result<bool> {
        Ok(self.init()?.is_some())
    }

    /// A program on this host, with its skepd as `skep`'s.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let init =
            self.init()?.with_context(|| format!("{} is off: `lab boot {}`", self.netns(), self.role))?;
        let mut command = command(&format!("nsenter --target {init} --mount --uts --ipc --net --pid -- env"));
        // Entering a mount namespace leads to its root.
        command.arg(format!("--chdir={}", std::env::current_dir()?.display()));
        command.arg(assignment("PATH", self.path()?));
        if self.is_node() {
            command.arg(format!("SKEP_HOST=unix://{}", self.socket().display()));
        }
        command.arg(program);
        Ok(command)
    }

    /// Runs a command line on this host, words split at spaces, and returns what it printed. Ctrl-C ends it.
    pub(crate) fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        run_in_reach(self.command(program)?.args(words), &format!("{}: `{line}`", self.name()))
    }

    /// Skep's build and the system's own programs, which not every user's PATH has.
    fn path(&self) -> Result<OsString> {
        let mut path = Build::chosen()?.directory().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path.push(":/usr/sbin:/sbin");
        Ok(path)
    }

    /// The pid of its init, found by the marker on its command line and by being 1 in its own namespace.
    pub(super) fn init(&self) -> Result<Option<u32>> {
        let marker = self.marker();
        for process in processes()? {
            let is_marked = arguments(process).last() == Some(&marker);
            if is_marked && is_pid_1(process) {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    fn marker(&self) -> String {
        format!("skep-lab:{}:{}", self.lab.name(), self.role)
    }
}

/// Every process, by pid.
pub(crate) fn processes() -> Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// A process' command line; empty once it has ended.
pub(super) fn arguments(process: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    line.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

/// NSpid of proc_pid_status(5): the pid in each namespace, the innermost last.
fn is_pid_1(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.and_then(|pids| pids.split_whitespace().last()) == Some("1")
}

/// SIGKILL. A process that has ended meanwhile is as good as killed.
pub(super) fn kill(process: u32) -> Result<()> {
    run(Command::new("sh").args(["-c", "kill -KILL $0 2>/dev/null || :", &process.to_string()])).map(|_| ())
}

/// The end of a log, for an error message.
pub(super) fn log_tail(path: &std::path::Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn assignment(name: &str, value: OsString) -> OsString {
    let mut assignment = OsString::from(format!("{name}="));
    assignment.push(value);
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_called_in_one_way_only() {
        assert_eq!(Role::parse("n12"), Some(Role::Node(12)));
        assert_eq!(Role::parse("client"), Some(Role::Client));
        for called in ["n", "n0", "n01", "n+1", "N1", "net", "clients", ""] {
            assert_eq!(Role::parse(called), None, "{called}");
        }
    }
}
