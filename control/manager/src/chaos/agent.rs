//! A host: it makes true what it is assigned, reports until it is heard, and finds its manager again.

use super::world::{Event, Line, LineId, Millis, RETRANSMIT, World};
use skep_model::assign::{Assignment, Assignments, Desired};
use skep_model::node::{NodeDescription, NodeState};
use skep_model::session::{AttachRequest, Hello, TaskReport, ToAgent, ToManager};
use skep_model::task::{TaskState, TaskStatus};
use skep_model::{NodeId, TaskId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// When the SYNs of one attempt leave, and when the agent gives it up (its `CONNECT_LIMIT`).
const SYNS: [Millis; 4] = [0, 1_000, 3_000, 4_000];
/// The agent's wait between attempts grows from the first to the second (its `Backoff`).
const BACKOFF: (Millis, Millis) = (100, 3_000);
const HEARTBEAT: Millis = 5_000;

pub(super) struct Agent {
    number: u8,
    /// Counts its starts; None of its life survives but what is on its disk.
    pub(super) life: u64,
    pub(super) is_up: bool,
    /// The host is a member no more and will not come back.
    pub(super) is_gone: bool,
    pub(super) line: Option<LineId>,
    /// Nothing passes from the first to the second.
    pub(super) cut: (Millis, Millis),
    /// Messages take less than this.
    pub(super) latency: Millis,
    pub(super) clock: i64,
    backoff: Millis,
    sequence: u64,
    /// What this session brought.
    desired: Option<Desired>,
    /// What it makes true.
    pub(super) wanted: Option<Arc<Desired>>,
    pub(super) tasks: BTreeMap<TaskId, Local>,
    pending: BTreeMap<TaskId, (u64, TaskStatus)>,
    pub(super) attachments: BTreeSet<TaskId>,
    /// Tasks whose end the manager knows: they must never run again.
    ended: BTreeSet<TaskId>,
}

#[derive(Clone, Copy)]
struct TaskWanted {
    is_wanted: bool,
    /// No node sends it anything new.
    may_stop: bool,
}

/// One task's life on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Local {
    Preparing,
    Starting,
    Running,
    Stopping,
    Ended,
}

