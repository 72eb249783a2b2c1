//! What goes wrong.

use super::world::{Event, LineId, Millis, World};
use crate::store::disk::Death;
use rand::RngExt;
use skep_model::NodeId;

const HOUR: i64 = 3_600_000;
/// A clock set anew: back and forth by an hour, a day, ten years.
const JUMPS: [i64; 6] = [HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 87_600 * HOUR, -87_600 * HOUR];
/// How long silence lasts until the agent's pings have told it that its connection is gone.
const PINGS: std::ops::Range<Millis> = 5_000..10_000;

impl World {
    pub(super) fn fault(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 => self.manager_dies_soon(),
            20..40 => self.cut_somebody(),
            40..60 => self.kill_somebody(),
            60..75 => self.break_some_line(),
            75..85 => self.slow_somebody_down(),
            _ => self.set_a_clock(),
        }
    }

    /// At any operation of its disk from here on, or between a write and its answer.
    fn manager_dies_soon(&mut self) {
        if self.manager.is_none() {
            return;
        }
        match self.rng.random_range(0..4) {
            0 => self.manager_dies(Death::Killed),
            1 => self.dies_after_write = true,
            _ => {
                let operations = self.rng.random_range(0..40);
                self.tell(|| format!("the manager's disk stops after {operations} operations"));
                self.disk.die_after(operations);
            }
        }
    }

    fn somebody(&mut self) -> Option<NodeId> {
        let nodes =
            self.agents.iter().filter(|(_, agent)| !agent.is_gone).map(|(node, _)| node.clone()).collect();
        self.pick(nodes)
    }

    fn cut_somebody(&mut self) {
        let Some(node) = self.somebody() else { return };
        let length: Millis = self.rng.random_range(100..25_000);
        self.cut(&node, length);
    }

    fn cut(&mut self, node: &NodeId, length: Millis) {
        let (now, pings) = (self.now, self.rng.random_range(PINGS));
        let Some(agent) = self.agents.get_mut(node) else { return };
        agent.cut = (now, now + length);
        self.figures.cuts += 1;
        let line = agent.line.filter(|_| length > pings);
        self.tell(|| format!("{node} is cut off for {length} ms"));
        if let Some(line) = line {
            self.at(now + pings, Event::AgentSeesEnd(line));
        }
    }

    fn kill_somebody(&mut self) {
        let Some(node) = self.somebody() else { return };
        self.kill_agent(&node);
        self.after(100..25_000, Event::AgentStarts(node));
    }

    fn break_some_line(&mut self) {
        let open: Vec<LineId> = self.agents.values().filter_map(|agent| agent.line).collect();
        if let Some(line) = self.pick(open) {
            self.tell(|| format!("line {line} breaks"));
            self.break_line(line);
        }
    }

    fn slow_somebody_down(&mut self) {
        let latency = self.rng.random_range(2..2_000);
        if let Some(agent) = self.somebody().and_then(|node| self.agents.get_mut(&node)) {
            agent.latency = latency;
        }
    }

    fn set_a_clock(&mut self) {
        let by = JUMPS[self.rng.random_range(0..JUMPS.len())];
        if self.chance(60) {
            // Never outside what a timestamp can be.
            self.manager_clock = (self.manager_clock + by).clamp(-2 * JUMPS[4], 2 * JUMPS[4]);
            self.tell(|| format!("the manager's clock jumps by {by} ms"));
        } else if let Some(agent) = self.somebody().and_then(|node| self.agents.get_mut(&node)) {
            agent.clock = by;
        }
    }

    /// The last fault is over: all hosts are up, all wires whole and quick. Clocks stay as they are.
    pub(super) fn make_peace(&mut self) {
        self.tell(|| "peace".to_owned());
        // What was about to happen doesn't any more.
        self.disk.die_after(u64::MAX / 2);
        self.dies_after_write = false;
        self.start_manager();
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        for node in nodes {
            if let Some(agent) = self.agents.get_mut(&node) {
                agent.cut.1 = agent.cut.1.min(self.now);
                agent.latency = 10;
            }
            self.start_agent(&node);
        }
        self.activate_all();
    }
}
