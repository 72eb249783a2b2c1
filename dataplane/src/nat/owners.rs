//! [`Owners`]: what each client takes up of the flow table, so that none takes it from the others.
//!
//! An owner is the address that opened a flow: a container of this node, or a client of the outside. Flows are of two
//! kinds. *Tentative* ones cost their opener a packet or two, and may be forged: each owner may have a part of the room
//! that is left, and beyond it its own oldest gives way to its newest. *Lasting* ones took two sides to make and are
//! not taken away: each owner may have as many as it leaves for others. So one owner alone can have half of the table,
//! and `n` that take all they get leave one in `n + 1` (dynamic thresholds: Choudhury and Hahne, IEEE/ACM ToN 6(2),
//! 1998). What an owner is guaranteed is little enough that hundreds have it.

use super::flow::{Flow, Phase};
use super::queue::Queue;
use crate::hash::scramble;

/// Clients that fall into the same bucket share what one is given. Far more than a node has containers.
const BUCKETS: usize = 4096;

/// Flows of each kind that every owner may have, however little room there is.
const GUARANTEED: usize = 256;

/// The part of the slots without a live flow that one owner's tentative flows may take up.
const TENTATIVE_PART: usize = 4;

/// An owner's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerId(u16);

#[derive(Clone, Copy)]
pub(super) struct Owner {
    tentative: u32,
    lasting: u32,
    /// The tentative ones, by when they were last seen.
    pub(super) queue: Queue,
}

pub(super) struct Owners {
    seed: u64,
    buckets: Box<[Owner]>,
    /// Of all owners; flows that are over are neither.
    tentative: usize,
    lasting: usize,
}

impl Owners {
    pub(super) fn new(seed: u64) -> Self {
        let nobody = Owner { tentative: 0, lasting: 0, queue: Queue::EMPTY };
        Self { seed, buckets: vec![nobody; BUCKETS].into_boxed_slice(), tentative: 0, lasting: 0 }
    }

    pub(super) fn of(&self, flow: &Flow) -> OwnerId {
        let client = u64::from(flow.vni) << 32 | u64::from(flow.client.to_bits());
        OwnerId((scramble(!self.seed, client) % BUCKETS as u64) as u16)
    }

    pub(super) fn owner(&mut self, id: OwnerId) -> &mut Owner {
        &mut self.buckets[usize::from(id.0)]
    }

    /// Takes note of a flow that an owner has from here on, in a phase.
    pub(super) fn add(&mut self, id: OwnerId, phase: Phase) {
        if phase.is_tentative() {
            self.owner(id).tentative += 1;
            self.tentative += 1;
        } else if phase.is_lasting() {
            self.owner(id).lasting += 1;
            self.lasting += 1;
        }
    }

    /// Takes back what [`Self::add`] noted.
    pub(super) fn subtract(&mut self, id: OwnerId, phase: Phase) {
        if phase.is_tentative() {
            self.owner(id).tentative -= 1;
            self.tentative -= 1;
        } else if phase.is_lasting() {
            self.owner(id).lasting -= 1;
            self.lasting -= 1;
        }
    }

    /// Whether an owner's lasting flows leave as much of `capacity` for others.
    pub(super) fn has_share(&self, id: OwnerId, capacity: usize) -> bool {
        let left = capacity.saturating_sub(self.lasting);
        (self.buckets[usize::from(id.0)].lasting as usize) < left.max(GUARANTEED)
    }

    /// The flow that gives way to a new one of the same owner, in a table for `capacity` flows.
    pub(super) fn displaced(&self, id: OwnerId, capacity: usize) -> Option<u32> {
        let owner = &self.buckets[usize::from(id.0)];
        let free = capacity.saturating_sub(self.tentative + self.lasting);
        let limit = (free / TENTATIVE_PART).max(GUARANTEED);
        if (owner.tentative as usize) < limit { None } else { owner.queue.oldest() }
    }
}
