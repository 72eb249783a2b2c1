//! Whose turn it is to come first in an answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use hickory_proto::op::Query;
use hickory_proto::rr::RecordType;

use crate::resolver::key;

/// Names share a counter beyond this many, which only makes their order less even. One counter for all names would
/// let questions that alternate (A and AAAA of one name, A of two names) always meet the same turn.
const SLOTS: usize = 64;

/// A counter per name (hashed), so that every answer about it starts with the next address.
pub(crate) struct Turns {
    hasher: RandomState,
    slots: [AtomicU32; SLOTS],
}

impl Default for Turns {
    /// Starting anywhere: else every fresh container's first connection would meet the same task.
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: std::array::from_fn(|_| AtomicU32::new(rand::random())) }
    }
}

impl Turns {
    pub(crate) fn next(&self, query: &Query) -> u32 {
        if !matches!(query.query_type(), RecordType::A | RecordType::SRV) {
            return 0;
        }
        let slot = self.hasher.hash_one(key(query.name())) as usize % SLOTS;
        self.slots[slot].fetch_add(1, Ordering::Relaxed)
    }
}
