//! Somebody who connects two ends, and how programs run at them.

use crate::bench::quiet;
use crate::lab::Host;
use anyhow::{Context, Result};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take to listen once it runs.
const LISTENS: Duration = Duration::from_secs(5);
/// The kernel tells nobody when a program begins to listen.
const POLL: Duration = Duration::from_millis(20);

/// Programs that answer questions, each with the port it is known to listen on.
const SERVERS: [(&str, u16); 2] =
    [("iperf3 --server --daemon --bind", 5201), ("sockperf server --daemonize -i", 11111)];

/// One way to connect two ends.
pub(super) struct Contestant {
    pub(super) name: String,
    /// Where questions are asked, and where they are answered.
    ends: [End; 2],
    /// The address of the second end.
    pub(super) server: String,
    /// The processes at work in between. None: the kernel, whose work is everybody's.
    agents: Vec<u32>,
}

/// A network namespace of a host: a container's, or the host's own.
pub(super) struct End {
    pub(super) host: Host,
    pub(super) netns: Option<&'static str>,
}

impl Contestant {
    /// With programs at the second end that answer.
    pub(super) fn new(name: String, ends: [End; 2], server: String, agents: Vec<u32>) -> Result<Self> {
        let contestant = Self { name, ends, server, agents };
        contestant.serve().with_context(|| format!("nothing answers at the end of {}", contestant.name))?;
        Ok(contestant)
    }

    fn serve(&self) -> Result<()> {
        let [_, end] = &self.ends;
        for (program, port) in SERVERS {
            end.run(&format!("{program} {}", self.server))?;
            let listening = format!("ss -H -l -n -t -u src {}:{port}", self.server);
            let deadline = Instant::now() + LISTENS;
            while end.run(&listening)?.is_empty() {
                anyhow::ensure!(Instant::now() < deadline, "`{program}` does not listen");
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Runs a program at the first end.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        self.ends[0].run(line)
    }

    /// Seconds of processor that its agents have used.
    pub(super) fn agent_seconds(&self) -> Result<f64> {
        let ended = || format!("an agent of {} has ended", self.name);
        self.agents.iter().map(|agent| quiet::seconds(*agent).with_context(ended)).sum()
    }

    /// What the largest of its agents has in memory, in MiB. None: it has no agents.
    pub(super) fn agent_mebibytes(&self) -> Result<Option<f64>> {
        let resident: Vec<f64> = self.agents.iter().map(|agent| mebibytes(*agent)).collect::<Result<_>>()?;
        Ok(resident.into_iter().reduce(f64::max))
    }
}

impl End {
    fn run(&self, line: &str) -> Result<String> {
        match self.netns {
            Some(netns) => self.host.run(&format!("ip netns exec {netns} {line}")),
            None => self.host.run(line),
        }
    }
}

/// VmRSS of proc_pid_status(5).
fn mebibytes(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("an agent has ended")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kibibytes: f64 = resident.context("no VmRSS")?.trim().parse()?;
    Ok(kibibytes / 1024.0)
}
