//! Twenty times the same fault, under load: what fails is counted and told, and everything is there afterwards.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

const TIMES: usize = 20;
const NODES: usize = 3;
const PUBLISHED: u16 = 8080;

/// Requests one after the other, until it is asked how they went.
struct Load {
    whom: String,
    child: Child,
}

#[derive(Debug)]
struct Told {
    ok: u64,
    failed: u64,
}

impl Load {
    /// From the outside machine to the published port of a node.
    fn start(lab: &Lab, node: usize) -> Result<Self> {
        let (program, port) = (lab.program("prober"), PUBLISHED.to_string());
        let mut command = lab.command(CLIENT, &[&program, "load", &Lab::addr(node), &port])?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self { whom: format!("n{node}"), child })
    }

    fn stop(mut self) -> Result<Told> {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8(output.stdout)?;
        let last = said.lines().last().context("the load says nothing")?;
        println!("requests to {}: {last}", self.whom);
        let mut words = last.split_whitespace();
        let mut number = |name| -> Result<u64> {
            ensure!(words.next() == Some(name), "{last}");
            Ok(words.next().context("a number")?.parse()?)
        };
        Ok(Told { ok: number("ok")?, failed: number("failed")? })
    }
}

/// A service that says its name, in as many tasks as nodes that meet the constraint.
fn web(lab: &Lab, options: &[&str], tasks: usize) -> Result<()> {
    let publish = format!("{PUBLISHED}:7000");
    let create = ["service", "create", "-d", "--name", "web", "--mode", "global", "--publish", &publish];
    let program = lab.program("prober");
    lab.skep(&[&create[..], options, &["host", &program, "serve", "web", "7000"]].concat())?;
    lab.until_running("web", tasks)?;
    until_serving(lab, 1..=NODES)
}

fn until_serving(lab: &Lab, nodes: impl Iterator<Item = usize> + Clone) -> Result<()> {
    eventually(Duration::from_secs(20), "web answers on the nodes", || {
        let answers = |node| Ok(lab.read_tcp(CLIENT, &Lab::addr(node), PUBLISHED)? == "web");
        nodes.clone().map(answers).try_fold(true, |all, one: Result<bool>| Ok(all && one?))
    })
}

fn tasks(lab: &Lab) -> Result<BTreeSet<(String, String)>> {
    Ok(lab.running("web")?.into_iter().collect())
}

/// Whether a node can reach another over the data path, as its `skep info` has it.
fn until_ready(lab: &Lab, count: usize) -> Result<()> {
    eventually(Duration::from_secs(30), &format!("{count} nodes are ready"), || {
        let nodes = lab.skep(&["node", "ls", "--format", "{{.Status}}"])?;
        Ok(nodes.lines().filter(|status| *status == "Ready").count() == count)
    })
}

#[test]
fn a_node_that_flaps_loses_no_task_and_serves_again_each_time() -> Result<()> {
    let lab = Lab::up(NODES)?;
    web(&lab, &[], NODES)?;
    let before = tasks(&lab)?;
    let loads = [Load::start(&lab, 1)?, Load::start(&lab, 2)?];
    for _ in 0..TIMES {
        lab.plug(3, false)?;
        eventually(Duration::from_secs(10), "n1 has taken n3 out", || Ok(!answers_of(&lab, 3)?))?;
        lab.plug(3, true)?;
        eventually(Duration::from_secs(10), "n1 has taken n3 back", || answers_of(&lab, 3))?;
    }
    for load in loads {
        let told = load.stop()?;
        // Until a silence is noticed each third connection is to a task that can't answer.
        ensure!(told.ok > told.failed * 2, "{told:?}");
    }
    ensure!(tasks(&lab)? == before, "no task was replaced: {before:?}, {:?}", tasks(&lab)?);
    until_serving(&lab, 1..=NODES)?;
    lab.finish()
}

/// Whether n1 sends new connections to the task on a node: a whole round of them meets all tasks.
fn answers_of(lab: &Lab, node: usize) -> Result<bool> {
    let paths = lab.get("/skep/paths")?;
    let paths = paths.as_array().context("a list of paths")?;
    let path = paths.iter().find(|path| path["Peer"] == Lab::addr(node).as_str()).context("a path")?;
    Ok(path["Silent"] == false)
}

