//! Time, wires and what happens next.

use super::Figures;
use super::agent::Agent;
use super::check::Ledger;
use super::manager::Manager;
use crate::store::disk::Disk;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skep_model::session::{ToAgent, ToManager};
use skep_model::{NodeId, TaskId};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Milliseconds since the schedule began.
pub(super) type Millis = u64;
pub(super) type LineId = u64;

/// TCP's first retransmission; each later one waits twice as long.
pub(super) const RETRANSMIT: Millis = 200;

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) now: Millis,
    events: BTreeMap<(Millis, u64), Event>,
    last_id: u64,
    epoch: Instant,
    tells: bool,
    pub(super) lines: BTreeMap<LineId, Line>,
    pub(super) disk: Disk,
    pub(super) manager: Option<Manager>,
    /// Counts the manager's starts.
    pub(super) manager_life: u64,
    /// How far the manager's clock is off, in milliseconds.
    pub(super) manager_clock: i64,
    /// It dies after its next write, before it can say that it was done.
    pub(super) dies_after_write: bool,
    pub(super) agents: BTreeMap<NodeId, Agent>,
    pub(super) ledger: Ledger,
    pub(super) figures: Figures,
}

/// One connection of an agent to the manager.
pub(super) struct Line {
    pub(super) node: NodeId,
    /// The manager's life it belongs to.
    pub(super) manager_life: u64,
    pub(super) up: VecDeque<ToManager>,
    pub(super) down: VecDeque<ToAgent>,
    pub(super) open_at_agent: bool,
    pub(super) open_at_manager: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The next message of a line arrives, or is sent again after the wait.
    Up(LineId, Millis),
    Down(LineId, Millis),
    ManagerSeesEnd(LineId, Millis),
    AgentSeesEnd(LineId),
    /// The agent's nth SYN of one attempt.
    Syn(NodeId, u64, usize),
    Heartbeat(LineId),
    TaskStep(NodeId, u64, TaskId),
    AgentStarts(NodeId),
    ManagerStarts,
    Plan(u64),
    Liveness(u64),
    Drains(u64),
    Assign(u64, LineId),
    Operate,
    Fault,
}

