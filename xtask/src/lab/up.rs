//! `lab up`: builds, powers hosts on, makes them one cluster.

use super::build::Build;
use super::daemon::{self, POLL};
use super::host::Host;
use super::layout::{Lab, MAX_NODES};
use super::{UpOptions, dns, down, underlay};
use crate::interrupt::Interrupt;
use crate::packages;
use crate::program::cargo;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long joined nodes may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// Programs that tasks run.
const TASK_PROGRAMS: &[&str] = &["visitor-counter", "prober", "flow", "load"];

/// What a lab needs besides itself: Debian's packages and the build of Skep. Minutes the first time.
pub(crate) fn prepare() -> Result<()> {
    packages::ensure()?;
    let packages = ["--package", "skepd", "--package", "skep-cli", "--package", "netns-tests"];
    cargo(&[&["build", "--bins"], Build::chosen()?.arguments(), packages.as_slice()].concat())
}

/// Makes a lab of what [`prepare`] built. If that fails, or the user asks to stop, nothing of it is left.
pub(crate) fn up(lab: &Lab, options: &UpOptions) -> Result<()> {
    ensure!(
        lab.namespaces()?.is_empty(),
        "the lab `{0}` is up, wholly or in part: `cargo xtask lab down --name {0}` removes it, another --name makes another",
        lab.name()
    );
    let interrupt = Interrupt::watch()?;
    let made = make(lab, options, &interrupt);
    if made.is_err() {
        eprintln!("removing what there is of the lab `{}`", lab.name());
        down(lab).context("cannot clean up")?;
    }
    made
}

/// `lab add`: the next number, as a node of the cluster.
pub(super) fn join_another(lab: &Lab) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let nodes = lab.hosts()?.iter().filter(|host| host.is_node()).count();
    ensure!(nodes > 0, "the lab `{}` is not up: `cargo xtask lab up`", lab.name());
    ensure!(nodes < MAX_NODES, "a lab has 1 to {MAX_NODES} nodes");
    let (manager, node) = (lab.node(1), lab.node(nodes + 1));
    add(lab, &node, &interrupt)?;
    let token = manager.run("skep swarm join-token --quiet worker")?;
    join(&node, &manager, token.trim(), &interrupt)?;
    await_ready(&manager, nodes + 1, &interrupt)
}

fn make(lab: &Lab, options: &UpOptions, interrupt: &Interrupt) -> Result<()> {
    // What a lab of this name left on disk when it was killed is not this one's.
    down::remove_files(lab)?;
    fs::create_dir_all(lab.directory())?;
    offer_programs(lab)?;
    underlay::create(lab)?;
    add(lab, &lab.client(), interrupt)?;
    let nodes: Vec<Host> = (1..=options.nodes).map(|number| lab.node(number)).collect();
    for node in &nodes {
        add(lab, node, interrupt)?;
    }
    form_cluster(&nodes, options, interrupt)
}

fn add(lab: &Lab, host: &Host, interrupt: &Interrupt) -> Result<()> {
    interrupt.check()?;
    underlay::connect(lab, host)?;
    boot(lab, host, interrupt)
}

/// Powers a host on and starts what it runs. A host that was off gets a fresh network namespace: interfaces and
/// rules don't outlive a machine's power.
pub(super) fn boot(lab: &Lab, host: &Host, interrupt: &Interrupt) -> Result<()> {
    ensure!(!host.is_on()?, "{} is on already", host.name());
    if host.state().exists() {
        underlay::disconnect(host)?;
        underlay::connect(lab, host)?;
    }
    fs::create_dir_all(host.state())?;
    host.power_on()?;
    if host.is_node() { daemon::start(host, interrupt) } else { dns::start(lab, interrupt) }
}

/// A task sees the host's file system, but not its /tmp, where the repository may be.
fn offer_programs(lab: &Lab) -> Result<()> {
    fs::create_dir_all(lab.programs())?;
    for program in TASK_PROGRAMS {
        let from = Build::chosen()?.directory().join(program);
        fs::copy(&from, lab.programs().join(program))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

fn form_cluster(nodes: &[Host], options: &UpOptions, interrupt: &Interrupt) -> Result<()> {
    let (first, others) = nodes.split_first().context("a lab has a node")?;
    interrupt.check()?;
    let cipher = options.data_cipher.as_ref().map(|name| format!(" --data-cipher {name}"));
    let port = options.data_path_port.map(|port| format!(" --data-path-port {port}"));
    let chosen = [cipher, port].into_iter().flatten().collect::<String>();
    first.run(&format!("skep swarm init --advertise-addr {}{chosen}", first.address()))?;
    let token = first.run("skep swarm join-token --quiet worker")?;
    for node in others {
        join(node, first, token.trim(), interrupt)?;
    }
    await_ready(first, nodes.len(), interrupt)
}

fn join(node: &Host, manager: &Host, token: &str, interrupt: &Interrupt) -> Result<()> {
    interrupt.check()?;
    let (own, manager) = (node.address(), manager.address());
    node.run(&format!("skep swarm join --token {token} --advertise-addr {own} {manager}:2377"))?;
    Ok(())
}

fn await_ready(manager: &Host, count: usize, interrupt: &Interrupt) -> Result<()> {
    let deadline = Instant::now() + READY;
    while ready_nodes(manager)? < count {
        interrupt.check()?;
        ensure!(Instant::now() < deadline, "not all nodes got ready: {}", daemon::get(manager, "/nodes")?);
        thread::sleep(POLL);
    }
    Ok(())
}

fn ready_nodes(manager: &Host) -> Result<usize> {
    let nodes: serde_json::Value = serde_json::from_str(&daemon::get(manager, "/nodes")?)?;
    let nodes = nodes.as_array().context("a list of nodes")?;
    Ok(nodes.iter().filter(|node| node["Status"]["State"] == "ready").count())
}
