//! A lab of real nodes for one test: `cargo xtask lab` under a name of its own, gone when it is dropped.

use crate::{Netns, Running};
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The outside machine: no member of the cluster.
pub const CLIENT: &str = "client";
pub const CLIENT_ADDR: &str = "192.168.77.200";

/// No test has more.
const MOST_NODES: usize = 5;
/// Drops every node counts: kernels announce themselves to groups and neighbours, and nothing is flooded; a node that
/// has just joined greets peers before all of them know it, and what nodes say first when they meet can't be fresh;
/// tests ask for services before a task is there; a task that ends may have a last word when its interface is no longer
/// known; on a busy machine an answer comes after it was given up.
const USUAL_DROPS: &[&str] = &[
    "ipv6",
    "multicast",
    "broadcast",
    "arp_gratuitous",
    "handshake_stranger",
    "handshake_stale",
    "handshake_unasked",
    "probe_unasked",
    "no_backend",
    "unknown_destination",
    "unknown_port",
];
/// Drops around a node that was killed, started or cut off: frames that waited for it in vain; what others sealed for it,
/// before they knew; connections it no longer knows; networks and peers it does not know
/// yet; paths that have to be measured again.
const ABSENCE_DROPS: &[&str] = &[
    "no_session",
    "session_unknown",
    "seal_stranger",
    "no_flow",
    "unknown_vni",
    "unknown_vtep",
    "peer_unknown",
    "not_local",
    "underlay_unreachable",
    "fragmentation_needed",
];

pub struct Lab {
    name: String,
    expected_drops: RefCell<Vec<&'static str>>,
    is_finished: bool,
}

impl Lab {
    /// A cluster of `nodes` nodes; n1 is its manager.
    pub fn up(nodes: usize) -> Result<Self> {
        Self::up_with(nodes, &[])
    }

    /// As [`Lab::up`], with more of the options of `lab up`.
    pub fn up_with(nodes: usize, options: &[&str]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { name, expected_drops: RefCell::new(USUAL_DROPS.to_vec()), is_finished: false };
        let nodes = nodes.to_string();
        lab.xtask(&[&["lab", "up", "--nodes", &nodes], options].concat()).context("lab up")?;
        Ok(lab)
    }

