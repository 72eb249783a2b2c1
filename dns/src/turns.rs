//! Whose turn it is to come first in an answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

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
    /// By the name's key.
    pub(crate) fn next(&self, key: &str) -> u32 {
        let slot = self.hasher.hash_one(key) as usize % SLOTS;
        self.slots[slot].fetch_add(1, Ordering::Relaxed)
    }
}