impl Agent {
    pub(super) fn new(number: u8) -> Self {
        Self {
            number,
            life: 0,
            is_up: false,
            is_gone: false,
            line: None,
            cut: (0, 0),
            latency: 10,
            clock: 0,
            backoff: BACKOFF.0,
            sequence: 0,
            desired: None,
            wanted: None,
            tasks: BTreeMap::new(),
            pending: BTreeMap::new(),
            attachments: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    pub(super) fn cut_until(&self, now: Millis) -> Option<Millis> {
        (self.cut.0..self.cut.1).contains(&now).then_some(self.cut.1)
    }

    fn hello(&self) -> Hello {
        let runs = |(task, local): (&TaskId, &Local)| (*local != Local::Ended).then(|| task.clone());
        let running: BTreeSet<TaskId> =
            self.tasks.iter().filter_map(runs).chain(self.pending.keys().cloned()).collect();
        Hello {
            description: NodeDescription {
                hostname: format!("n{}", self.number),
                ..NodeDescription::default()
            },
            data_path_addr: Ipv4Addr::new(192, 168, 77, self.number),
            routed: vec!["192.168.77.0/24".parse().unwrap()],
            attachments: self.attachments.iter().cloned().collect(),
            running: running.into_iter().collect(),
        }
    }
}

impl World {
    pub(super) fn start_agent(&mut self, node: &NodeId) {
        let Some(agent) = self.agents.get_mut(node).filter(|agent| !agent.is_up && !agent.is_gone) else {
            return;
        };
        agent.is_up = true;
        agent.life += 1;
        let life = agent.life;
        self.tell(|| format!("{node} starts"));
        self.after(1..50, Event::Syn(node.clone(), life, 0));
    }

    /// Its tasks die with it; so does what it holds.
    pub(super) fn kill_agent(&mut self, node: &NodeId) {
        let Some(agent) = self.agents.get_mut(node).filter(|agent| agent.is_up) else { return };
        self.figures.agent_deaths += 1;
        let line = agent.line.take();
        let (ended, number) = (std::mem::take(&mut agent.ended), agent.number);
        *agent =
            Agent { life: agent.life + 1, cut: agent.cut, clock: agent.clock, ended, ..Agent::new(number) };
        self.tell(|| format!("{node} dies"));
        if let Some(id) = line {
            self.close_at_agent(id);
        }
    }

    pub(super) fn syn(&mut self, node: &NodeId, life: u64, nth: usize) {
        let (now, is_manager_up) = (self.now, self.manager.is_some());
        let current = |agent: &&Agent| agent.is_up && agent.life == life && agent.line.is_none();
        let Some(agent) = self.agents.get(node).filter(current) else { return };
        if nth + 1 < SYNS.len() && agent.cut_until(now).is_some() {
            let next = Event::Syn(node.clone(), life, nth + 1);
            return self.at(now + SYNS[nth + 1] - SYNS[nth], next);
        }
        if nth + 1 == SYNS.len() || !is_manager_up {
            return self.try_again(node);
        }
        let id = self.id();
        let manager_life = self.manager_life;
        let (up, down) = (VecDeque::new(), VecDeque::new());
        let node_id = node.clone();
        let line = Line { node: node_id, manager_life, up, down, open_at_agent: true, open_at_manager: true };
        self.lines.insert(id, line);
        let Some(agent) = self.agents.get_mut(node) else { return };
        agent.line = Some(id);
        let hello = agent.hello();
        self.send_up(id, ToManager::Hello(hello));
    }

    fn try_again(&mut self, node: &NodeId) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        let (bound, life) = (agent.backoff, agent.life);
        agent.backoff = (bound * 2).min(BACKOFF.1);
        self.after(bound / 2..bound + 1, Event::Syn(node.clone(), life, 0));
    }

    fn close_at_agent(&mut self, id: LineId) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.open_at_agent = false;
            self.after(1..100, Event::ManagerSeesEnd(id, RETRANSMIT));
        }
    }

    pub(super) fn agent_line_ended(&mut self, id: LineId) {
        let node = self.lines[&id].node.clone();
        self.close_at_agent(id);
        let Some(agent) = self.agents.get_mut(&node).filter(|agent| agent.line == Some(id)) else { return };
        (agent.line, agent.desired) = (None, None);
        self.try_again(&node);
    }

    pub(super) fn heartbeat(&mut self, id: LineId) {
        if self.lines.get(&id).is_some_and(|line| line.open_at_agent) {
            self.send_up(id, ToManager::Heartbeat);
            self.at(self.now + HEARTBEAT, Event::Heartbeat(id));
        }
    }

    pub(super) fn agent_hears(&mut self, id: LineId, message: ToAgent) {
        let node = self.lines[&id].node.clone();
        let Some(agent) = self.agents.get_mut(&node).filter(|agent| agent.line == Some(id)) else { return };
        match message {
            ToAgent::Welcome { .. } => {
                agent.backoff = BACKOFF.0;
                self.at(self.now + HEARTBEAT, Event::Heartbeat(id));
                self.send_reports(&node);
            }
            ToAgent::Assignments(message) => self.take_assignments(id, &node, message),
            ToAgent::StatusAccepted { sequence } => {
                let accepted = agent.pending.extract_if(.., |_, (number, _)| *number <= sequence);
                let ended = accepted.filter(|(_, (_, status))| status.state > TaskState::Running);
                agent.ended.extend(ended.map(|(task, _)| task));
            }
            ToAgent::Attached { result: Ok(attached), .. } => {
                agent.attachments.insert(attached.task);
            }
            _ => {}
        }
    }

    fn take_assignments(&mut self, id: LineId, node: &NodeId, message: Assignments) {
        // Now and then one comes twice, or is lost: the next doesn't fit then.
        let (lost, twice) = (self.chance(2), self.chance(3));
        let Some(agent) = self.agents.get_mut(node) else { return };
        let mut desired = agent.desired.take().unwrap_or_default();
        let mut gap = lost;
        if !lost {
            gap |= desired.apply(message.clone()).is_err();
            gap |= twice && desired.apply(message).is_err();
        }
        let shared = Arc::new(desired.clone());
        agent.desired = Some(desired);
        if !lost {
            self.check_desired(&shared);
            let revision = shared.revision;
            if let Some(agent) = self.agents.get_mut(node) {
                agent.wanted = Some(shared);
            }
            self.reconcile(node);
            self.send_up(id, ToManager::Applied { revision });
        }
        if gap {
            self.send_up(id, ToManager::Resync);
        }
    }

    /// Starts and stops what the last set says.
    fn reconcile(&mut self, node: &NodeId) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        let Some(wanted) = agent.wanted.clone() else { return };
        let assigned: BTreeMap<&TaskId, TaskWanted> = wanted
            .assignments
            .values()
            .filter_map(|assignment| match assignment {
                Assignment::Task(task) if task.container.is_some() => {
                    let is_wanted = task.desired_state <= TaskState::Running;
                    Some((&task.id, TaskWanted { is_wanted, may_stop: !is_wanted && task.drained }))
                }
                _ => None,
            })
            .collect();
        let (mut steps, mut declined) = (Vec::new(), Vec::new());
        for (task, wanted) in &assigned {
            match (agent.tasks.get(*task), wanted.is_wanted) {
                (None, true) => {
                    assert!(!agent.ended.contains(*task), "{task} has ended and is started again on {node}");
                    agent.tasks.insert((*task).clone(), Local::Preparing);
                    steps.push((*task).clone());
                }
                (None, false) => {
                    agent.tasks.insert((*task).clone(), Local::Ended);
                    declined.push((*task).clone());
                }
                _ => {}
            }
        }
        let may_stop = |task: &TaskId| assigned.get(task).is_none_or(|wanted| wanted.may_stop);
        for (task, local) in agent.tasks.iter_mut().filter(|(task, _)| may_stop(task)) {
            if *local < Local::Stopping {
                *local = Local::Stopping;
                steps.push(task.clone());
            }
        }
        agent.tasks.retain(|task, local| *local != Local::Ended || assigned.contains_key(task));
        let life = agent.life;
        for task in steps {
            self.after(1..300, Event::TaskStep(node.clone(), life, task));
        }
        declined.iter().for_each(|task| self.report(node, task, TaskState::Shutdown));
    }

    pub(super) fn task_step(&mut self, node: &NodeId, life: u64, task: &TaskId) {
        let Some(agent) = self.agents.get_mut(node).filter(|agent| agent.life == life) else { return };
        let Some(local) = agent.tasks.get_mut(task) else { return };
        let (next, state) = match *local {
            Local::Preparing => (Local::Starting, TaskState::Starting),
            Local::Starting => (Local::Running, TaskState::Running),
            Local::Stopping => (Local::Ended, TaskState::Shutdown),
            Local::Running | Local::Ended => return,
        };
        *local = next;
        self.report(node, task, state);
        match next {
            Local::Starting => self.after(1..300, Event::TaskStep(node.clone(), life, task.clone())),
            Local::Ended => self.reconcile(node),
            _ => {}
        }
    }

    /// A running task ends by itself.
    pub(super) fn end_task(&mut self, node: &NodeId, task: &TaskId, state: TaskState) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        agent.tasks.insert(task.clone(), Local::Ended);
        self.report(node, task, state);
        self.reconcile(node);
    }

    fn report(&mut self, node: &NodeId, task: &TaskId, state: TaskState) {
        let off = self.agents[node].clock;
        let (timestamp, message) = (self.clock(off), format!("{state}"));
        let status = TaskStatus { timestamp, state, message, err: String::new(), container_status: None };
        self.tell(|| format!("{node}: {task} is {state}"));
        if let Some(agent) = self.agents.get_mut(node) {
            agent.sequence += 1;
            agent.pending.insert(task.clone(), (agent.sequence, status));
        }
        self.send_reports(node);
    }

    fn send_reports(&mut self, node: &NodeId) {
        let agent = &self.agents[node];
        let Some(line) = agent.line else { return };
        let report = |(task, (_, status)): (&TaskId, &(u64, TaskStatus))| TaskReport {
            task: task.clone(),
            status: status.clone(),
        };
        let statuses: Vec<TaskReport> = agent.pending.iter().map(report).collect();
        let message = ToManager::TaskStatuses { sequence: agent.sequence, statuses };
        if self.chance(5) {
            self.send_up(line, message.clone());
        }
        self.send_up(line, message);
    }

    pub(super) fn ask_to_attach(&mut self, node: &NodeId, network: &str) {
        let Some(line) = self.agents.get(node).and_then(|agent| agent.line) else { return };
        let request = AttachRequest {
            request: self.id(),
            network: network.to_owned(),
            name: String::new(),
            addr: None,
            container: "/run/netns/x".to_owned(),
        };
        self.send_up(line, ToManager::Attach(request));
    }

    pub(super) fn detach(&mut self, node: &NodeId) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        let Some(task) = agent.attachments.pop_first() else { return };
        if let Some(line) = agent.line {
            self.send_up(line, ToManager::Detach { task });
        }
    }

    /// The host leaves; without a manager it only forgets.
    pub(super) fn leave(&mut self, node: &NodeId) {
        let Some(line) = self.agents.get(node).and_then(|agent| agent.line) else { return };
        self.send_up(line, ToManager::Leave);
        self.kill_agent(node);
        // What was said is still delivered: the agent waits for the answer.
        if let Some(agent) = self.agents.get_mut(node) {
            agent.is_gone = true;
        }
    }

    /// Whether the manager should come to hold this node for ready.
    pub(super) fn is_member(&self, node: &NodeId) -> bool {
        let known = self.state().is_some_and(|state| state.nodes.contains_key(node));
        known && self.agents.get(node).is_some_and(|agent| !agent.is_gone)
    }

    pub(super) fn ready_nodes(&self) -> usize {
        let state = self.state().expect("the manager runs");
        state.nodes.values().filter(|node| node.status.state == NodeState::Ready).count()
    }
}
