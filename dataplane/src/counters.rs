//! Plain counters: one owner, no atomics. [`Engine::stats`](crate::Engine::stats) copies them out.

use crate::ids::PortId;
use crate::verdict::DropReason;

/// What a port's owner sent and was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    pub frames_from: u64,
    pub bytes_from: u64,
    pub frames_to: u64,
    pub bytes_to: u64,
}

/// A copy of the engine's counters, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Every reason with its count, also those that never happened.
    pub drops: Vec<(DropReason, u64)>,
    /// By port, in the order of their ids.
    pub ports: Vec<(PortId, PortStats)>,
    pub flows: usize,
    pub flow_capacity: usize,
}

impl Stats {
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
    }
}
