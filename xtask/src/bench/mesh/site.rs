//! Where it is measured: a lab for each contestant, of two hosts and a client outside. The client asks n1, and n2 has the
//! server, in a container; with nobody in between it asks n2, and the server is in none.

use super::balancers;
use crate::bench::{kernel, serve};
use crate::interrupt::Interrupt;
use crate::lab::{self, Host, Lab, UpOptions};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

/// What n1 is asked at.
const PORT: u16 = 8080;
/// What the servers listen on, in the task and in the kernel's container.
const SERVER_PORT: u16 = 8000;
const SERVER: &str = "10.77.0.2";
const SERVER_NETNS: &str = "server";
/// What the server without a container listens on.
const DIRECT_PORT: u16 = 9000;

/// How long the way to a server that listens may take to be there.
const READY: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

/// Who passes connections on from n1 to n2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contestant {
    Nobody,
    HaProxy,
    Nftables,
    Skep,
}

impl Contestant {
    /// Nobody is asked before the others.
    pub(super) const ALL: [Self; 4] = [Self::Nobody, Self::HaProxy, Self::Nftables, Self::Skep];

    fn lab(self) -> Result<Lab> {
        Lab::new(match self {
            Self::Nobody => "bench-mesh-nobody",
            Self::HaProxy => "bench-mesh-haproxy",
            Self::Nftables => "bench-mesh-nftables",
            Self::Skep => "bench-mesh",
        })
    }
}

pub(super) struct Site {
    labs: Vec<(Contestant, Lab)>,
}

impl Site {
    pub(super) fn build(interrupt: &Interrupt) -> Result<Self> {
        let mut site = Self { labs: Vec::new() };
        if let Err(error) = site.build_all(interrupt) {
            // The first error says more than one of clearing up.
            let _ = site.tear_down();
            return Err(error);
        }
        Ok(site)
    }

    fn build_all(&mut self, interrupt: &Interrupt) -> Result<()> {
        for whom in Contestant::ALL {
            let lab = whom.lab()?;
            lab::up(&lab, &UpOptions { nodes: 2, ..UpOptions::default() })?;
            self.labs.push((whom, lab.clone()));
            let entry = lab.node(1);
            match whom {
                Contestant::Nobody => {
                    leave(&lab)?;
                    let line = format!("{} serve {DIRECT_PORT}", lab.programs().join("load").display());
                    serve::start(&lab.node(2), None, &line, ("tcp", DIRECT_PORT), interrupt)?;
                }
                Contestant::HaProxy => {
                    serve_by_kernel(&lab, interrupt)?;
                    balancers::haproxy(&entry, &lab, PORT, (SERVER, SERVER_PORT))?;
                }
                Contestant::Nftables => {
                    serve_by_kernel(&lab, interrupt)?;
                    balancers::nftables(&entry, PORT, (SERVER, SERVER_PORT))?;
                }
                Contestant::Skep => serve_by_skep(&lab)?,
            }
            self.until_answered(whom, interrupt)?;
        }
        Ok(())
    }

    fn lab(&self, whom: Contestant) -> Result<&Lab> {
        let own = self.labs.iter().find(|(contestant, _)| *contestant == whom);
        own.map(|(_, lab)| lab).context("its lab is not up")
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
        let lab = self.lab(whom)?;
        let program = lab.programs().join("load");
        let (asked, port) = match whom {
            Contestant::Nobody => (lab.node(2), DIRECT_PORT),
            _ => (lab.node(1), PORT),
        };
        let line = format!("{} {what} {} {port} {seconds} {number}", program.display(), asked.address());
        let said = lab.client().run(&line)?;
        serde_json::from_str(&said).with_context(|| format!("`{line}` said {said}"))
    }

    /// Whose `skepd` is at work.
    pub(super) fn agents(&self, whom: Contestant) -> Result<Vec<Host>> {
        let lab = self.lab(whom)?;
        Ok(if whom == Contestant::Skep { vec![lab.node(1), lab.node(2)] } else { Vec::new() })
    }

    pub(super) fn tear_down(&mut self) -> Result<()> {
        self.labs.drain(..).try_for_each(|(_, lab)| lab::down(&lab))
    }
}

fn serve_by_skep(lab: &Lab) -> Result<()> {
    let program = lab.programs().join("load");
    lab.node(1).run(&format!(
        "skep service create --quiet --name load --constraint node.hostname==n2 --publish {PORT}:{SERVER_PORT} host {} serve {SERVER_PORT}",
        program.display()
    ))?;
    Ok(())
}

fn leave(lab: &Lab) -> Result<()> {
    lab.node(2).run("skep swarm leave")?;
    lab.node(1).run("skep swarm leave --force")?;
    Ok(())
}

/// On hosts that Skep leaves first: none of its rules is in the way then. n1 itself is on the bridge, as a host with
/// containers is.
fn serve_by_kernel(lab: &Lab, interrupt: &Interrupt) -> Result<()> {
    leave(lab)?;
    let (n1, n2) = (lab.node(1), lab.node(2));
    for (host, peer) in [(&n1, &n2), (&n2, &n1)] {
        kernel::bridge(host)?;
        kernel::vxlan(host, peer)?;
    }
    n1.run("ip addr add 10.77.0.1/24 dev br0")?;
    kernel::container(&n2, SERVER_NETNS, SERVER, kernel::VXLAN_MTU)?;
    let line = format!("{} serve {SERVER_PORT}", lab.programs().join("load").display());
    serve::start(&n2, Some(SERVER_NETNS), &line, ("tcp", SERVER_PORT), interrupt)
}
