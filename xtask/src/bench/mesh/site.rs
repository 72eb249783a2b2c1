//! Where it is measured: two labs of two hosts and a client outside. In each, the client asks n1, and n2 has the server.

use super::balancers;
use crate::bench::{kernel, serve};
use crate::interrupt::Interrupt;
use crate::lab::{self, Host, Lab, UpOptions};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

const SKEP_LAB: &str = "bench-mesh";
/// Hosts whose Skep has left: none of its rules is in the way of the others.
const OTHERS_LAB: &str = "bench-mesh-others";

/// What the servers listen on, in the task and in the kernel's container.
const SERVER_PORT: u16 = 8000;
const SERVER: &str = "10.77.0.2";
const SERVER_NETNS: &str = "server";

/// How long the way to a server that listens may take to be there.
const READY: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

/// Who passes connections on from n1 to n2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contestant {
    Skep,
    HaProxy,
    Nftables,
}

impl Contestant {
    pub(super) const ALL: [Self; 3] = [Self::HaProxy, Self::Nftables, Self::Skep];

    /// On n1.
    fn port(self) -> u16 {
        match self {
            Self::Skep => 8080,
            Self::HaProxy => 8081,
            Self::Nftables => 8082,
        }
    }
}

pub(super) struct Site {
    skep: Lab,
    others: Lab,
}

impl Site {
    pub(super) fn build(interrupt: &Interrupt) -> Result<Self> {
        let site = Self { skep: Lab::new(SKEP_LAB)?, others: Lab::new(OTHERS_LAB)? };
        if let Err(error) = site.build_all(interrupt) {
            // The first error says more than one of clearing up.
            let _ = site.tear_down();
            return Err(error);
        }
        Ok(site)
    }

    fn build_all(&self, interrupt: &Interrupt) -> Result<()> {
        for lab in [&self.skep, &self.others] {
            lab::up(lab, &UpOptions { nodes: 2, ..UpOptions::default() })?;
        }
        self.serve_by_skep()?;
        self.serve_by_kernel(interrupt)?;
        let [n1, _] = self.others_hosts();
        balancers::haproxy(&n1, &self.others, Contestant::HaProxy.port(), (SERVER, SERVER_PORT))?;
        balancers::nftables(&n1, Contestant::Nftables.port(), (SERVER, SERVER_PORT))?;
        Contestant::ALL.into_iter().try_for_each(|whom| self.until_answered(whom, interrupt))
    }

    fn serve_by_skep(&self) -> Result<()> {
        let (program, port) = (self.skep.programs().join("load"), Contestant::Skep.port());
        self.skep.node(1).run(&format!(
            "skep service create --quiet --name load --constraint node.hostname==n2 --publish {port}:{SERVER_PORT} host {} serve {SERVER_PORT}",
            program.display()
        ))?;
        Ok(())
    }

    /// n1 itself is on the bridge, as a host with containers is.
    fn serve_by_kernel(&self, interrupt: &Interrupt) -> Result<()> {
        let [n1, n2] = self.others_hosts();
        n2.run("skep swarm leave")?;
        n1.run("skep swarm leave --force")?;
        for (host, peer) in [(&n1, &n2), (&n2, &n1)] {
            kernel::bridge(host)?;
            kernel::vxlan(host, peer)?;
        }
        n1.run("ip addr add 10.77.0.1/24 dev br0")?;
        kernel::container(&n2, SERVER_NETNS, SERVER, kernel::VXLAN_MTU)?;
        let program = self.others.programs().join("load");
        let line = format!("{} serve {SERVER_PORT}", program.display());
        serve::start(&n2, SERVER_NETNS, &line, ("tcp", SERVER_PORT), interrupt)
    }

    fn others_hosts(&self) -> [Host; 2] {
        [1, 2].map(|number| self.others.node(number))
    }

    fn until_answered(&self, whom: Contestant, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            interrupt.check()?;
            let answer = self.load(whom, "paced", 1, 5)?;
            if answer["failed"] == 0 && answer["done"] != 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{whom:?} passes nothing on: {answer}");
            thread::sleep(POLL);
        }
    }

    /// What the program `load` says, on the machine outside.
    pub(super) fn load(&self, whom: Contestant, what: &str, seconds: u64, number: u32) -> Result<Value> {
        let lab = if whom == Contestant::Skep { &self.skep } else { &self.others };
        let (program, address, port) = (lab.programs().join("load"), lab.node(1).address(), whom.port());
        let line = format!("{} {what} {address} {port} {seconds} {number}", program.display());
        let said = lab.client().run(&line)?;
        serde_json::from_str(&said).with_context(|| format!("`{line}` said {said}"))
    }

    /// Whose `skepd` is at work.
    pub(super) fn agents(&self, whom: Contestant) -> Vec<Host> {
        match whom {
            Contestant::Skep => vec![self.skep.node(1), self.skep.node(2)],
            Contestant::HaProxy | Contestant::Nftables => Vec::new(),
        }
    }

    pub(super) fn tear_down(&self) -> Result<()> {
        lab::down(&self.skep).and(lab::down(&self.others))
    }
}
