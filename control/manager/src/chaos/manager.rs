//! The manager as its server and its loop run it, a step at a time.

use super::world::{Event, Line, LineId, Millis, World};
use crate::attach;
use crate::control_loop::{plan_with, until};
use crate::db::{Db, UpdateError};
use crate::dispatch;
use crate::dispatch::coverage::Coverage;
use crate::dispatch::drain::Drains;
use crate::liveness::{HEARTBEAT_PERIOD, Liveness};
use crate::server::reports::{self, HelloRefused, Origin};
use crate::state::{Change, State};
use crate::store::RedbStore;
use crate::store::disk::Death;
use rand::RngExt;
use skep_model::assign::Desired;
use skep_model::data_path::DataPathKey;
use skep_model::node::NodeState;
use skep_model::session::{AttachRequest, Attached, Hello, ToAgent, ToManager};
use skep_model::{NodeId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The server's interval between assignments.
const ASSIGNMENT_INTERVAL: Millis = 50;

/// What a manager forgets when it dies.
pub(super) struct Manager {
    pub(super) db: Db,
    liveness: Liveness,
    pub(super) sessions: BTreeMap<NodeId, LineId>,
    /// What each session's node has, as far as was sent, and as far as it said.
    sent: BTreeMap<LineId, Desired>,
    coverage: BTreeMap<LineId, Coverage>,
    drains: Drains,
    assigns: BTreeSet<LineId>,
    /// When the loop, the watch over silent nodes and the one over drains look next.
    plans_at: Option<Millis>,
    listens_at: Option<Millis>,
    drains_at: Option<Millis>,
}

/// How a write ended.
pub(super) enum Written<E> {
    Done,
    Refused(E),
    /// The manager is dead. Nobody knows whether it was written before.
    Died,
}

impl World {
    pub(super) fn start_manager(&mut self) {
        if self.manager.is_some() {
            return;
        }
        let disk = self.disk.clone();
        let opened = RedbStore::opened_by(Box::new(move || disk.open()))
            .map_err(|error| error.to_string())
            .and_then(|store| Db::open(Arc::new(store)).map_err(|error| error.to_string()));
        let db = match opened {
            Ok(db) => db,
            Err(error) => {
                assert!(self.disk.is_dead(), "the store does not open again: {error}");
                return self.manager_died();
            }
        };
        let state = db.state();
        self.recovered(&state);
        let expected = state.nodes.values().filter(|node| node.status.state != NodeState::Down);
        let liveness = Liveness::new(HEARTBEAT_PERIOD, expected.map(|node| node.id.clone()), self.instant());
        self.manager_life += 1;
        self.tell(|| format!("the manager starts at revision {}", state.revision));
        let (sessions, sent, coverage, drains, assigns) = Default::default();
        let (plans_at, listens_at, drains_at) = (None, None, None);
        self.manager = Some(Manager {
            db,
            liveness,
            sessions,
            sent,
            coverage,
            drains,
            assigns,
            plans_at,
            listens_at,
            drains_at,
        });
        self.plan_soon();
        self.watch_liveness();
    }

    pub(super) fn state(&self) -> Option<Arc<State>> {
        self.manager.as_ref().map(|manager| manager.db.state())
    }

    /// One transaction, at which the manager may die.
    pub(super) fn write<E: std::fmt::Display>(
        &mut self,
        mut change: impl FnMut(&State) -> Result<Vec<Change>, E>,
    ) -> Written<E> {
        let Some(db) = self.manager.as_ref().map(|manager| manager.db.clone()) else { return Written::Died };
        let before = db.state().revision;
        let mut proposed = Vec::new();
        let written = db.update(|state| {
            proposed = change(state)?;
            Ok(proposed.clone())
        });
        match written {
            Ok(revision) if revision == before => Written::Done,
            Ok(_) if std::mem::take(&mut self.dies_after_write) => {
                self.ledger.in_flight = proposed;
                self.manager_dies(Death::Killed);
                Written::Died
            }
            Ok(_) => {
                self.committed(&db.state());
                Written::Done
            }
            Err(UpdateError::Refused(refusal)) => Written::Refused(refusal),
            Err(error) => {
                assert!(self.disk.is_dead(), "{error}");
                self.ledger.in_flight = proposed;
                self.manager_died();
                Written::Died
            }
        }
    }

    fn committed(&mut self, state: &Arc<State>) {
        self.figures.commits += 1;
        self.check_commit(state);
        self.plan_soon();
        self.observe(state);
        let Some(manager) = &self.manager else { return };
        let lines: Vec<LineId> = manager.sessions.values().copied().collect();
        let due = self.now + ASSIGNMENT_INTERVAL;
        lines.into_iter().for_each(|line| self.assign_at(due, line));
    }

    fn assign_at(&mut self, due: Millis, line: LineId) {
        let (life, Some(manager)) = (self.manager_life, self.manager.as_mut()) else { return };
        if manager.assigns.insert(line) {
            self.at(due, Event::Assign(life, line));
        }
    }

    /// The drains as of `state`; nodes hear at once of tasks they may stop.
    fn observe(&mut self, state: &State) {
        let instant = self.instant();
        let Some(manager) = self.manager.as_mut() else { return };
        let drained = manager.drains.observe(state, instant);
        self.tell_drained(drained);
    }

    fn tell_drained(&mut self, drained: bool) {
        let instant = self.instant();
        let (life, now, Some(manager)) = (self.manager_life, self.now, self.manager.as_mut()) else { return };
        let deadline = manager.drains.next_deadline();
        let wait = deadline.map(|deadline| deadline.saturating_duration_since(instant).as_millis() as Millis);
        let news = |line: &&LineId| {
            manager.sent.get(*line).is_some_and(|sent| manager.drains.has_news_for(&sent.assignments))
        };
        let lines: Vec<LineId> =
            manager.sessions.values().filter(|_| drained).filter(news).copied().collect();
        if let Some(time) =
            wait.map(|wait| now + wait).filter(|time| manager.drains_at.is_none_or(|at| at > *time))
        {
            manager.drains_at = Some(time);
            self.at(time, Event::Drains(life));
        }
        lines.into_iter().for_each(|line| self.assign(line));
    }

    pub(super) fn judge_drains(&mut self, life: u64) {
        let (now, instant) = (self.now, self.instant());
        let due = |manager: &&mut Manager| manager.drains_at == Some(now) && life == self.manager_life;
        let Some(manager) = self.manager.as_mut().filter(due) else { return };
        manager.drains_at = None;
        let drained = manager.drains.judge(instant);
        self.tell_drained(drained);
    }

    /// What the node has in place, as its session knows.
    fn note_coverage(&mut self, id: LineId) {
        let instant = self.instant();
        let (Some(line), Some(manager)) = (self.lines.get(&id), self.manager.as_mut()) else { return };
        let Some(covered) = manager.coverage.get(&id).and_then(Coverage::covered) else { return };
        let drained = manager.drains.covers(&line.node, covered, instant);
        self.tell_drained(drained);
    }

    pub(super) fn manager_dies(&mut self, death: Death) {
        self.tell(|| format!("the manager dies: {death:?}"));
        let seed = self.rng.random();
        self.disk.revive(death, seed);
        self.manager_gone();
    }

    /// Its disk has stopped already.
    fn manager_died(&mut self) {
        let death = if self.chance(50) { Death::Killed } else { Death::PowerLost };
        self.manager_dies(death);
    }

    fn manager_gone(&mut self) {
        self.manager = None;
        self.manager_life += 1;
        self.figures.manager_deaths += 1;
        let open: Vec<LineId> =
            self.lines.iter().filter(|(_, line)| line.open_at_manager).map(|(id, _)| *id).collect();
        for id in open {
            if let Some(line) = self.lines.get_mut(&id) {
                line.open_at_manager = false;
                line.up.clear();
                let sent = line.down.len();
                line.down.truncate(self.rng.random_range(0..=sent));
            }
            self.after(1..100, Event::AgentSeesEnd(id));
        }
        self.after(50..5_000, Event::ManagerStarts);
    }

    fn plan_soon(&mut self) {
        let soon = self.now + self.rng.random_range(1..20);
        self.plan_by(soon);
    }

    fn plan_by(&mut self, time: Millis) {
        let (life, Some(manager)) = (self.manager_life, self.manager.as_mut()) else { return };
        if manager.plans_at.is_none_or(|at| at > time) {
            manager.plans_at = Some(time);
            self.at(time, Event::Plan(life));
        }
    }

    pub(super) fn plan(&mut self, life: u64) {
        let due = |manager: &&mut Manager| manager.plans_at == Some(self.now) && life == self.manager_life;
        let Some(manager) = self.manager.as_mut().filter(due) else { return };
        manager.plans_at = None;
        let (now, mut ids) = (self.manager_time(), self.id() * 1_000_000);
        let mut wakeup = None;
        let written = self.write(|state| {
            let plan = plan_with(state, now, &mut || {
                ids += 1;
                TaskId(format!("t{ids:012}"))
            });
            assert_eq!(plan.problems, [""; 0]);
            wakeup = plan.next_wakeup;
            Ok::<_, Infallible>(plan.changes)
        });
        if let Written::Done = written {
            let wait = until(wakeup, now).as_millis() as Millis;
            self.plan_by(self.now + wait.max(1));
            self.expect_settled(now);
        }
    }

    fn watch_liveness(&mut self) {
        let (life, instant) = (self.manager_life, self.instant());
        let Some(manager) = self.manager.as_mut() else { return };
        let Some(deadline) = manager.liveness.next_deadline() else { return };
        let time = self.now + deadline.saturating_duration_since(instant).as_millis() as Millis;
        if manager.listens_at.is_none_or(|at| at > time) {
            manager.listens_at = Some(time);
            self.at(time, Event::Liveness(life));
        }
    }

    pub(super) fn look_for_silent(&mut self, life: u64) {
        let now = self.instant();
        let due = |manager: &&mut Manager| manager.listens_at == Some(self.now) && life == self.manager_life;
        let Some(manager) = self.manager.as_mut().filter(due) else { return };
        manager.listens_at = None;
        let expired = manager.liveness.expired(now);
        for node in expired {
            self.tell(|| format!("{node} is down"));
            self.close_session(&node);
            let time = self.manager_time();
            self.write(|state| Ok::<_, Infallible>(reports::unheard(state, &node, time)));
        }
        self.watch_liveness();
    }

    /// The manager ends the node's session, if it has one.
    fn close_session(&mut self, node: &NodeId) {
        let line = self.manager.as_mut().and_then(|manager| manager.sessions.remove(node));
        if let Some(line) = line {
            self.close_at_manager(line);
        }
    }

    fn close_at_manager(&mut self, id: LineId) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.open_at_manager = false;
            self.after(1..100, Event::AgentSeesEnd(id));
        }
    }

    pub(super) fn manager_line_ended(&mut self, id: LineId) {
        let node = self.lines[&id].node.clone();
        self.close_at_manager(id);
        let Some(manager) = self.manager.as_mut() else { return };
        if manager.sessions.get(&node) != Some(&id) {
            return;
        }
        manager.sessions.remove(&node);
        let now = self.manager_time();
        self.write(|state| Ok::<_, Infallible>(reports::disconnected(state, &node, now)));
    }

    pub(super) fn manager_hears(&mut self, id: LineId, message: ToManager) {
        let node = self.lines[&id].node.clone();
        if let ToManager::Hello(hello) = message {
            return self.begin_session(id, node, &hello);
        }
        let (instant, now) = (self.instant(), self.manager_time());
        let Some(manager) = self.manager.as_mut().filter(|m| m.sessions.get(&node) == Some(&id)) else {
            return;
        };
        manager.liveness.heard(&node, instant);
        match message {
            ToManager::TaskStatuses { sequence, statuses } => {
                let written =
                    self.write(|state| Ok::<_, Infallible>(reports::statuses(state, &node, &statuses, now)));
                if let Written::Done = written {
                    self.send_down(id, ToAgent::StatusAccepted { sequence });
                }
            }
            ToManager::Resync => {
                manager.sent.remove(&id);
                self.assign(id);
            }
            ToManager::Applied { revision } => {
                manager.coverage.entry(id).or_default().applied(revision);
                self.note_coverage(id);
            }
            ToManager::Attach(request) => self.attach(id, &node, &request),
            ToManager::Detach { task } => {
                self.write(|state| Ok::<_, Infallible>(reports::detached(state, &node, &task)));
            }
            ToManager::Leave => {
                let written = self.write(|state| Ok::<_, Infallible>(reports::left(state, &node, now)));
                if let (Written::Done, Some(manager)) = (written, &mut self.manager) {
                    manager.liveness.forget(&node);
                    self.close_session(&node);
                }
            }
            _ => {}
        }
    }

    fn begin_session(&mut self, id: LineId, node: NodeId, hello: &Hello) {
        let (instant, now) = (self.instant(), self.manager_time());
        let Some(manager) = self.manager.as_mut() else { return };
        if let Some(older) = manager.sessions.insert(node.clone(), id) {
            self.close_at_manager(older);
        }
        if let Some(manager) = &mut self.manager {
            manager.liveness.connected(&node, instant);
            manager.drains.begins(&node);
        }
        self.watch_liveness();
        let origin = Origin { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), data_path_key: key_of(&node) };
        match self.write(|state| reports::connected(state, &node, hello, origin, now)) {
            Written::Done => {
                self.send_down(
                    id,
                    ToAgent::Welcome { heartbeat_ms: HEARTBEAT_PERIOD.as_millis() as u64, now: None },
                );
                self.assign(id);
            }
            Written::Refused(HelloRefused::Removed(_)) => self.node_is_removed(id, &node),
            Written::Refused(HelloRefused::KeyTaken(taken)) => panic!("{taken}"),
            Written::Died => {}
        }
    }

    fn node_is_removed(&mut self, id: LineId, node: &NodeId) {
        if let Some(manager) = &mut self.manager {
            manager.liveness.forget(node);
            manager.sessions.remove(node);
        }
        self.close_at_manager(id);
    }

    fn attach(&mut self, id: LineId, node: &NodeId, request: &AttachRequest) {
        let (now, task) = (self.manager_time(), TaskId(format!("a{:012}", self.id())));
        let mut given = None;
        let written = self.write(|state| {
            let (mut planned, mut changes) = attach::plan(state, node, request, now)?;
            planned.id = task.clone();
            for change in &mut changes {
                if let Change::PutTask(put) = change {
                    put.id = task.clone();
                }
            }
            given = Some(planned);
            Ok(changes)
        });
        let result = match (written, given) {
            (Written::Died, _) => return,
            (Written::Refused(refusal), _) => Err(attach::AttachError::to_string(&refusal)),
            (Written::Done, given) => {
                let planned = given.unwrap();
                let (name, attachment) = (planned.name(), planned.attachments[0].clone());
                Ok(Attached { task: planned.id, name, attachment })
            }
        };
        self.send_down(id, ToAgent::Attached { request: request.request, result });
    }

    pub(super) fn assign_when_due(&mut self, life: u64, id: LineId) {
        let Some(manager) = self.manager.as_mut().filter(|_| life == self.manager_life) else { return };
        manager.assigns.remove(&id);
        if manager.sessions.values().any(|line| *line == id) {
            self.assign(id);
        }
    }

    fn assign(&mut self, id: LineId) {
        let Some(Line { node, .. }) = self.lines.get(&id) else { return };
        let (node, Some(manager)) = (node.clone(), self.manager.as_mut()) else { return };
        let state = manager.db.state();
        if !state.nodes.contains_key(&node) {
            return self.node_is_removed(id, &node);
        }
        self.observe(&state);
        let Some(manager) = self.manager.as_mut() else { return };
        let mut assignments = dispatch::assignments(&state, &node);
        manager.drains.mark(&mut assignments);
        let desired = Desired { revision: state.revision, assignments };
        let message = match manager.sent.get(&id) {
            None => Some(desired.complete()),
            Some(sent) => desired.since(sent),
        };
        let coverage = manager.coverage.entry(id).or_default();
        match message {
            Some(message) => {
                coverage.sent(state.revision);
                manager.sent.insert(id, desired);
                self.send_down(id, ToAgent::Assignments(message));
            }
            None => {
                coverage.unchanged(state.revision);
                self.note_coverage(id);
            }
        }
    }
}

/// Each node's own: its id, which is short here.
pub(super) fn key_of(node: &NodeId) -> DataPathKey {
    let mut key = DataPathKey([0; 32]);
    key.0.iter_mut().zip(node.as_str().bytes()).for_each(|(byte, letter)| *byte = letter);
    key
}
