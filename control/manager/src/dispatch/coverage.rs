//! How far one node is, as its session knows: which revision of the state it has wholly in place. Pure.

use std::collections::VecDeque;

/// Messages a node has not acknowledged. A node that is further behind than this is waited for no longer than
/// one that does not answer; the oldest are then acknowledged together with their successor.
const MAX_UNACKNOWLEDGED: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    covered: Option<u64>,
    /// Oldest first.
    unacknowledged: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    /// The message results in this one.
    revision: u64,
    /// The newest revision the node needs no further message for.
    holds_until: u64,
}

impl Coverage {
    /// A message that results in `revision` was sent.
    pub(crate) fn sent(&mut self, revision: u64) {
        if self.unacknowledged.len() == MAX_UNACKNOWLEDGED {
            self.unacknowledged.pop_front();
        }
        self.unacknowledged.push_back(Sent { revision, holds_until: revision });
    }

    /// At `revision` the node has to have what it was sent last.
    pub(crate) fn unchanged(&mut self, revision: u64) {
        match self.unacknowledged.back_mut() {
            Some(sent) => sent.holds_until = sent.holds_until.max(revision),
            None => self.covered = self.covered.map(|covered| covered.max(revision)),
        }
    }

    /// The node has `revision` in place. One that this session has not sent, or that was acknowledged before,
    /// says nothing.
    pub(crate) fn applied(&mut self, revision: u64) {
        if let Some(last) = self.unacknowledged.iter().rposition(|sent| sent.revision == revision) {
            let holds_until = self.unacknowledged.drain(..=last).next_back().map(|sent| sent.holds_until);
            self.covered = self.covered.max(holds_until);
        }
    }

    /// The newest revision of the state that the node has in place; None: nothing of this session yet.
    pub(crate) fn covered(&self) -> Option<u64> {
        self.covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_place_covers_every_revision_that_changed_nothing_for_the_node() {
        let mut coverage = Coverage::default();
        coverage.sent(3);
        coverage.unchanged(4);
        assert_eq!(coverage.covered(), None);
        coverage.applied(3);
        assert_eq!(coverage.covered(), Some(4));
        coverage.unchanged(7);
        assert_eq!(coverage.covered(), Some(7));
    }

    #[test]
    fn an_acknowledgement_reaches_as_far_as_its_own_message() {
        let mut coverage = Coverage::default();
        (1..=3).for_each(|revision| coverage.sent(revision * 10));
        coverage.applied(20);
        coverage.unchanged(31);
        assert_eq!(coverage.covered(), Some(20));
        coverage.applied(30);
        assert_eq!(coverage.covered(), Some(31));
    }

    #[test]
    fn a_late_a_repeated_and_an_invented_acknowledgement_say_nothing() {
        let mut coverage = Coverage::default();
        coverage.applied(99);
        assert_eq!(coverage.covered(), None);
        coverage.sent(5);
        coverage.sent(6);
        for _ in 0..2 {
            coverage.applied(5);
            coverage.applied(99);
            assert_eq!(coverage.covered(), Some(5));
        }
        coverage.applied(6);
        coverage.applied(5);
        assert_eq!(coverage.covered(), Some(6));
    }

    #[test]
    fn a_node_that_never_acknowledges_takes_no_more_room() {
        let mut coverage = Coverage::default();
        (0..10_000).for_each(|revision| coverage.sent(revision));
        assert_eq!(coverage.unacknowledged.len(), MAX_UNACKNOWLEDGED);
        coverage.applied(9_999);
        assert_eq!(coverage.covered(), Some(9_999));
    }
}
