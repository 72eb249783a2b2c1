//! [`FlowTable`]: bounded, flat, found by both directions.
//!
//! Slots are chained by their numbers: per hash bucket once for each direction, and per [`Phase`] in
//! the order they were last seen. All flows of a phase have the same timeout, so the head of each
//! phase's queue is the next to expire.

use super::flow::{Flow, Phase, Tuple};
use crate::hash::scramble;
use std::net::Ipv4Addr;

/// Flows at once. At 104 bytes a slot and its share of the buckets this is 7.5 MiB, allocated at start;
/// a node with 100 tasks has 650 flows for each.
pub(crate) const CAPACITY: usize = 1 << 16;

/// Direct flows are only tracked while there is this much room left for those that need a slot.
const DIRECT_CAPACITY: usize = CAPACITY / 2;

/// A silent established flow of this age gives way to a new one, in milliseconds.
const EVICTABLE_AFTER: u64 = 15 * 60 * 1000;

/// Last-seen times are only kept this exact, in milliseconds, so that most packets write no queue.
const GRANULARITY: u64 = 1000;

/// Ends a chain.
const NONE: u32 = u32::MAX;

/// A slot's number. Valid until the flow is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowId(u32);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableFull;

#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    flow: Flow,
    /// Milliseconds since the engine's epoch.
    last_seen: u64,
    next_forward: u32,
    next_reverse: u32,
    /// Neighbours in the phase's queue; a free slot's `next` is the next free one.
    previous: u32,
    next: u32,
    phase: Phase,
    used: bool,
}

#[derive(Clone, Copy)]
struct Queue {
    oldest: u32,
    newest: u32,
}

pub(crate) struct FlowTable {
    seed: u64,
    slots: Box<[Slot]>,
    forward: Box<[u32]>,
    reverse: Box<[u32]>,
    queues: [Queue; Phase::ALL.len()],
    free: u32,
    used: usize,
}

impl FlowTable {
    /// `capacity` flows at most. The seed keeps those who send packets from choosing the bucket.
    pub(crate) fn new(seed: u64, capacity: usize) -> Self {
        let placeholder = Tuple {
            vni: 0,
            protocol: 0,
            src: Ipv4Addr::UNSPECIFIED,
            src_port: 0,
            dst: Ipv4Addr::UNSPECIFIED,
            dst_port: 0,
        };
        let slot = |at: usize| Slot {
            flow: Flow::new(placeholder, None),
            last_seen: 0,
            next_forward: NONE,
            next_reverse: NONE,
            previous: NONE,
            next: if at + 1 < capacity { at as u32 + 1 } else { NONE },
            phase: Phase::HalfOpen,
            used: false,
        };
        let buckets = vec![NONE; capacity.next_power_of_two()].into_boxed_slice();
        Self {
            seed,
            slots: (0..capacity).map(slot).collect(),
            forward: buckets.clone(),
            reverse: buckets,
            queues: [Queue { oldest: NONE, newest: NONE }; Phase::ALL.len()],
            free: if capacity > 0 { 0 } else { NONE },
            used: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn has_room_for_direct(&self) -> bool {
        self.used < DIRECT_CAPACITY
    }

    pub(crate) fn flow(&self, id: FlowId) -> &Flow {
        &self.slots[id.0 as usize].flow
    }

    pub(crate) fn find_forward(&self, tuple: &Tuple, via: Option<Ipv4Addr>) -> Option<FlowId> {
        let mut at = self.forward[self.forward_bucket(tuple, via)];
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.flow.forward() == *tuple && slot.flow.via() == via {
                return Some(FlowId(at));
            }
            at = slot.next_forward;
        }
        None
    }

    pub(crate) fn find_reverse(&self, tuple: &Tuple) -> Option<FlowId> {
        let mut at = self.reverse[self.reverse_bucket(tuple)];
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.flow.reverse() == *tuple {
                return Some(FlowId(at));
            }
            at = slot.next_reverse;
        }
        None
    }

    /// Neither direction of the flow may be in the table. A full table makes room by ending a flow
    /// that is over, or an established one that was silent for long; never a live one.
    pub(crate) fn insert(&mut self, flow: Flow, now: u64) -> Result<FlowId, TableFull> {
        if self.free == NONE && !self.evict(now) {
            return Err(TableFull);
        }
        let at = self.free;
        let forward = self.forward_bucket(&flow.forward(), flow.via());
        let reverse = self.reverse_bucket(&flow.reverse());
        let slot = &mut self.slots[at as usize];
        self.free = slot.next;
        slot.flow = flow;
        slot.used = true;
        slot.next_forward = std::mem::replace(&mut self.forward[forward], at);
        slot.next_reverse = std::mem::replace(&mut self.reverse[reverse], at);
        self.used += 1;
        self.enqueue(at, flow.phase(), now);
        Ok(FlowId(at))
    }

