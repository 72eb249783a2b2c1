//! Which sets of assignments a session brought and has not acknowledged: the manager stops a task only when it
//! knows that every node has it out of names and backends.

use skep_model::assign::Desired;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Sets that were replaced before they were in place. Beyond it the oldest are acknowledged with a later one.
const MAX_UNACKNOWLEDGED: usize = 64;

/// Sets are known by identity: the same revision may come again with another content.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    /// Oldest first, with the revision each has.
    sets: VecDeque<(u64, Weak<Desired>)>,
}

impl Unacknowledged {
    pub(super) fn brought(&mut self, set: &Arc<Desired>) {
        if self.sets.len() == MAX_UNACKNOWLEDGED {
            self.sets.pop_front();
        }
        self.sets.push_back((set.revision, Arc::downgrade(set)));
    }

    /// The revision to acknowledge now that `set` is in place; None where this session has not brought it, or
    /// has said so.
    pub(super) fn in_place(&mut self, set: &Arc<Desired>) -> Option<u64> {
        let place = self.sets.iter().position(|(_, known)| Weak::as_ptr(known) == Arc::as_ptr(set))?;
        self.sets.drain(..=place).next_back().map(|(revision, _)| revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(revision: u64) -> Arc<Desired> {
        Arc::new(Desired::new(revision, []))
    }

    #[test]
    fn a_set_is_acknowledged_once_and_with_it_all_before() {
        let (first, second, third) = (set(1), set(2), set(3));
        let mut unacknowledged = Unacknowledged::default();
        [&first, &second, &third].into_iter().for_each(|set| unacknowledged.brought(set));
        assert_eq!(unacknowledged.in_place(&second), Some(2));
        assert_eq!(unacknowledged.in_place(&second), None);
        assert_eq!(unacknowledged.in_place(&first), None);
        assert_eq!(unacknowledged.in_place(&third), Some(3));
    }

    #[test]
    fn what_another_session_brought_is_not_acknowledged_in_this_one() {
        let (earlier, same_revision) = (set(5), set(5));
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.brought(&same_revision);
        assert_eq!(unacknowledged.in_place(&earlier), None);
        assert_eq!(unacknowledged.in_place(&same_revision), Some(5));
    }

    #[test]
    fn sets_that_never_come_into_place_take_no_more_room() {
        let mut unacknowledged = Unacknowledged::default();
        let last = (0..1000)
            .map(|revision| {
                let set = set(revision);
                unacknowledged.brought(&set);
                set
            })
            .last();
        assert_eq!(unacknowledged.sets.len(), MAX_UNACKNOWLEDGED);
        assert_eq!(last.and_then(|last| unacknowledged.in_place(&last)), Some(999));
    }
}