    /// More reasons for which packets may be dropped in this test. Any other at its end fails it; a test that kills a
    /// node, or pulls its cable, need not name what that brings.
    pub fn expect_drops(&self, reasons: &[&'static str]) {
        self.expected_drops.borrow_mut().extend(reasons);
    }

    /// A node will be out of its peers' reach, or stand still, in a way that the lab does not see.
    pub fn expect_absence(&self) {
        self.expect_drops(ABSENCE_DROPS);
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of node `i`, counted from 1.
    pub fn addr(i: usize) -> String {
        format!("192.168.77.{i}")
    }

    /// A program the lab made for tasks, by its path as a task sees it.
    pub fn program(&self, program: &str) -> String {
        format!("/var/tmp/skep-lab-{}/{program}", self.name)
    }

    /// Where the bridge is that joins the machines.
    pub fn underlay(&self) -> Result<Netns> {
        Netns::open(format!("/run/netns/{}-net", self.name).as_ref())
    }

    /// A machine's own network namespace.
    pub fn netns(&self, machine: &str) -> Result<Netns> {
        Netns::open(format!("/run/netns/{}-{machine}", self.name).as_ref())
    }

    /// A new named network namespace on a machine, as its users make them: under its own /run.
    pub fn add_netns(&self, machine: &str, name: &str) -> Result<Netns> {
        let script = r#"ip netns add "$0" && echo made && exec sleep infinity"#;
        let mut there = Running::start(&mut self.command(machine, &["sh", "-c", script, name])?)?;
        there.wait_for_line("made", Duration::from_secs(10))?;
        Netns::open(format!("/proc/{}/root/run/netns/{name}", there.pid()).as_ref())
    }

    /// Where the node's socket, log and state are.
    pub fn dir(&self) -> PathBuf {
        target_dir().join(format!("lab-{}", self.name))
    }

    /// Runs `cargo xtask ARGS --name …`.
    pub fn xtask(&self, args: &[&str]) -> Result<String> {
        if matches!(args, ["lab", "kill" | "daemon", ..]) {
            self.expect_absence();
        }
        let mut command = Command::new(xtask()?);
        let (lab, verb) = args.split_at(2.min(args.len()));
        command.args(lab).args(["--name", &self.name]).args(verb);
        succeed(command.output()?, &format!("xtask {}", args.join(" ")))
    }

    /// Runs a command on a machine (`n1`, …, `client`), whatever comes of it.
    pub fn try_exec(&self, machine: &str, args: &[&str]) -> Result<Output> {
        self.command(machine, args)?.stdin(Stdio::null()).output().context("lab exec")
    }

    /// Runs a command on a machine; its standard output if it succeeded.
    pub fn exec(&self, machine: &str, args: &[&str]) -> Result<String> {
        succeed(self.try_exec(machine, args)?, &format!("on {machine}: {}", args.join(" ")))
    }

    /// A command to be run on a machine, for tests that talk to it while it runs.
    pub fn command(&self, machine: &str, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(xtask()?);
        command.args(["lab", "exec", "--name", &self.name, machine, "--"]).args(args);
        Ok(command)
    }

    /// `skep ARGS` on the manager.
    pub fn skep(&self, args: &[&str]) -> Result<String> {
        self.exec("n1", &[&["skep"], args].concat())
    }

    /// `skep ARGS` on the manager, which has to be refused; what it said.
    pub fn skep_refuses(&self, args: &[&str]) -> Result<String> {
        let output = self.try_exec("n1", &[&["skep"], args].concat())?;
        ensure!(!output.status.success(), "skep {} was not refused", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// One line per running task of the service: `(task id, node)`.
    pub fn running(&self, service: &str) -> Result<Vec<(String, String)>> {
        let format = "{{.ID}} {{.Node}} {{.CurrentState}}";
        let rows = self.skep(&["service", "ps", "--no-trunc", "--format", format, service])?;
        let running = rows.lines().filter_map(|row| {
            let mut words = row.split_whitespace();
            let (id, node, state) = (words.next()?, words.next()?, words.next()?);
            (state == "Running").then(|| (id.to_owned(), node.to_owned()))
        });
        Ok(running.collect())
    }

    /// Waits until the service has `count` running tasks on nodes that are up.
    pub fn until_running(&self, service: &str, count: usize) -> Result<()> {
        eventually(Duration::from_secs(30), &format!("{service}: {count} running tasks"), || {
            let row = self.skep(&[
                "service",
                "ls",
                "--filter",
                &format!("name={service}"),
                "--format",
                "{{.Replicas}}",
            ])?;
            Ok(row.trim() == format!("{count}/{count}"))
        })
    }

    /// What the manager's API answers to a GET.
    pub fn get(&self, path: &str) -> Result<serde_json::Value> {
        self.get_from(1, path)
    }

    /// What a node's API answers to a GET.
    pub fn get_from(&self, node: usize, path: &str) -> Result<serde_json::Value> {
        let socket = self.dir().join(format!("n{node}.sock"));
        let mut curl = Command::new("curl");
        curl.args(["-sS", &format!("http://localhost{path}"), "--unix-socket"]).arg(socket);
        Ok(serde_json::from_str(&succeed(curl.output()?, path)?)?)
    }

    /// What the node's packet engine dropped so far, by reason; reasons without a drop are left out.
    pub fn drops(&self, node: usize) -> Result<BTreeMap<String, u64>> {
        let mut drops: BTreeMap<String, u64> = serde_json::from_value(self.get_from(node, "/skep/drops")?)?;
        drops.retain(|_, count| *count > 0);
        Ok(drops)
    }

    /// Pulls the node's cable out of the underlay, or plugs it in again.
    pub fn plug(&self, node: usize, is_in: bool) -> Result<()> {
        self.expect_absence();
        let state = if is_in { "up" } else { "down" };
        self.underlay()?.run(&format!("ip link set n{node} {state}")).map(|_| ())
    }

    /// What a TCP server says before it closes.
    pub fn read_tcp(&self, machine: &str, addr: &str, port: u16) -> Result<String> {
        let target = format!("TCP4:{addr}:{port},connect-timeout=3");
        let said = self.exec(machine, &["socat", "-T", "3", "-u", &target, "-"])?;
        Ok(said.trim().to_owned())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.is_finished {
            self.print_logs();
        }
        if let Err(error) = self.xtask(&["lab", "down"]) {
            eprintln!("lab down: {error:#}");
        }
    }
}

impl Lab {
    /// The last check of every test: no node dropped a packet for a reason the test did not expect, and none says
    /// ERROR in its log.
    pub fn finish(mut self) -> Result<()> {
        let unexpected = self.unexpected();
        ensure!(unexpected.is_empty(), "at the end of the test: {}", unexpected.join("; "));
        self.is_finished = true;
        Ok(())
    }

    /// What no test should leave behind: drops nobody expected, and errors in a node's log.
    fn unexpected(&self) -> Vec<String> {
        let mut unexpected = Vec::new();
        for node in 1..=MOST_NODES {
            // A node that is off has no counters.
            for (reason, count) in self.drops(node).unwrap_or_default() {
                if !self.expected_drops.borrow().contains(&reason.as_str()) {
                    unexpected.push(format!("n{node} dropped {count} packets for {reason}"));
                }
            }
            let log = std::fs::read_to_string(self.dir().join(format!("n{node}.log"))).unwrap_or_default();
            let errors = log.lines().filter(|line| line.contains(" ERROR "));
            unexpected.extend(errors.map(|line| format!("n{node} says {line}")));
        }
        unexpected
    }

    /// The nodes' logs explain a failed test better than its assertion.
    fn print_logs(&self) {
        for i in 1..=MOST_NODES {
            if let Ok(log) = std::fs::read_to_string(self.dir().join(format!("n{i}.log"))) {
                eprintln!("--- n{i}.log\n{log}");
            }
        }
    }
}

/// Polls until `done`, an error of `done` counts as not yet; fails with the last one after `limit`.
pub fn eventually(limit: Duration, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let last = match done() {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > limit {
            match last {
                Some(error) => return Err(error.context(format!("not within {limit:?}: {what}"))),
                None => bail!("not within {limit:?}: {what}"),
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn succeed(output: Output, what: &str) -> Result<String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{what}: {}\n{stdout}{stderr}", output.status);
    Ok(stdout.into_owned())
}

/// The directory this test was built into: `target`.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(3).map(PathBuf::from).unwrap_or_default()
}

/// A program of the build of Skep that labs run (`SKEP_LAB_PROFILE`, release unless it says debug).
pub fn built(program: &str) -> Result<PathBuf> {
    let profile = std::env::var("SKEP_LAB_PROFILE").ok().filter(|profile| !profile.is_empty());
    let path = target_dir().join(profile.as_deref().unwrap_or("release")).join(program);
    ensure!(path.exists(), "{} is missing: run `cargo xtask test`, which builds it", path.display());
    Ok(path)
}

/// The `xtask` this test was built beside.
pub fn xtask() -> Result<PathBuf> {
    let path = target_dir().join("debug/xtask");
    ensure!(path.exists(), "{} is missing: run `cargo xtask test`, which builds it", path.display());
    Ok(path)
}