    /// Changes a flow's state, not its tuples.
    pub(crate) fn update(&mut self, id: FlowId, now: u64, change: impl FnOnce(&mut Flow)) {
        let slot = &mut self.slots[id.0 as usize];
        change(&mut slot.flow);
        let phase = slot.flow.phase();
        if phase != slot.phase || now.saturating_sub(slot.last_seen) >= GRANULARITY {
            self.dequeue(id.0);
            self.enqueue(id.0, phase, now);
        }
    }

    pub(crate) fn remove(&mut self, id: FlowId) {
        let flow = *self.flow(id);
        let forward = self.forward_bucket(&flow.forward(), flow.via());
        let reverse = self.reverse_bucket(&flow.reverse());
        unchain(&mut self.forward[forward], &mut self.slots, id.0, |slot| &mut slot.next_forward);
        unchain(&mut self.reverse[reverse], &mut self.slots, id.0, |slot| &mut slot.next_reverse);
        self.dequeue(id.0);
        let slot = &mut self.slots[id.0 as usize];
        slot.used = false;
        slot.next = self.free;
        self.free = id.0;
        self.used -= 1;
    }

    /// Forgets what was silent for too long.
    pub(crate) fn expire(&mut self, now: u64) {
        for phase in Phase::ALL {
            while let Some((oldest, expiry)) = self.oldest(phase)
                && expiry <= now
            {
                self.remove(oldest);
            }
        }
    }

    /// When the next flow expires, in milliseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        Phase::ALL.iter().filter_map(|phase| Some(self.oldest(*phase)?.1)).min()
    }

    /// Every flow, in the order of their slots.
    pub(crate) fn ids(&self) -> impl Iterator<Item = FlowId> + '_ {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.used);
        used.map(|(at, _)| FlowId(at as u32))
    }

    fn oldest(&self, phase: Phase) -> Option<(FlowId, u64)> {
        let at = self.queues[phase as usize].oldest;
        let slot = self.slots.get(at as usize)?;
        Some((FlowId(at), slot.last_seen + phase.timeout()))
    }

    fn evict(&mut self, now: u64) -> bool {
        let over = [Phase::Reset, Phase::Finished].iter().find_map(|phase| self.oldest(*phase));
        let silent = || {
            let (id, _) = self.oldest(Phase::Established)?;
            let idle = now.saturating_sub(self.slots[id.0 as usize].last_seen);
            (idle >= EVICTABLE_AFTER).then_some(id)
        };
        let Some(victim) = over.map(|(id, _)| id).or_else(silent) else { return false };
        self.remove(victim);
        true
    }

    fn enqueue(&mut self, at: u32, phase: Phase, now: u64) {
        let queue = &mut self.queues[phase as usize];
        let previous = std::mem::replace(&mut queue.newest, at);
        if previous == NONE {
            queue.oldest = at;
        } else {
            self.slots[previous as usize].next = at;
        }
        let slot = &mut self.slots[at as usize];
        slot.previous = previous;
        slot.next = NONE;
        slot.phase = phase;
        slot.last_seen = now;
    }

    fn dequeue(&mut self, at: u32) {
        let Slot { previous, next, phase, .. } = self.slots[at as usize];
        let queue = &mut self.queues[phase as usize];
        if previous == NONE {
            queue.oldest = next;
        } else {
            self.slots[previous as usize].next = next;
        }
        if next == NONE {
            queue.newest = previous;
        } else {
            self.slots[next as usize].previous = previous;
        }
    }

    fn forward_bucket(&self, tuple: &Tuple, via: Option<Ipv4Addr>) -> usize {
        let via = via.map_or(0, |vtep| u64::from(vtep.to_bits()));
        self.bucket(tuple, self.seed ^ scramble(self.seed, via))
    }

    fn reverse_bucket(&self, tuple: &Tuple) -> usize {
        self.bucket(tuple, self.seed)
    }

    fn bucket(&self, tuple: &Tuple, seed: u64) -> usize {
        let addresses = u64::from(tuple.src.to_bits()) << 32 | u64::from(tuple.dst.to_bits());
        let ports = u64::from(tuple.src_port) << 16 | u64::from(tuple.dst_port);
        let rest = u64::from(tuple.vni) << 40 | u64::from(tuple.protocol) << 32 | ports;
        let hash = scramble(scramble(seed, addresses), rest);
        hash as usize & (self.forward.len() - 1)
    }
}

/// Takes `at` out of the chain that starts at `head`. INVARIANT: it is in it.
fn unchain(head: &mut u32, slots: &mut [Slot], at: u32, link: impl Fn(&mut Slot) -> &mut u32) {
    let after = *link(&mut slots[at as usize]);
    if *head == at {
        *head = after;
        return;
    }
    let mut before = *head;
    while before != NONE {
        let next = link(&mut slots[before as usize]);
        if *next == at {
            *next = after;
            return;
        }
        before = *next;
    }
}
