//! Addresses of the egress bridge's subnet, lent to one container each.

use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// A Linux bridge has 1,024 ports (BR_MAX_PORTS in net/bridge/br_private.h).
pub(super) const MAX_CONTAINERS: usize = 1023;

/// Hands out addresses one after the other and comes back to a freed one last, so that an answer to a
/// container that is gone doesn't reach its successor.
#[derive(Debug)]
pub(super) struct AddressPool {
    subnet: Ipv4Net,
    state: Mutex<Lent>,
}

#[derive(Debug)]
struct Lent {
    addrs: BTreeSet<u32>,
    last: u32,
}

/// An address in use, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<AddressPool>,
    addr: Ipv4Addr,
}

impl AddressPool {
    pub(super) fn new(subnet: Ipv4Net) -> Arc<Self> {
        let state = Mutex::new(Lent { addrs: BTreeSet::new(), last: u32::from(gateway(subnet)) });
        Arc::new(Self { subnet, state })
    }

    /// None when [`MAX_CONTAINERS`] are lent or the subnet is used up.
    pub(super) fn lend(self: &Arc<Self>) -> Option<Lease> {
        let first = u32::from(gateway(self.subnet)) + 1;
        let last = u32::from(self.subnet.broadcast()) - 1;
        let mut lent = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if lent.addrs.len() >= MAX_CONTAINERS {
            return None;
        }
        let from_here = (lent.last + 1..=last).chain(first..=lent.last.min(last));
        let free = from_here.into_iter().find(|addr| !lent.addrs.contains(addr))?;
        lent.addrs.insert(free);
        lent.last = free;
        Some(Lease { pool: Arc::clone(self), addr: free.into() })
    }

    /// What is lent, in order.
    pub(super) fn lent(&self) -> Vec<Ipv4Addr> {
        let lent = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        lent.addrs.iter().map(|addr| Ipv4Addr::from(*addr)).collect()
    }
}

impl Lease {
    pub(super) fn addr(&self) -> Ipv4Addr {
        self.addr
    }

    pub(super) fn subnet(&self) -> Ipv4Net {
        self.pool.subnet
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut lent = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        lent.addrs.remove(&u32::from(self.addr));
    }
}

/// The bridge's own address: the first of its subnet.
pub(super) fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    (u32::from(subnet.network()) + 1).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str) -> Arc<AddressPool> {
        AddressPool::new(subnet.parse().unwrap())
    }

    #[test]
    fn a_freed_address_waits_until_the_others_were_used() {
        let pool = pool("172.18.0.0/29");
        let take = || pool.lend().unwrap();
        let (first, second) = (take(), take());
        assert_eq!(
            (first.addr(), second.addr()),
            ("172.18.0.2".parse().unwrap(), "172.18.0.3".parse().unwrap())
        );
        drop(first);
        let rest: Vec<_> = (0..3).map(|_| take()).collect();
        assert_eq!(rest.last().map(Lease::addr), Some("172.18.0.6".parse().unwrap()));
        assert_eq!(take().addr(), "172.18.0.2".parse::<Ipv4Addr>().unwrap());
    }

    #[test]
    fn a_used_up_pool_lends_nothing() {
        let pool = pool("172.18.0.0/30");
        let only = pool.lend().unwrap();
        assert!(pool.lend().is_none());
        drop(only);
        assert!(pool.lend().is_some());
    }

    #[test]
    fn no_more_than_a_bridge_has_ports() {
        let pool = pool("172.18.0.0/16");
        let leases: Vec<_> = std::iter::from_fn(|| pool.lend()).collect();
        assert_eq!(leases.len(), MAX_CONTAINERS);
    }

    proptest! {
        #[test]
        fn no_address_is_lent_twice(steps in prop::collection::vec(prop::option::of(0usize..8), 0..80)) {
            let pool = pool("172.18.0.0/28");
            let mut held: Vec<Lease> = Vec::new();
            for step in steps {
                match step {
                    Some(at) if at < held.len() => drop(held.swap_remove(at)),
                    Some(_) => {}
                    None => held.extend(pool.lend()),
                }
                let distinct: BTreeSet<_> = held.iter().map(Lease::addr).collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert!(distinct.iter().all(|a| pool.subnet.hosts().skip(1).any(|host| host == *a)));
            }
        }
    }
}
