//! Which backend gets the next new flow.

use crate::hash::scramble;
use crate::index::{Index, ServiceIndex};
use crate::prepared::Carried;
use std::net::Ipv4Addr;

/// One round-robin pointer per service.
pub(crate) struct Pointers {
    seed: u64,
    next: Vec<usize>,
}

impl Pointers {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: Vec::new() }
    }

    /// Keeps the pointers of the services that stay. A new service starts anywhere, depending on the seed, so
    /// that not every node sends its first client to the same backend. Where exactly shows at the first pick:
    /// a service comes before its backends.
    pub(crate) fn follow(&mut self, carried: &Carried, new: &Index) {
        // Half of the range is left for counting on.
        let start = |vni: u32, vip: Ipv4Addr| {
            (scramble(self.seed, u64::from(vni) << 32 | u64::from(vip.to_bits())) >> 1) as usize
        };
        let services = new.services().zip(&carried.services);
        let next = services.map(|((vni, service), before)| match before {
            Some(before) => self.next[*before],
            None => start(vni, service.vip),
        });
        self.next = next.collect();
    }

    /// The backend whose turn it is. Whatever the list was before, n picks in a row from a list of n
    /// meet n different backends: each pick goes one further.
    pub(crate) fn candidate(&self, service: &ServiceIndex) -> Option<Ipv4Addr> {
        let n = service.active.len();
        (n > 0).then(|| service.active[self.next[service.pointer] % n])
    }

    /// The candidate took the flow.
    pub(crate) fn advance(&mut self, service: &ServiceIndex) {
        let next = &mut self.next[service.pointer];
        *next = (*next % service.active.len().max(1)) + 1;
    }
}
