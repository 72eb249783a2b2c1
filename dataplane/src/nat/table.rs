//! [`FlowTable`]: bounded, flat, found by both directions.
//!
//! Slots are chained by their numbers: per hash bucket once for each direction, per [`Phase`] in the order they were
//! last seen, and so per [owner](super::owners) those that may give way. All flows of a phase have the same timeout, so
//! the head of each phase's queue is the next to expire. Whatever the table holds, finding a flow, making one and
//! making room for one take a few steps.
//!
//! Among many flows those steps cost as much as the cache lines they touch: what a packet needs of a flow is in one, and
//! the queues, which few packets move a flow in, are elsewhere.

use super::flow::{Flow, Phase, Tuple};
use super::owners::{OwnerId, Owners};
use super::queue::{Links, NONE, Queue};
use crate::hash::scramble;
use std::net::Ipv4Addr;

/// Flows at once. A slot, its places in queues and its share of the buckets take 96 bytes, so this is 6 MiB from the start;
/// a node with 100 tasks has 650 flows for each.
pub(crate) const CAPACITY: usize = 1 << 16;

/// Direct flows are only tracked while this share of the table is left for those that need a slot.
const LEFT_BY_DIRECT: usize = 2;

/// How long a lasting flow must have been silent to give way to a new one in a full table that holds nothing
/// less worth, in milliseconds: what can begin anew unharmed early, a connection late.
const EVICTABLE_AFTER: [(Phase, u64); 2] =
    [(Phase::UdpStream, 30 * 1000), (Phase::Established, 15 * 60 * 1000)];

/// A slot has so many buckets of each direction, so that most chains are one flow long.
const BUCKETS_PER_SLOT: usize = 2;

/// Flows that are forgotten at one call. What expires at once may have come at once, as a flood, and packets wait
/// meanwhile: as many take less time than a batch of them.
const EXPIRED_PER_TURN: usize = 128;

/// Last-seen times are only kept this exact, in milliseconds, so that most packets write no queue.
fn granularity(phase: Phase) -> u64 {
    match phase {
        // A tenth of the silence that it takes to give way.
        Phase::UdpStream => 3_000,
        // Likewise, and a minute is enough.
        Phase::Established => 60_000,
        _ => 1_000,
    }
}

/// A slot's number. Valid until the flow is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowId(u32);

/// Why there is no room for a flow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Every slot is held by a live flow.
    Full,
    /// Its owner has all it may have beside others.
    Share,
}

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Slot {
    flow: Flow,
    /// Milliseconds since the engine's epoch.
    last_seen: u64,
    /// Of an unused slot: the next of those.
    next_forward: u32,
    next_reverse: u32,
    owner: OwnerId,
    phase: Phase,
    used: bool,
    era: bool,
}

/// A slot's places in the queues.
#[derive(Clone, Copy)]
#[repr(C)]
struct Places {
    by_phase: Links,
    /// Only of a tentative flow.
    by_owner: Links,
}

