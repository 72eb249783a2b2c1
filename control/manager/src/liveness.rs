//! Which nodes were heard lately. Pure: time is an argument.

use skep_model::NodeId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Swarm's dispatcher period.
pub(crate) const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);
/// Swarm's: a node is down after this many periods without a word from it.
const GRACE_PERIODS: u32 = 3;
/// Swarm's after a change of leaders, when every agent has to find its manager first.
const STARTUP_GRACE_PERIODS: u32 = 6;

/// One entry per member, so that the cluster's size bounds it.
#[derive(Debug)]
pub(crate) struct Liveness {
    period: Duration,
    deadlines: BTreeMap<NodeId, Instant>,
}

impl Liveness {
    /// Gives every node in `nodes` the longer grace of a manager that has just started.
    pub(crate) fn new(period: Duration, nodes: impl IntoIterator<Item = NodeId>, now: Instant) -> Self {
        let deadline = now + period * STARTUP_GRACE_PERIODS;
        Self { period, deadlines: nodes.into_iter().map(|node| (node, deadline)).collect() }
    }

    pub(crate) fn heard(&mut self, node: &NodeId, now: Instant) {
        let deadline = now + self.period * GRACE_PERIODS;
        match self.deadlines.get_mut(node) {
            Some(known) => *known = deadline.max(*known),
            None => drop(self.deadlines.insert(node.clone(), deadline)),
        }
    }

    /// A session has begun: the grace of the start ends with it.
    pub(crate) fn connected(&mut self, node: &NodeId, now: Instant) {
        self.deadlines.insert(node.clone(), now + self.period * GRACE_PERIODS);
    }

    /// The clock was not looked at from `planned` to `now`. Where that is long, this process was stopped or got no
    /// CPU, and the silence of the nodes says nothing about them: agents may have given the connection up, and what
    /// they said before waits to be read. They get the grace of a start.
    pub(crate) fn woke(&mut self, planned: Instant, now: Instant) {
        if now.saturating_duration_since(planned) < self.period {
            return;
        }
        let deadline = now + self.period * STARTUP_GRACE_PERIODS;
        self.deadlines.values_mut().for_each(|known| *known = deadline.max(*known));
    }

    /// The node left or was removed: its silence means nothing.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.deadlines.remove(node);
    }

    /// Nodes whose grace has ended; each is returned once and then unknown until it is heard again.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<NodeId> {
        self.deadlines.extract_if(.., |_, deadline| *deadline <= now).map(|(node, _)| node).collect()
    }

    /// Whether the node's grace still runs.
    pub(crate) fn is_awaited(&self, node: &NodeId) -> bool {
        self.deadlines.contains_key(node)
    }

    /// When to call [`Self::woke`] and [`Self::expired`] next: at the first deadline, and often enough to notice
    /// that the clock was not looked at.
    pub(crate) fn next_look(&self, now: Instant) -> Instant {
        let regular = now + self.period;
        self.next_deadline().map_or(regular, |deadline| deadline.min(regular))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn node(id: &str) -> NodeId {
        NodeId::from(id)
    }

    #[test]
    fn three_missed_heartbeats_end_the_grace_once() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PERIOD, [], start);
        liveness.connected(&node("a"), start);
        liveness.heard(&node("a"), start + PERIOD);
        let end = start + PERIOD * 4;
        assert_eq!(liveness.next_look(end - PERIOD / 2), end);
        assert_eq!(liveness.next_look(start), start + PERIOD);
        assert!(liveness.expired(end - Duration::from_millis(1)).is_empty());
        assert_eq!(liveness.expired(end), [node("a")]);
        assert!(liveness.expired(end + PERIOD).is_empty());
        assert!(!liveness.is_awaited(&node("a")));
        liveness.heard(&node("a"), end + PERIOD);
        assert!(liveness.is_awaited(&node("a")));
        assert_eq!(liveness.expired(end + PERIOD * 4), [node("a")]);
    }

    #[test]
    fn after_a_start_nodes_have_twice_the_time_until_they_connect() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PERIOD, [node("a"), node("b")], start);
        liveness.connected(&node("a"), start);
        assert_eq!(liveness.expired(start + PERIOD * 3), [node("a")]);
        assert!(liveness.expired(start + PERIOD * 5).is_empty());
        assert_eq!(liveness.expired(start + PERIOD * 6), [node("b")]);
    }

    #[test]
    fn a_node_that_left_is_not_missed() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PERIOD, [node("a")], start);
        liveness.forget(&node("a"));
        assert!(liveness.expired(start + PERIOD * 9).is_empty());
    }

    #[test]
    fn after_the_manager_itself_stood_still_nodes_are_waited_for_as_after_a_start() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PERIOD, [], start);
        liveness.connected(&node("a"), start);
        liveness.connected(&node("b"), start);
        let resumed = start + Duration::from_secs(30);
        liveness.woke(start + PERIOD, resumed);
        assert!(liveness.expired(resumed).is_empty());
        liveness.connected(&node("a"), resumed + PERIOD);
        assert_eq!(liveness.expired(resumed + PERIOD * 4), [node("a")]);
        assert_eq!(liveness.expired(resumed + PERIOD * 6), [node("b")]);
    }

    #[test]
    fn a_late_timer_of_a_busy_manager_changes_nothing() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PERIOD, [], start);
        liveness.connected(&node("a"), start);
        liveness.woke(start + PERIOD, start + PERIOD + Duration::from_secs(1));
        assert_eq!(liveness.expired(start + PERIOD * 3), [node("a")]);
    }
}
