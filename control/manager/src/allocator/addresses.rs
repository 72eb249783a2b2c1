//! Addresses within networks.

use crate::draft::Draft;
use crate::state::State;
use ipnet::Ipv4Net;
use skep_model::NetworkId;
use skep_model::network::{Network, NetworkAllocation};
use skep_model::task::{Task, TaskState};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What is free on every network, and where each one's search continues.
pub(crate) struct Addresses {
    networks: BTreeMap<NetworkId, Space>,
}

struct Space {
    name: String,
    /// None until the network has a subnet.
    allocation: Option<NetworkAllocation>,
    /// The part of the subnet addresses are given from.
    range: Option<Ipv4Net>,
    taken: BTreeSet<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("network {0} not found")]
    NoSuchNetwork(NetworkId),
    #[error("network {0} has no subnet yet")]
    NoSubnet(String),
    /// What a column of 30 letters cuts off is Docker's words.
    #[error("network {name} is full: no available addresses on this pool ({pool})")]
    Exhausted { name: String, pool: Ipv4Net },
    #[error("Address already in use: {0}")]
    InUse(Ipv4Addr),
    #[error("Requested address is out of range: {addr} is no free host address of network {name} ({subnet})")]
    OutOfRange { addr: Ipv4Addr, name: String, subnet: Ipv4Net },
}

/// A task keeps its addresses until it has stopped, wherever its node may be.
pub(crate) fn holds_addresses(task: &Task) -> bool {
    task.status.state <= TaskState::Running
}

impl Addresses {
    pub(crate) fn of(state: &State) -> Self {
        let mut networks: BTreeMap<_, _> =
            state.networks.values().map(|network| (network.id.clone(), Space::of(network))).collect();
        let mut take = |network: &NetworkId, addr: Ipv4Addr| {
            if let Some(space) = networks.get_mut(network) {
                space.taken.insert(addr);
            }
        };
        for vip in state.services.values().flat_map(|service| &service.endpoint.virtual_ips) {
            take(&vip.network_id, vip.addr.addr());
        }
        for attachment in
            state.tasks.values().filter(|task| holds_addresses(task)).flat_map(|t| &t.attachments)
        {
            take(&attachment.network, attachment.addr.addr());
        }
        if let Some(ingress) = super::ingress(state) {
            state.nodes.values().filter_map(|n| n.skep.ingress_addr).for_each(|addr| take(&ingress.id, addr));
        }
        Self { networks }
    }

    /// One address on each of the networks, or none at all.
    pub(crate) fn take(&mut self, networks: &[NetworkId]) -> Result<Vec<Ipv4Net>, AddressError> {
        let mut granted: Vec<(Ipv4Net, Option<Ipv4Addr>)> = Vec::with_capacity(networks.len());
        for network in networks {
            match self.advance(network) {
                Ok(grant) => granted.push(grant),
                Err(error) => {
                    self.give_back(networks, granted);
                    return Err(error);
                }
            }
        }
        Ok(granted.into_iter().map(|(addr, _)| addr).collect())
    }

    pub(crate) fn take_one(&mut self, network: &NetworkId) -> Result<Ipv4Net, AddressError> {
        self.advance(network).map(|(addr, _)| addr)
    }

    /// A certain address, which does not move the search for others.
    pub(crate) fn take_exactly(
        &mut self,
        network: &NetworkId,
        addr: Ipv4Addr,
    ) -> Result<Ipv4Net, AddressError> {
        let (space, allocation) = self.space(network)?;
        if !is_host(&allocation, addr) {
            let (name, subnet) = (space.name.clone(), allocation.subnet);
            return Err(AddressError::OutOfRange { addr, name, subnet });
        }
        if !space.taken.insert(addr) {
            return Err(AddressError::InUse(addr));
        }
        Ok(with_prefix(addr, allocation.subnet))
    }

    /// Writes where each network's search continues.
    pub(crate) fn store(self, draft: &mut Draft<'_>) {
        for (id, space) in self.networks {
            let Some(network) = draft.state().networks.get(&id) else { continue };
            if network.allocation != space.allocation {
                let mut network = network.clone();
                network.allocation = space.allocation;
                draft.put_network(network);
            }
        }
    }

    /// The address, and where the search stood before.
    fn advance(&mut self, network: &NetworkId) -> Result<(Ipv4Net, Option<Ipv4Addr>), AddressError> {
        let (space, mut allocation) = self.space(network)?;
        let subnet = allocation.subnet;
        let pool = space.range.unwrap_or(subnet);
        let Some(addr) = next_free(&allocation, pool, &space.taken) else {
            return Err(AddressError::Exhausted { name: space.name.clone(), pool });
        };
        space.taken.insert(addr);
        let before = allocation.last_addr.replace(addr);
        space.allocation = Some(allocation);
        Ok((with_prefix(addr, subnet), before))
    }

    fn space(&mut self, network: &NetworkId) -> Result<(&mut Space, NetworkAllocation), AddressError> {
        let space =
            self.networks.get_mut(network).ok_or_else(|| AddressError::NoSuchNetwork(network.clone()))?;
        let allocation = space.allocation.ok_or_else(|| AddressError::NoSubnet(space.name.clone()))?;
        Ok((space, allocation))
    }

    fn give_back(&mut self, networks: &[NetworkId], granted: Vec<(Ipv4Net, Option<Ipv4Addr>)>) {
        for (network, (addr, before)) in networks.iter().zip(granted).rev() {
            let Some(space) = self.networks.get_mut(network) else { continue };
            space.taken.remove(&addr.addr());
            if let Some(allocation) = &mut space.allocation {
                allocation.last_addr = before;
            }
        }
    }
}

