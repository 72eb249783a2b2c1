//! Plain counters: one owner, no atomics. [`Engine::stats`](crate::Engine::stats) copies them out.

use crate::ids::PortId;
use crate::index::Index;
use crate::prepared::Carried;
use crate::probe::PathStats;
use crate::verdict::DropReason;

/// What a port's owner sent and was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    pub frames_from: u64,
    pub bytes_from: u64,
    pub frames_to: u64,
    pub bytes_to: u64,
}

/// A copy of the engine's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Every reason with its count since the engine was made, also those that never happened.
    pub drops: Vec<(DropReason, u64)>,
    /// Since the port appeared in a snapshot, in the order of the ports' ids.
    pub ports: Vec<(PortId, PortStats)>,
    pub flows: usize,
    /// How many flows fit.
    pub flow_capacity: usize,
    /// Flows that gave way to others before their time: most of them half open, and most of one client's.
    pub flows_displaced: u64,
    /// The peers of the snapshot, by address.
    pub paths: Vec<PathStats>,
}

impl Stats {
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
    }
}

pub(crate) struct Counters {
    drops: [u64; DropReason::ALL.len()],
    /// One per port of the index, in its order.
    ports: Vec<PortStats>,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self { drops: [0; DropReason::ALL.len()], ports: Vec::new() }
    }

    /// Keeps the counters of the ports that stay.
    pub(crate) fn follow(&mut self, carried: &Carried) {
        let kept = |before: &Option<usize>| before.map_or_else(PortStats::default, |at| self.ports[at]);
        self.ports = carried.ports.iter().map(kept).collect();
    }

    pub(crate) fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(crate) fn dropped_many(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }

    pub(crate) fn port_sent(&mut self, at: usize, bytes: usize) {
        let port = &mut self.ports[at];
        port.frames_from += 1;
        port.bytes_from += bytes as u64;
    }

    pub(crate) fn port_given(&mut self, at: usize, bytes: usize) {
        let port = &mut self.ports[at];
        port.frames_to += 1;
        port.bytes_to += bytes as u64;
    }

    pub(crate) fn stats(&self, index: &Index) -> Stats {
        Stats {
            drops: DropReason::ALL.iter().map(|reason| (*reason, self.drops[*reason as usize])).collect(),
            ports: index.ports().iter().copied().zip(self.ports.iter().copied()).collect(),
            flows: 0,
            flow_capacity: 0,
            flows_displaced: 0,
            paths: Vec::new(),
        }
    }
}