pub(crate) struct FlowTable {
    seed: u64,
    slots: Box<[Slot]>,
    places: Box<[Places]>,
    forward: Box<[u32]>,
    reverse: Box<[u32]>,
    queues: [Queue; Phase::ALL.len()],
    owners: Owners,
    free: u32,
    used: usize,
    displaced: u64,
    /// Flows that are not of it have to be looked at, because of what changed.
    era: bool,
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
        let owners = Owners::new(seed);
        let nobody = Flow::new(placeholder, None);
        let owner = owners.of(&nobody);
        let slot = |at: usize| Slot {
            flow: nobody,
            last_seen: 0,
            next_forward: if at + 1 < capacity { at as u32 + 1 } else { NONE },
            next_reverse: NONE,
            owner,
            phase: Phase::Opening,
            used: false,
            era: false,
        };
        let places = Places { by_phase: Links::LOOSE, by_owner: Links::LOOSE };
        let buckets = vec![NONE; BUCKETS_PER_SLOT * capacity.next_power_of_two()].into_boxed_slice();
        Self {
            seed,
            slots: (0..capacity).map(slot).collect(),
            places: vec![places; capacity].into_boxed_slice(),
            forward: buckets.clone(),
            reverse: buckets,
            queues: [Queue::EMPTY; Phase::ALL.len()],
            owners,
            free: if capacity > 0 { 0 } else { NONE },
            used: 0,
            displaced: 0,
            era: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Flows that gave way to others before their time.
    pub(crate) fn displaced(&self) -> u64 {
        self.displaced
    }

    pub(crate) fn has_room_for_direct(&self) -> bool {
        self.used < self.slots.len() / LEFT_BY_DIRECT
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

    /// Neither direction of the flow may be in the table. Room is made by forgetting a flow that is over, that is
    /// tentative, or was silent for long; never one that lives.
    pub(crate) fn insert(&mut self, flow: Flow, now: u64) -> Result<FlowId, NoRoom> {
        let owner = self.owners.of(&flow);
        self.make_room(owner, now)?;
        let at = self.free;
        let forward = self.forward_bucket(&flow.forward(), flow.via());
        let reverse = self.reverse_bucket(&flow.reverse());
        let slot = &mut self.slots[at as usize];
        self.free = slot.next_forward;
        slot.flow = flow;
        slot.owner = owner;
        slot.used = true;
        slot.era = self.era;
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
        if phase != slot.phase || now.saturating_sub(slot.last_seen) >= granularity(phase) {
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
        slot.next_forward = self.free;
        self.free = id.0;
        self.used -= 1;
    }

    /// Forgets what was silent for too long, or some of it: whether there is more.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let mut left = EXPIRED_PER_TURN;
        for phase in Phase::ALL {
            while let Some((oldest, expiry)) = self.oldest(phase)
                && expiry <= now
            {
                if left == 0 {
                    return true;
                }
                left -= 1;
                self.remove(oldest);
            }
        }
        false
    }

    /// When the next flow expires, in milliseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        Phase::ALL.iter().filter_map(|phase| Some(self.oldest(*phase)?.1)).min()
    }

    /// From here on every flow that is in the table has to be [confirmed](Self::confirm). All must have been.
    pub(crate) fn begin_era(&mut self) {
        self.era = !self.era;
    }

    pub(crate) fn is_confirmed(&self, id: FlowId) -> bool {
        self.slots[id.0 as usize].era == self.era
    }

    pub(crate) fn confirm(&mut self, id: FlowId) {
        self.slots[id.0 as usize].era = self.era;
    }

    /// The flow in the slot of this number, if one is. Numbers are below the capacity.
    pub(crate) fn in_slot(&self, at: usize) -> Option<FlowId> {
        self.slots[at].used.then_some(FlowId(at as u32))
    }

    fn oldest(&self, phase: Phase) -> Option<(FlowId, u64)> {
        let at = self.queues[phase as usize].oldest()?;
        Some((FlowId(at), self.slots[at as usize].last_seen + phase.timeout()))
    }

    fn make_room(&mut self, owner: OwnerId, now: u64) -> Result<(), NoRoom> {
        if !self.owners.has_share(owner, self.capacity()) {
            return Err(NoRoom::Share);
        }
        let own = self.owners.displaced(owner, self.capacity()).map(FlowId);
        let others = || if self.free == NONE { self.evictable(now).map(Some) } else { Some(None) };
        let Some(victim) = own.map(Some).or_else(others) else { return Err(NoRoom::Full) };
        if let Some(victim) = victim {
            self.displaced += 1;
            self.remove(victim);
        }
        Ok(())
    }

    /// Who gives way in a full table: what is over, then the tentative flow that was silent the longest, then a
    /// lasting one that was silent for long.
    fn evictable(&self, now: u64) -> Option<FlowId> {
        let oldest = |phase: Phase| self.queues[phase as usize].oldest();
        let last_seen = |at: &u32| self.slots[*at as usize].last_seen;
        let over = || oldest(Phase::Reset).or_else(|| oldest(Phase::Finished));
        let tentative = || {
            let phases = Phase::ALL.into_iter().filter(|phase| phase.is_tentative());
            phases.filter_map(oldest).min_by_key(last_seen)
        };
        let silent = || {
            EVICTABLE_AFTER.iter().find_map(|(phase, silence)| {
                oldest(*phase).filter(|at| now.saturating_sub(last_seen(at)) >= *silence)
            })
        };
        over().or_else(tentative).or_else(silent).map(FlowId)
    }

    fn enqueue(&mut self, at: u32, phase: Phase, now: u64) {
        let slot = &mut self.slots[at as usize];
        let owner = slot.owner;
        slot.phase = phase;
        slot.last_seen = now;
        self.queues[phase as usize].push(&mut self.places, at, |places| &mut places.by_phase);
        self.owners.add(owner, phase);
        if phase.is_tentative() {
            self.owners.owner(owner).queue.push(&mut self.places, at, |places| &mut places.by_owner);
        }
    }

    fn dequeue(&mut self, at: u32) {
        let Slot { owner, phase, .. } = self.slots[at as usize];
        self.queues[phase as usize].take(&mut self.places, at, |places| &mut places.by_phase);
        self.owners.subtract(owner, phase);
        if phase.is_tentative() {
            self.owners.owner(owner).queue.take(&mut self.places, at, |places| &mut places.by_owner);
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

#[cfg(test)]
mod against_a_map;

#[cfg(test)]
mod tests;