#[test]
fn a_daemon_killed_again_and_again_serves_again_and_leaves_nothing() -> Result<()> {
    let lab = Lab::up(NODES)?;
    web(&lab, &[], NODES)?;
    let loads = [Load::start(&lab, 1)?, Load::start(&lab, 2)?];
    for _ in 0..TIMES {
        lab.xtask(&["lab", "daemon", "n3", "kill"])?;
        lab.xtask(&["lab", "daemon", "n3", "start"])?;
        until_ready(&lab, NODES)?;
    }
    for load in loads {
        let told = load.stop()?;
        ensure!(told.ok > told.failed * 2, "{told:?}");
    }
    lab.until_running("web", NODES)?;
    until_serving(&lab, 1..=NODES)?;
    let namespaces = lab.exec("n3", &["sh", "-c", "ip -o link | grep -c skv"])?;
    ensure!(namespaces.trim() == "1", "n3 has {} veths for one task", namespaces.trim());
    lab.finish()
}

#[test]
fn a_manager_killed_again_and_again_loses_no_request_and_forgets_nothing() -> Result<()> {
    let lab = Lab::up(NODES)?;
    web(&lab, &["--constraint", "node.role==worker"], NODES - 1)?;
    let before = tasks(&lab)?;
    let loads = [Load::start(&lab, 2)?, Load::start(&lab, 3)?];
    for nth in 1..=TIMES {
        // What was acknowledged is there after the kill that follows at once. The API answers before the manager is
        // ready, and says so.
        eventually(Duration::from_secs(20), "a network is taken", || {
            lab.skep(&["network", "create", "--driver", "overlay", &format!("net{nth}")]).map(|_| true)
        })?;
        lab.xtask(&["lab", "daemon", "n1", "kill"])?;
        lab.xtask(&["lab", "daemon", "n1", "start"])?;
    }
    until_ready(&lab, NODES)?;
    let networks = lab.skep(&["network", "ls", "--format", "{{.Name}}"])?;
    let networks: BTreeSet<&str> = networks.lines().collect();
    for nth in 1..=TIMES {
        ensure!(networks.contains(format!("net{nth}").as_str()), "net{nth} is forgotten");
    }
    for load in loads {
        let told = load.stop()?;
        ensure!(told.failed == 0 && told.ok > 0, "without its manager a cluster goes on: {told:?}");
    }
    ensure!(tasks(&lab)? == before, "no task was replaced: {before:?}, {:?}", tasks(&lab)?);
    until_serving(&lab, 1..=NODES)?;
    lab.finish()
}

/// Longer than a peer may take to answer, were it only slow; shorter than silence.
const KEPT_WAITING: &str = "0.4";
const TURN: &str = "0.02";

/// As under a quota of a twentieth of a processor: its daemon runs for a moment, then for twenty it does not.
#[test]
fn a_node_that_gets_no_processor_shuns_nobody() -> Result<()> {
    let lab = Lab::up(NODES)?;
    web(&lab, &[], NODES)?;
    let before = tasks(&lab)?;
    let loads = [Load::start(&lab, 1)?, Load::start(&lab, 2)?];
    let starve = format!(
        "skepd=$(pgrep -o -x skepd); for turn in $(seq {}); do kill -STOP $skepd; sleep {KEPT_WAITING}; \
         kill -CONT $skepd; sleep {TURN}; done",
        TIMES * 2
    );
    lab.exec("n3", &["sh", "-c", &starve])?;
    for load in loads {
        let told = load.stop()?;
        ensure!(told.failed == 0, "slow but right: {told:?}");
    }
    let shuns = |node: usize| -> Result<bool> {
        let log = std::fs::read_to_string(lab.dir().join(format!("n{node}.log")))?;
        Ok(log.contains("does not answer on the data path"))
    };
    ensure!(!shuns(1)? && !shuns(2)? && !shuns(3)?, "slow is not silent");
    lab.exec(
        "n3",
        &["sh", "-c", "skepd=$(pgrep -o -x skepd); kill -STOP $skepd; sleep 3; kill -CONT $skepd"],
    )?;
    ensure!(shuns(1)? && shuns(2)?, "three seconds are");
    eventually(Duration::from_secs(10), "n1 has taken n3 back", || answers_of(&lab, 3))?;
    ensure!(!shuns(3)?, "it was n3 that stood still, not its peers");
    ensure!(tasks(&lab)? == before, "no task was replaced: {before:?}, {:?}", tasks(&lab)?);
    // It answers all handshakes of three seconds at once, of which its peers wait for the last.
    lab.expect_absence();
    lab.finish()
}
