//! Where it is measured: one host, with containers on a network of Skep's, and a namespace for each other daemon.

use super::names::{NETWORK, REPLICAS, SERVICES, SUBNET, Service, questions};
use super::others::{OTHERS, Other};
use crate::bench::quiet;
use crate::interrupt::Interrupt;
use crate::lab::{self, Host, Lab, UpOptions};
use crate::program::run_line;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where everybody listens, as in a container of Skep's.
pub(super) const AT: &str = "127.0.0.11";
/// That ask at once. Each may ask Skep 20,000 questions a second: so many that this limit is not what is measured.
pub(super) const ASKERS: usize = 16;

/// How long tasks may take to be in DNS, or a daemon to answer.
const READY: Duration = Duration::from_secs(30);
/// Between two looks at what cannot be waited for.
const POLL: Duration = Duration::from_millis(50);

pub(super) struct Contestant {
    /// With its version.
    pub(super) name: String,
    pub(super) has_reverse: bool,
    pub(super) questions: PathBuf,
    kind: &'static str,
    process: u32,
}

impl Contestant {
    /// The namespace that an asker asks in: each in its own container of Skep's, all in the other daemon's.
    pub(super) fn netns(&self, asker: usize) -> String {
        if self.kind == "skep" { format!("asker-{asker}") } else { self.kind.to_owned() }
    }

    pub(super) fn seconds(&self) -> Result<f64> {
        quiet::seconds(self.process).with_context(|| format!("{} has ended", self.name))
    }
}

pub(super) struct Site {
    lab: Lab,
    host: Host,
    services: Vec<Service>,
    contestants: Vec<Contestant>,
    daemons: Vec<Child>,
}

impl Site {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new("bench-dns")?;
        let host = lab.node(1);
        Ok(Self { lab, host, services: Vec::new(), contestants: Vec::new(), daemons: Vec::new() })
    }

    pub(super) fn build(&mut self, interrupt: &Interrupt) -> Result<()> {
        lab::up(&self.lab, &UpOptions { nodes: 1, ..UpOptions::default() })?;
        self.host.run(&format!(
            "skep network create --driver overlay --attachable --subnet {SUBNET} --opt encrypted=false {NETWORK}"
        ))?;
        for asker in 1..=ASKERS {
            self.host.run(&format!("ip netns add asker-{asker}"))?;
            self.host.run(&format!("skep attach {NETWORK} --netns /run/netns/asker-{asker}"))?;
        }
        for number in 1..=SERVICES {
            interrupt.check()?;
            self.host.run(&format!(
                "skep service create --detach --name s{number} --replicas {REPLICAS} --network {NETWORK} host sleep 86400"
            ))?;
        }
        for number in 1..=SERVICES {
            let service = await_some(interrupt, || self.service(format!("s{number}")))?;
            self.services.push(service);
        }
        self.add_skep()?;
        OTHERS.iter().try_for_each(|other| self.add(other, interrupt))
    }

    /// As its own resolver tells it; that this is right is for the tests of names to say.
    fn service(&self, name: String) -> Result<Service> {
        let addresses = |name: &str| -> Result<Vec<Ipv4Addr>> {
            let said = self.host.run(&format!("ip netns exec asker-1 dig @{AT} +short +tries=1 {name} A"))?;
            said.lines().map(|line| Ok(line.parse()?)).collect()
        };
        Service::new(name.clone(), &addresses(&name)?, addresses(&format!("tasks.{name}"))?)
    }

    fn add_skep(&mut self) -> Result<()> {
        let process = self.host.daemon_pid()?.context("no skepd runs")?;
        let questions = self.write("skep", "questions", &questions(&self.services, true))?;
        let name = "Skep".to_owned();
        self.contestants.push(Contestant { name, has_reverse: true, questions, kind: "skep", process });
        Ok(())
    }

    fn add(&mut self, other: &Other, interrupt: &Interrupt) -> Result<()> {
        let (kind, has_reverse) = (other.kind, other.has_reverse);
        let questions = self.write("questions", kind, &questions(&self.services, has_reverse))?;
        let names = self.write(kind, "names", &(other.names)(&self.services))?;
        let directory = names.parent().context("a file is in a directory")?.display().to_string();
        self.host.run(&format!("ip netns add {kind}"))?;
        self.host.run(&format!("ip -n {kind} link set lo up"))?;

        let mut command = self.host.command("ip")?;
        command.args(["netns", "exec", kind]);
        command.args(other.line.replace("DIR", &directory).split_whitespace());
        let log = File::create(self.lab.directory().join(format!("{kind}.log")))?;
        let daemon = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.daemons.push(daemon);
        await_some(interrupt, || {
            self.host.run(&format!(
                "ip netns exec {kind} dig @{AT} +short +tries=1 +time=1 {} A",
                self.services[0].name
            ))
        })
        .with_context(|| format!("{kind} does not answer"))?;
        let name = format!("{kind} {}", version(other)?);
        let process = await_some(interrupt, || process_of(kind, &directory))?;
        self.contestants.push(Contestant { name, has_reverse, questions, kind, process });
        Ok(())
    }

    fn write(&self, directory: &str, file: &str, content: &str) -> Result<PathBuf> {
        let directory = self.lab.directory().join(directory);
        fs::create_dir_all(&directory)?;
        let file = directory.join(file);
        fs::write(&file, content)?;
        Ok(file)
    }

    pub(super) fn contestants(&self) -> &[Contestant] {
        &self.contestants
    }

    /// With its version.
    pub(super) fn name_of(&self, kind: &str) -> Option<&str> {
        self.contestants.iter().find(|contestant| contestant.kind == kind).map(|own| own.name.as_str())
    }

    pub(super) fn services(&self) -> &[Service] {
        &self.services
    }

    /// Runs a program where an asker of the contestant's is.
    pub(super) fn run(&self, whom: &Contestant, asker: usize, line: &str) -> Result<String> {
        self.host.run(&format!("ip netns exec {} {line}", whom.netns(asker)))
    }

    /// What runs on the host ends with it.
    pub(super) fn tear_down(&mut self) -> Result<()> {
        let down = lab::down(&self.lab);
        for mut daemon in self.daemons.drain(..) {
            daemon.wait()?;
        }
        down
    }
}

fn await_some<T>(interrupt: &Interrupt, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + READY;
    loop {
        interrupt.check()?;
        match attempt() {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(POLL),
            done => return done,
        }
    }
}

fn version(other: &Other) -> Result<String> {
    let (line, before) = other.version;
    let said = run_line(line)?;
    let mut words = said.split_whitespace().skip_while(|word| *word != before);
    words.nth(1).map(str::to_owned).with_context(|| format!("`{line}` tells no version"))
}

/// The daemon that was told of this directory; some go into the background.
fn process_of(kind: &str, directory: &str) -> Result<u32> {
    let is_it = |process: &u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        read("comm").trim_end() == kind && read("cmdline").contains(directory)
    };
    let processes: Vec<_> = lab::processes()?.filter(is_it).collect();
    match processes.as_slice() {
        [process] => Ok(*process),
        others => bail!("{} processes of {kind} run", others.len()),
    }
}
