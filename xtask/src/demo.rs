//! `cargo xtask demo`: a hive of three hosts, from nothing to a published service, told as it happens.

use crate::interrupt::Interrupt;
use crate::lab::{self, Host, Lab, UpOptions};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// A lab of its own, so that one that is up is not in the way.
const NAME: &str = "demo";
const NODES: usize = 3;
const PORT: u16 = 4568;
/// How long the first answers may take: tasks are running, their programs are just about to listen.
const ANSWERS: Duration = Duration::from_secs(15);
/// In seconds. `skep service create` waits for its tasks as long as they try; the story must not.
const LONGEST_STEP: &str = "45";
const POLL: Duration = Duration::from_millis(100);

/// Tells the story and removes its lab, also when interrupted.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = UpOptions::parse(words)?;
    ensure!(options.nodes == NODES, "the story is one of {NODES} hosts: leave out --nodes");
    let lab = Lab::new(NAME)?;
    lab::prepare()?;
    let start = Instant::now();
    say(
        "Three Linux hosts and a machine outside, each in a network namespace of its own. Swarm init and two joins:",
    );
    lab::up(&lab, &options)?;
    let interrupt = Interrupt::watch()?;
    let told = tell(&Story { lab: &lab, encrypted: options.encrypted, interrupt: &interrupt });
    let removed = lab::down(&lab);
    told.and(removed)?;
    say(&format!("Everything is removed again. That took {:.0} s.", start.elapsed().as_secs_f64()));
    Ok(())
}

struct Story<'a> {
    lab: &'a Lab,
    encrypted: bool,
    interrupt: &'a Interrupt,
}

fn tell(story: &Story<'_>) -> Result<()> {
    story.show("n1", "skep node ls")?;

    say(
        "A network of the cluster, and redis on it. Nothing is published: redis is for those on the network.",
    );
    let plain = if story.encrypted { "" } else { "--opt encrypted=false " };
    story.show("n1", &format!("skep network create --driver overlay {plain}--attachable backend"))?;
    story.show(
        "n1",
        "skep service create --detach --name redis --network backend host redis-server --save '' --protected-mode no",
    )?;

    say("Three web counters that find it by its name, published on port 4568 of every host.");
    let counter = story.lab.programs().join("visitor-counter");
    let counter = counter.display();
    story.show(
        "n1",
        &format!(
            "skep service create --name counter --replicas 3 --network backend --env REDIS_HOST=redis --publish {PORT}:4567 host {counter}"
        ),
    )?;
    story.show("n1", "skep service ls")?;
    story.show("n1", "skep service ps counter")?;

    say(
        "Now from the machine outside, 192.168.77.200. Any host answers; the tasks take turns; one redis counts.",
    );
    story.until_answered()?;
    let mut answers = BTreeSet::new();
    for _ in 0..NODES {
        for node in 1..=NODES {
            let page = story.show(
                "client",
                &format!("curl --silent --show-error {}:{PORT}", story.lab.node(node).address()),
            )?;
            answers.insert(page.split_whitespace().nth(4).unwrap_or_default().to_owned());
        }
    }
    ensure!(answers.len() == 3, "only {answers:?} answered");

    say("The tasks saw the client's own address, whichever host it asked.");
    let log = story.show("n1", "skep service logs --tail 1 counter")?;
    ensure!(log.contains("192.168.77.200"), "the client's address is not in the log");

    say("Redis is not there for the outside, only for the network: a one-off container asks it by name.");
    story.show_refused("client", "curl --silent --show-error --max-time 2 192.168.77.1:6379")?;
    let pong = story.show("n2", "skep run --rm --network backend host redis-cli -h redis ping")?;
    ensure!(pong.trim() == "PONG", "redis answered {pong}");

    say(
        "What the kernel had to do with it: no vxlan device, no IPVS, no IPsec. Only TAPs, a bridge and nftables.",
    );
    story.show("n1", "ip -brief link")?;
    let vxlan = story.show("n1", "ip -brief link show type vxlan")?;
    ensure!(vxlan.trim().is_empty(), "there is a kernel vxlan device: {vxlan}");
    Ok(())
}

impl Story<'_> {
    /// Types a command on a machine and shows what came back; the output.
    fn show(&self, machine: &str, line: &str) -> Result<String> {
        let (output, success) = self.typed(machine, line)?;
        ensure!(success, "that failed, or took more than {LONGEST_STEP} s");
        Ok(output)
    }

    /// As [`Self::show`], for what has to fail.
    fn show_refused(&self, machine: &str, line: &str) -> Result<()> {
        let (_, success) = self.typed(machine, line)?;
        ensure!(!success, "that was to be refused");
        Ok(())
    }

    fn typed(&self, machine: &str, line: &str) -> Result<(String, bool)> {
        self.interrupt.check()?;
        println!("\n{machine}# {line}");
        let output = self.command(machine, line)?.output().context("lab exec")?;
        let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if !text.is_empty() {
            println!("{}", text.trim_end());
        }
        self.interrupt.check()?;
        Ok((text, output.status.success()))
    }

    fn command(&self, machine: &str, line: &str) -> Result<std::process::Command> {
        let mut command = self.host(machine)?.command("timeout")?;
        command.args([LONGEST_STEP, "sh", "-c", line]).stdin(std::process::Stdio::null());
        Ok(command)
    }

    fn host(&self, machine: &str) -> Result<Host> {
        self.lab.host(machine)
    }

    fn until_answered(&self) -> Result<()> {
        let deadline = Instant::now() + ANSWERS;
        for node in 1..=NODES {
            let line = format!("curl --silent --fail --max-time 5 {}:{PORT}", self.lab.node(node).address());
            while !self.command("client", &line)?.output()?.status.success() {
                self.interrupt.check()?;
                ensure!(Instant::now() < deadline, "no answer to `{line}`");
                thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

fn say(text: &str) {
    println!("\n── {text}");
}
