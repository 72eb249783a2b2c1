use super::*;
use crate::dispatch::tests::{node, ready, state, task};
use crate::state::Change;
use proptest::prelude::*;

fn id(index: u8) -> TaskId {
    TaskId(format!("t{index}"))
}

fn on(index: u8) -> NodeId {
    NodeId(format!("n{index}"))
}

/// Task `index` on node 1, which runs and is to stop.
fn stopping(index: u8) -> Task {
    Task { desired_state: TaskState::Shutdown, ..task(index, 1, &[1]) }
}

/// Three connected nodes that have revision 1 in place, and a task that is to stop from revision 2 on.
fn draining(now: Instant) -> (Drains, State) {
    let mut drains = Drains::default();
    let mut state = state([ready(1), ready(2), ready(3)], [], [task(1, 1, &[1])]);
    drains.observe(&state, now);
    (1..=3).for_each(|node| assert!(!drains.covers(&on(node), 1, now)));
    state.apply(2, [Change::PutTask(Box::new(stopping(1)))]);
    assert!(!drains.observe(&state, now));
    (drains, state)
}

#[test]
fn a_task_is_drained_with_the_last_nodes_acknowledgement() {
    let now = Instant::now();
    let (mut drains, _) = draining(now);
    assert!(!drains.covers(&on(1), 2, now));
    assert!(!drains.covers(&on(2), 5, now));
    assert!(!drains.covers(&on(3), 1, now), "a late acknowledgement is none");
    assert!(!drains.is_drained(&id(1)));
    assert!(drains.covers(&on(3), 2, now));
    assert!(drains.is_drained(&id(1)));
    assert!(!drains.covers(&on(3), 3, now), "it is told once");
    assert_eq!(drains.next_deadline(), None);
}

#[test]
fn a_node_that_does_not_answer_costs_two_seconds() {
    let now = Instant::now();
    let (mut drains, _) = draining(now);
    assert_eq!(drains.next_deadline(), Some(now + DRAIN_LIMIT));
    assert!(!drains.judge(now + DRAIN_LIMIT - Duration::from_millis(1)));
    assert!(drains.judge(now + DRAIN_LIMIT));
    assert!(drains.is_drained(&id(1)));
}

#[test]
fn nodes_that_are_down_or_never_connected_are_not_waited_for() {
    let now = Instant::now();
    let (mut drains, mut state) = draining(now);
    drains.covers(&on(1), 2, now);
    state.apply(3, [Change::PutNode(Box::new(node(2, NodeState::Down)))]);
    assert!(!drains.observe(&state, now));
    state.apply(4, [Change::PutNode(Box::new(node(3, NodeState::Unknown)))]);
    assert!(drains.observe(&state, now));
    assert!(drains.is_drained(&id(1)));
}

#[test]
fn a_new_session_or_a_full_sync_does_not_undo_what_was_drained() {
    let now = Instant::now();
    let (mut drains, mut state) = draining(now);
    (1..=3).for_each(|node| _ = drains.covers(&on(node), 2, now));
    assert!(drains.is_drained(&id(1)));
    drains.begins(&on(2));
    state.apply(3, [Change::PutNode(Box::new(ready(4)))]);
    drains.observe(&state, now);
    assert!(drains.is_drained(&id(1)));
}

#[test]
fn a_node_that_begins_anew_is_asked_anew() {
    let now = Instant::now();
    let (mut drains, _) = draining(now);
    (1..=2).for_each(|node| _ = drains.covers(&on(node), 2, now));
    drains.begins(&on(1));
    assert!(!drains.covers(&on(3), 2, now));
    assert!(drains.covers(&on(1), 2, now));
}

#[test]
fn a_restarted_manager_asks_again_before_it_stops_a_task() {
    let now = Instant::now();
    let (_, state) = draining(now);
    let mut restarted = Drains::default();
    assert!(!restarted.observe(&state, now));
    assert!(!restarted.is_drained(&id(1)));
    (1..=2).for_each(|node| _ = restarted.covers(&on(node), 2, now));
    assert!(restarted.covers(&on(3), 2, now));
}

#[test]
fn a_task_nobody_was_sent_to_is_drained_at_once() {
    let now = Instant::now();
    let mut starting = stopping(1);
    starting.status.state = TaskState::Starting;
    let mut drains = Drains::default();
    assert!(
        !drains.observe(&state([ready(1), ready(2)], [], [starting]), now),
        "there is nothing to tell later"
    );
    assert!(drains.is_drained(&id(1)));
}

