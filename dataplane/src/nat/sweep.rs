//! [`Sweep`]: what a new snapshot means for the flows there are.
//!
//! They are many, and packets do not wait until all were looked at: some are at each turn, and those that a packet
//! belongs to before it goes on. So no packet follows a flow that the snapshot ended.

use super::flow::{Flow, Tuple};
use super::table::FlowId;
use super::{Nat, published_port};
use crate::hash::Set;
use crate::index::{Index, ServiceIndex};
use crate::prepared::{Carried, Retired};
use crate::wire::ipv4;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Slots that are looked at in one turn, so that packets wait no longer for it than for a batch of their own.
const SLOTS_PER_TURN: usize = 2048;
/// A flow whose network changed takes several lookups: as long as so many slots.
const JUDGED: usize = 16;
/// One that ends takes two packets besides.
const ENDED: usize = 32;
/// At most.
pub(super) const ENDED_PER_TURN: usize = SLOTS_PER_TURN / ENDED + 1;

pub(super) struct Sweep {
    old: Arc<Index>,
    new: Arc<Index>,
    /// Flows of these are as they were.
    same_networks: Set<u32>,
    /// Slots before were looked at.
    next: usize,
}

impl Nat {
    /// Follows a new snapshot. None may be followed while a sweep is under way.
    pub(crate) fn follow(&mut self, old: Arc<Index>, new: Arc<Index>, carried: Carried, now: u64) {
        self.pointers.follow(&carried, &new);
        self.flows.begin_era();
        self.sweep = Some(Sweep { old, new, same_networks: carried.same_networks, next: 0 });
        self.backlog = Some(now);
    }

    /// Whether there is more to do than was done at the last turn.
    pub(crate) fn is_behind(&self) -> bool {
        self.backlog.is_some()
    }

    pub(crate) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Looks at some flows, and forgets some of those that were silent for too long. Returns what a sweep that is over
    /// leaves behind.
    pub(crate) fn catch_up(&mut self, now: u64) -> Option<Retired> {
        let retired = self.sweep_on();
        let is_behind = self.flows.expire(now) || self.sweep.is_some();
        self.backlog = is_behind.then_some(now);
        retired
    }

    /// A connection that has ended, and the index under which it lived.
    pub(crate) fn take_ended(&mut self) -> Option<(Flow, Arc<Index>)> {
        // Only a sweep ends any.
        let old = &self.sweep.as_ref()?.old;
        Some((self.ended.pop()?, old.clone()))
    }

    pub(super) fn find_forward(&mut self, tuple: &Tuple, via: Option<Ipv4Addr>) -> Option<FlowId> {
        let id = self.flows.find_forward(tuple, via)?;
        self.outlives(id).then_some(id)
    }

    pub(super) fn find_reverse(&mut self, tuple: &Tuple) -> Option<FlowId> {
        let id = self.flows.find_reverse(tuple)?;
        self.outlives(id).then_some(id)
    }

    fn sweep_on(&mut self) -> Option<Retired> {
        let mut left = SLOTS_PER_TURN;
        loop {
            let sweep = self.sweep.as_mut()?;
            if sweep.next == self.flows.capacity() {
                // Those that hear of an end are found by the old tables.
                if !self.ended.is_empty() {
                    return None;
                }
                return self.sweep.take().map(|sweep| Retired::new(sweep.old));
            }
            if left == 0 {
                return None;
            }
            let at = sweep.next;
            sweep.next += 1;
            let took = self.flows.in_slot(at).map_or(1, |id| self.look_at(id));
            left = left.saturating_sub(took);
        }
    }

    /// Returns how many slots' time it took.
    fn look_at(&mut self, id: FlowId) -> usize {
        if self.flows.is_confirmed(id) {
            return 1;
        }
        let vni = self.flows.flow(id).vni;
        let is_same = self.sweep.as_ref().is_some_and(|sweep| sweep.same_networks.contains(&vni));
        match self.outlives(id) {
            true if is_same => 1,
            true => JUDGED,
            false => ENDED,
        }
    }

    /// Whether a flow lives under the newest snapshot. What does not is forgotten.
    fn outlives(&mut self, id: FlowId) -> bool {
        if self.flows.is_confirmed(id) {
            return true;
        }
        let flow = *self.flows.flow(id);
        if self.sweep.as_ref().is_none_or(|sweep| sweep.is_alive(&flow)) {
            self.flows.confirm(id);
            return true;
        }
        self.flows.remove(id);
        if flow.protocol == ipv4::TCP && !flow.is_direct() && !flow.is_over() {
            self.ended.push(flow);
        }
        false
    }
}

impl Sweep {
    /// Whether a flow still has the two ends it had under the snapshot before. An address that is elsewhere is somebody
    /// else's, who knows nothing of the flow.
    fn is_alive(&self, flow: &Flow) -> bool {
        self.same_networks.contains(&flow.vni) || is_alive(flow, &self.old, &self.new)
    }
}

fn is_alive(flow: &Flow, old: &Index, new: &Index) -> bool {
    let Some(network) = new.network(flow.vni) else { return false };
    let has_client = match flow.via() {
        None if network.subnet.contains(&flow.client) => new.is_where_it_was(old, flow.vni, flow.client),
        via => network.host(via).is_some(),
    };
    let port = published_port(&flow.forward());
    let is_through = |service: &ServiceIndex| flow.via().is_some() || service.vip == flow.service;
    let is_served = flow.is_direct()
        || network.services_of(flow.backend).any(|service| is_through(service) && service.is_open(port));
    has_client && is_served && new.is_where_it_was(old, flow.vni, flow.backend)
}