impl World {
    pub(super) fn new(seed: u64, tells: bool) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            events: BTreeMap::new(),
            last_id: 0,
            epoch: Instant::now(),
            tells,
            lines: BTreeMap::new(),
            disk: Disk::default(),
            manager: None,
            manager_life: 0,
            manager_clock: 0,
            dies_after_write: false,
            agents: BTreeMap::new(),
            ledger: Ledger::default(),
            figures: Figures::default(),
        };
        world.found();
        world
    }

    /// The story of a schedule: trouble first, then peace, in which everything has to become well.
    pub(super) fn play(mut self) -> Figures {
        let (operations, faults) = (self.rng.random_range(5..30), self.rng.random_range(0..10));
        let trouble: Millis = 40_000;
        for (count, event) in [(operations, Event::Operate), (faults, Event::Fault)] {
            for _ in 0..count {
                self.after(0..trouble, event.clone());
            }
        }
        self.run_until(trouble);
        self.make_peace();
        self.expect_agreement();
        self.expect_whole();
        self.figures.virtual_seconds = self.now / 1_000;
        self.figures
    }

    pub(super) fn run_until(&mut self, time: Millis) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > time {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.figures.events += 1;
            self.happen(event);
        }
        self.now = time;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(line, wait) => self.arrive_up(line, wait),
            Event::Down(line, wait) => self.arrive_down(line, wait),
            Event::ManagerSeesEnd(line, wait) => self.manager_sees_end(line, wait),
            Event::AgentSeesEnd(line) => self.agent_sees_end(line),
            Event::Syn(node, life, nth) => self.syn(&node, life, nth),
            Event::Heartbeat(line) => self.heartbeat(line),
            Event::TaskStep(node, life, task) => self.task_step(&node, life, &task),
            Event::AgentStarts(node) => self.start_agent(&node),
            Event::ManagerStarts => self.start_manager(),
            Event::Plan(life) => self.plan(life),
            Event::Liveness(life) => self.look_for_silent(life),
            Event::Drains(life) => self.judge_drains(life),
            Event::Assign(life, line) => self.assign_when_due(life, line),
            Event::Operate => self.operate(),
            Event::Fault => self.fault(),
        }
    }

    pub(super) fn after(&mut self, wait: Range<Millis>, event: Event) {
        let wait = self.rng.random_range(wait);
        self.at(self.now + wait, event);
    }

    pub(super) fn at(&mut self, time: Millis, event: Event) {
        let id = self.id();
        self.events.insert((time, id), event);
    }

    pub(super) fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    pub(super) fn pick<T>(&mut self, from: Vec<T>) -> Option<T> {
        let index = self.rng.random_range(0..from.len().max(1));
        from.into_iter().nth(index)
    }

    pub(super) fn instant(&self) -> Instant {
        self.epoch + Duration::from_millis(self.now)
    }

    /// What a clock shows that is `off` milliseconds wrong.
    pub(super) fn clock(&self, off: i64) -> Timestamp {
        let begin = Timestamp::from_second(1_800_000_000).unwrap();
        begin.checked_add(SignedDuration::from_millis(self.now as i64 + off)).unwrap()
    }

    pub(super) fn manager_time(&self) -> Timestamp {
        self.clock(self.manager_clock)
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>7} {}", self.now, what());
        }
    }

    pub(super) fn send_up(&mut self, line: LineId, message: ToManager) {
        let Some(open) = self.lines.get_mut(&line).filter(|line| line.open_at_agent) else { return };
        open.up.push_back(message);
        let latency = self.agents[&open.node].latency;
        self.after(1..latency, Event::Up(line, RETRANSMIT));
    }

    pub(super) fn send_down(&mut self, line: LineId, message: ToAgent) {
        let Some(open) = self.lines.get_mut(&line).filter(|line| line.open_at_manager) else { return };
        open.down.push_back(message);
        let latency = self.agents[&open.node].latency;
        self.after(1..latency, Event::Down(line, RETRANSMIT));
    }

    /// Whether nothing passes now; then `event` comes with the next retransmission.
    fn is_held_up(&mut self, line: LineId, wait: Millis, event: impl Fn(LineId, Millis) -> Event) -> bool {
        let cut = self.lines.get(&line).and_then(|line| self.agents[&line.node].cut_until(self.now));
        if cut.is_some() {
            self.at(self.now + wait, event(line, wait * 2));
        }
        cut.is_some()
    }

    fn arrive_up(&mut self, id: LineId, wait: Millis) {
        if self.is_held_up(id, wait, Event::Up) {
            return;
        }
        let Some(line) = self.lines.get_mut(&id) else { return };
        let Some(message) = line.up.pop_front() else { return };
        if line.open_at_manager && line.manager_life == self.manager_life {
            self.manager_hears(id, message);
        }
    }

    fn arrive_down(&mut self, id: LineId, wait: Millis) {
        if self.is_held_up(id, wait, Event::Down) {
            return;
        }
        let Some(line) = self.lines.get_mut(&id) else { return };
        let Some(message) = line.down.pop_front() else { return };
        if line.open_at_agent {
            self.agent_hears(id, message);
        }
    }

    fn manager_sees_end(&mut self, id: LineId, wait: Millis) {
        if self.is_held_up(id, wait, Event::ManagerSeesEnd) {
            return;
        }
        let Some(line) = self.lines.get(&id).filter(|line| line.open_at_manager) else { return };
        match line.up.is_empty() {
            true => self.manager_line_ended(id),
            // What was sent before the end comes before it.
            false => self.after(1..50, Event::ManagerSeesEnd(id, RETRANSMIT)),
        }
    }

    fn agent_sees_end(&mut self, id: LineId) {
        if self.lines.get(&id).is_some_and(|line| line.open_at_agent) {
            self.agent_line_ended(id);
        }
    }

    /// The connection breaks: each side loses some of what was on its way and learns of it in its own time.
    pub(super) fn break_line(&mut self, id: LineId) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let (up, down) = (line.up.len(), line.down.len());
        line.up.truncate(self.rng.random_range(0..=up));
        line.down.truncate(self.rng.random_range(0..=down));
        self.after(1..2_000, Event::AgentSeesEnd(id));
        self.after(1..20_000, Event::ManagerSeesEnd(id, RETRANSMIT));
    }
}