#[test]
fn tasks_that_stop_together_wait_together() {
    let now = Instant::now();
    let mut drains = Drains::default();
    drains.observe(&state([ready(1), ready(2)], [], (1..=5).map(stopping)), now);
    drains.covers(&on(1), 1, now);
    assert!(drains.covers(&on(2), 1, now));
    assert!((1..=5).all(|index| drains.is_drained(&id(index))));
}

#[derive(Clone, Debug)]
enum Event {
    Stop(u8),
    End(u8),
    Node(u8, NodeState),
    /// The node takes in the newest revision it was sent.
    Take(u8),
    /// The node acknowledges what it has; late, if it has taken in more since.
    Acknowledge(u8),
    NewSession(u8),
    Pass(u64),
    RestartManager,
}

fn event() -> impl Strategy<Value = Event> {
    let node_state = prop::sample::select(&[NodeState::Ready, NodeState::Down, NodeState::Disconnected][..]);
    prop_oneof![
        3 => (1u8..5).prop_map(Event::Stop),
        1 => (1u8..5).prop_map(Event::End),
        2 => (1u8..4, node_state).prop_map(|(node, state)| Event::Node(node, state)),
        6 => (1u8..4).prop_map(Event::Take),
        6 => (1u8..4).prop_map(Event::Acknowledge),
        1 => (1u8..4).prop_map(Event::NewSession),
        3 => (1u64..900).prop_map(Event::Pass),
        1 => Just(Event::RestartManager),
    ]
}

/// What really is: which revision each node works by, and since which each task is to stop.
struct Model {
    state: State,
    now: Instant,
    works_by: BTreeMap<u8, u64>,
    stops_since: BTreeMap<u8, (u64, Instant)>,
    drained: BTreeSet<u8>,
}

impl Model {
    fn new() -> Self {
        let state = state([1, 2, 3].map(ready), [], (1..5).map(|index| task(index, 1, &[1])));
        let works_by = (1..4).map(|node| (node, 1)).collect();
        Self { state, now: Instant::now(), works_by, stops_since: BTreeMap::new(), drained: BTreeSet::new() }
    }

    fn write(&mut self, change: Change) {
        self.state.apply(self.state.revision + 1, [change]);
    }

    fn is_up(&self, node: u8) -> bool {
        self.state.nodes[&on(node)].status.state != NodeState::Down
    }

    fn happens(&mut self, event: &Event, drains: &mut Drains) {
        match *event {
            Event::Stop(task) => {
                let is_wanted = self.state.tasks.get(&id(task)).is_some_and(Task::is_wanted);
                if is_wanted {
                    self.write(Change::PutTask(Box::new(stopping(task))));
                    self.stops_since.insert(task, (self.state.revision, self.now));
                }
            }
            Event::End(task) => self.write(Change::DeleteTask(id(task))),
            Event::Node(index, state) => self.write(Change::PutNode(Box::new(node(index, state)))),
            Event::Take(node) => _ = self.works_by.insert(node, self.state.revision),
            Event::Acknowledge(node) => _ = drains.covers(&on(node), self.works_by[&node], self.now),
            Event::NewSession(node) => drains.begins(&on(node)),
            Event::Pass(ms) => {
                self.now += Duration::from_millis(ms);
                drains.judge(self.now);
            }
            Event::RestartManager => {
                *drains = Drains::default();
                self.drained.clear();
                // The limit counts from the restart.
                let now = self.now;
                self.stops_since.values_mut().for_each(|(_, since)| *since = now);
            }
        }
        drains.observe(&self.state, self.now);
    }

    fn check(&mut self, drains: &Drains) -> Result<(), TestCaseError> {
        for (index, (revision, since)) in &self.stops_since {
            let is_gone = !self.state.tasks.contains_key(&id(*index));
            let is_drained = drains.is_drained(&id(*index));
            let has_left_everywhere =
                (1..4).filter(|node| self.is_up(*node)).all(|node| self.works_by[&node] >= *revision);
            let is_over = self.now >= *since + DRAIN_LIMIT;
            if is_gone {
                continue;
            }
            prop_assert!(is_drained || !self.drained.contains(index), "t{} was drained before", index);
            prop_assert!(is_drained || !is_over, "t{} waits for too long", index);
            let was = self.drained.contains(index);
            prop_assert!(!is_drained || was || has_left_everywhere || is_over, "t{} stops too early", index);
            if is_drained {
                self.drained.insert(*index);
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn nobody_stops_a_task_that_a_live_node_still_sends_to(events in prop::collection::vec(event(), 1..120)) {
        let (mut model, mut drains) = (Model::new(), Drains::default());
        drains.observe(&model.state, model.now);
        for event in events {
            model.happens(&event, &mut drains);
            model.check(&drains)?;
        }
    }
}
