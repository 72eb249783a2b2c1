//! Flows of the program `flow` in a lab, and what it says of them.

use crate::lab::{CLIENT, Lab};
use crate::process::Running;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where `flow serve` listens, also as a published port.
pub const PORT: &str = "7000";

/// A container takes a second to start, on a machine that has something else to do some more.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);
/// Longer than the program itself takes for a hang.
const ENDS_WITHIN: Duration = Duration::from_secs(150);

pub struct Flow(Running);

/// What a flow said at its end.
#[derive(Debug)]
pub struct Report(BTreeMap<String, u64>);

impl Flow {
    /// In a container of n1, on a network there, to a service.
    pub fn contained(lab: &Lab, network: &str, what: &str, service: &str, amount: u64) -> Result<Self> {
        let (program, amount) = (lab.program("flow"), amount.to_string());
        let run = ["skep", "run", "--rm", "--network", network, "host"];
        // It sends at once: where it is served they may hear that before they are told whose address it is.
        lab.expect_drops(&["spoofed_mac"]);
        Self::start(lab, "n1", &[&run[..], &[&program, what, service, PORT, &amount]].concat())
    }

    /// From the outside machine to a node's published port.
    pub fn outside(lab: &Lab, what: &str, node: usize, amount: u64) -> Result<Self> {
        let (program, amount) = (lab.program("flow"), amount.to_string());
        Self::start(lab, CLIENT, &[&program, what, &Lab::addr(node), PORT, &amount])
    }

    /// Returns when it has begun.
    fn start(lab: &Lab, machine: &str, words: &[&str]) -> Result<Self> {
        let mut running = Running::start(&mut lab.command(machine, words)?)?;
        running.wait_for_line("begun", BEGINS_WITHIN)?;
        Ok(Self(running))
    }

    /// Waits for its end.
    pub fn report(mut self) -> Result<Report> {
        Report::read(&self.0.wait_for_line("longest_gap_ms", ENDS_WITHIN)?)
    }
}

impl Report {
    pub fn read(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let numbers = words.chunks_exact(2).map(|pair| Ok((pair[0].to_owned(), pair[1].parse()?)));
        Ok(Self(numbers.collect::<Result<_>>().with_context(|| line.to_owned())?))
    }

    pub fn number(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().with_context(|| format!("no `{name}`: {self:?}"))
    }

    /// All that was sent arrived as it was sent: of a stream every byte, of datagrams at least a half, and none changed.
    pub fn ensure_intact(&self) -> Result<()> {
        if self.0.contains_key("whole") {
            ensure!(self.number("whole")? == 1 && self.number("bytes")? > 0, "{self:?}");
            return Ok(());
        }
        let (sent, received) = (self.number("sent")?, self.number("received")?);
        ensure!(self.number("wrong")? == 0 && received * 2 > sent, "{self:?}");
        Ok(())
    }

    /// The longest time in which the receiver received nothing.
    pub fn longest_gap(&self) -> Result<Duration> {
        Ok(Duration::from_millis(self.number("longest_gap_ms")?))
    }
}