impl Space {
    fn of(network: &Network) -> Self {
        Self {
            name: network.spec.name.clone(),
            allocation: network.allocation,
            range: network.spec.ip_range,
            taken: network.spec.reserved.values().copied().collect(),
        }
    }
}

/// The first free address of `pool`, a part of the subnet, behind the one given last, from the start again at
/// the end.
fn next_free(allocation: &NetworkAllocation, pool: Ipv4Net, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let (first, last) = hosts(allocation.subnet)?;
    let (first, last) = (first.max(pool.network().into()), last.min(pool.broadcast().into()));
    let start = allocation.last_addr.map_or(first, |addr| u32::from(addr).saturating_add(1));
    let start = if (first..=last).contains(&start) { start } else { first };
    let free = |addr: &Ipv4Addr| *addr != allocation.gateway && !taken.contains(addr);
    (start..=last).chain(first..start).map(Ipv4Addr::from).find(free)
}

fn is_host(allocation: &NetworkAllocation, addr: Ipv4Addr) -> bool {
    let inside =
        hosts(allocation.subnet).is_some_and(|(first, last)| (first..=last).contains(&u32::from(addr)));
    inside && addr != allocation.gateway
}

/// First and last host address, without the network's and the broadcast address.
fn hosts(subnet: Ipv4Net) -> Option<(u32, u32)> {
    let (first, last) = (u32::from(subnet.network()) + 1, u32::from(subnet.broadcast()).checked_sub(1)?);
    (first <= last).then_some((first, last))
}

fn with_prefix(addr: Ipv4Addr, subnet: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new_assert(addr, subnet.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allocation(subnet: &str, last_addr: Option<&str>) -> NetworkAllocation {
        let subnet: Ipv4Net = subnet.parse().unwrap();
        let gateway = Ipv4Addr::from(u32::from(subnet.network()) + 1);
        let last_addr = last_addr.map(|addr| addr.parse().unwrap());
        NetworkAllocation { vni: 4097, subnet, gateway, last_addr }
    }

    #[test]
    fn the_gateway_is_kept_and_addresses_follow_each_other() {
        let fresh = allocation("10.0.1.0/24", None);
        assert_eq!(next_free(&fresh, fresh.subnet, &BTreeSet::new()), Some(Ipv4Addr::new(10, 0, 1, 2)));
        let later = allocation("10.0.1.0/24", Some("10.0.1.77"));
        assert_eq!(next_free(&later, later.subnet, &BTreeSet::new()), Some(Ipv4Addr::new(10, 0, 1, 78)));
    }

    #[test]
    fn the_search_wraps_and_never_gives_the_broadcast_address() {
        let end = allocation("10.0.1.0/29", Some("10.0.1.6"));
        assert_eq!(next_free(&end, end.subnet, &BTreeSet::new()), Some(Ipv4Addr::new(10, 0, 1, 2)));
        let five: BTreeSet<_> = (2..=6).map(|host| Ipv4Addr::new(10, 0, 1, host)).collect();
        assert_eq!(next_free(&end, end.subnet, &five), None);
    }

    #[test]
    fn all_or_nothing_leaves_no_trace_of_a_failure() {
        let space = |name: &str, subnet, taken: BTreeSet<_>| Space {
            name: name.to_owned(),
            allocation: Some(allocation(subnet, None)),
            range: None,
            taken,
        };
        let full = (2..=6).map(|host| Ipv4Addr::new(10, 0, 2, host)).collect();
        let (a, b) = (NetworkId::from("a"), NetworkId::from("b"));
        let mut addresses = Addresses {
            networks: BTreeMap::from([
                (a.clone(), space("a", "10.0.1.0/29", BTreeSet::new())),
                (b.clone(), space("b", "10.0.2.0/29", full)),
            ]),
        };
        let error = addresses.take(&[a.clone(), b]).unwrap_err();
        assert_eq!(error.to_string(), "network b is full: no available addresses on this pool (10.0.2.0/29)");
        assert_eq!(addresses.networks[&a].allocation.unwrap().last_addr, None);
        assert!(addresses.networks[&a].taken.is_empty());
    }

    proptest! {
        /// Against a model that tries every host address in turn.
        #[test]
        fn next_free_finds_a_free_address_if_there_is_one(
            taken in prop::collection::btree_set(0u8..32, 0..32),
            last in prop::option::of(0u8..40),
            pool in prop::sample::select(vec!["10.0.1.0/27", "10.0.1.0/28", "10.0.1.24/29", "10.0.1.7/32"]),
        ) {
            let pool: Ipv4Net = pool.parse().unwrap();
            let last = last.map(|host| format!("10.0.1.{host}"));
            let allocation = allocation("10.0.1.0/27", last.as_deref());
            let taken: BTreeSet<_> = taken.into_iter().map(|host| Ipv4Addr::new(10, 0, 1, host)).collect();
            let free: BTreeSet<_> =
                (2..=30).map(|host| Ipv4Addr::new(10, 0, 1, host)).filter(|a| pool.contains(a) && !taken.contains(a)).collect();
            let behind = |a: &&Ipv4Addr| allocation.last_addr.is_none_or(|l| **a > l);
            let expected = free.iter().find(behind).or(free.first()).copied();
            prop_assert_eq!(next_free(&allocation, pool, &taken), expected);
        }
    }
}
