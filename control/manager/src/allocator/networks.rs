//! VNIs and subnets.

use crate::draft::Draft;
use crate::state::State;
use ipnet::Ipv4Net;
use skep_model::NetworkId;
use skep_model::cluster::Cluster;
use skep_model::network::{FIRST_VNI, LAST_VNI, Network, NetworkAllocation, NetworkSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Why a network cannot have what it needs. The first words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("all predefined address pools have been fully subnetted{0}")]
    PoolsExhausted(String),
    #[error("Pool overlaps with other one on this address space: {wanted} overlaps {taken} {holder}")]
    Overlap { wanted: Ipv4Net, taken: Ipv4Net, holder: String },
    #[error("all VNIs from {FIRST_VNI} to {LAST_VNI} are in use")]
    VnisExhausted,
}

/// Allocates every network that is not yet; ingress first, so that it has the first VNI and subnet.
/// Nothing is given away before a first host has said what it routes.
pub(crate) fn allocate(draft: &mut Draft<'_>) -> BTreeMap<NetworkId, NetworkError> {
    let mut failed = BTreeMap::new();
    if !draft.state().nodes.values().any(|node| node.skep.data_path_addr.is_some()) {
        return failed;
    }
    let mut waiting: Vec<Network> =
        draft.state().networks.values().filter(|network| network.allocation.is_none()).cloned().collect();
    waiting.sort_by(|a, b| key(a).cmp(&key(b)));
    for mut network in waiting {
        match allocation_for(draft.state(), &network.spec) {
            Ok(None) => return failed,
            Ok(Some((allocation, cluster))) => {
                network.allocation = Some(allocation);
                draft.put_network(network);
                draft.put_cluster(cluster);
            }
            Err(error) => {
                failed.insert(network.id, error);
            }
        }
    }
    failed
}

fn key(network: &Network) -> (bool, jiff::Timestamp, &NetworkId) {
    (!network.spec.ingress, network.meta.created_at, &network.id)
}

/// None while there is no cluster object.
fn allocation_for(
    state: &State,
    spec: &NetworkSpec,
) -> Result<Option<(NetworkAllocation, Cluster)>, NetworkError> {
    let Some(mut cluster) = state.cluster.clone() else { return Ok(None) };
    let subnet = match spec.subnet {
        Some(wanted) => is_clear(state, wanted).map(|()| wanted)?,
        None => next_subnet(state, &cluster)?,
    };
    let vni = next_vni(state, cluster.last_vni).ok_or(NetworkError::VnisExhausted)?;
    cluster.last_vni = vni;
    let gateway = spec.gateway.unwrap_or_else(|| Ipv4Addr::from(u32::from(subnet.network()) + 1));
    Ok(Some((NetworkAllocation { vni, subnet, gateway, last_addr: None }, cluster)))
}

/// The first free VNI behind the one given last.
fn next_vni(state: &State, last: u32) -> Option<u32> {
    let taken: BTreeSet<u32> = state.networks.values().filter_map(|n| Some(n.allocation?.vni)).collect();
    let start = if (FIRST_VNI..LAST_VNI).contains(&last) { last + 1 } else { FIRST_VNI };
    (start..=LAST_VNI).chain(FIRST_VNI..start).find(|vni| !taken.contains(vni))
}

/// Subnets nobody else may have, with who has them: networks, what the hosts route, the hosts themselves.
fn blocked(state: &State) -> Vec<(Ipv4Net, String)> {
    let networks = state
        .networks
        .values()
        .filter_map(|n| Some((n.allocation?.subnet, format!("of network {}", n.spec.name))));
    let hosts = state.nodes.values().flat_map(|node| {
        // A default route covers everything and blocks nothing.
        let routed = node.skep.routed.iter().filter(|route| route.prefix_len() > 0);
        let routed = routed.map(|r| (*r, format!("that node {} routes", node.description.hostname)));
        let own = node.skep.data_path_addr.map(|addr| (Ipv4Net::from(addr), "of the underlay".to_owned()));
        routed.chain(own)
    });
    networks.chain(hosts).collect()
}

fn is_clear(state: &State, wanted: Ipv4Net) -> Result<(), NetworkError> {
    let overlaps = |taken: &Ipv4Net| taken.contains(&wanted) || wanted.contains(taken);
    match blocked(state).into_iter().find(|(taken, _)| overlaps(taken)) {
        Some((taken, holder)) => Err(NetworkError::Overlap { wanted, taken, holder }),
        None => Ok(()),
    }
}

/// The lowest subnet of the cluster's pools that overlaps nothing.
fn next_subnet(state: &State, cluster: &Cluster) -> Result<Ipv4Net, NetworkError> {
    let blocked = blocked(state);
    let mut ranges: Vec<(u32, u32)> = blocked.iter().map(|(net, _)| range(*net)).collect();
    ranges.sort_unstable();
    let found =
        cluster.default_addr_pool.iter().find_map(|pool| first_gap(*pool, cluster.subnet_size, &ranges));
    found.ok_or_else(|| NetworkError::PoolsExhausted(pool_thieves(cluster, &blocked)))
}

/// The first subnet of `pool` clear of `blocked`, which is sorted by start.
fn first_gap(pool: Ipv4Net, prefix: u8, blocked: &[(u32, u32)]) -> Option<Ipv4Net> {
    if prefix < pool.prefix_len() || prefix > 30 {
        return None;
    }
    let size = 1u64 << (32 - prefix);
    let end = u64::from(u32::from(pool.broadcast()));
    let mut start = u64::from(u32::from(pool.network()));
    // INVARIANT: every range passed so far ends before `start`.
    for (from, to) in blocked.iter().map(|(from, to)| (u64::from(*from), u64::from(*to))) {
        if from >= start + size {
            break;
        }
        if to >= start {
            start = (to + 1).next_multiple_of(size);
        }
    }
    let subnet = Ipv4Net::new(u32::try_from(start).ok()?.into(), prefix).ok()?;
    (start + size - 1 <= end).then_some(subnet)
}

fn range(net: Ipv4Net) -> (u32, u32) {
    (net.network().into(), net.broadcast().into())
}

/// Names the hosts' routes that cover a pool: then the remedy is another pool, not fewer networks.
fn pool_thieves(cluster: &Cluster, blocked: &[(Ipv4Net, String)]) -> String {
    let covers = |net: &Ipv4Net| cluster.default_addr_pool.iter().any(|pool| net.contains(pool));
    match blocked.iter().find(|(net, _)| covers(net)) {
        Some((net, holder)) => format!("; the pool lies in {net} {holder}: give `--subnet`"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn gaps_are_found_around_whatever_is_blocked() {
        let pool = net("10.0.0.0/8");
        let gap = |blocked: &[&str]| {
            let mut ranges: Vec<_> = blocked.iter().map(|text| range(net(text))).collect();
            ranges.sort_unstable();
            first_gap(pool, 24, &ranges).map(|found| found.to_string())
        };
        assert_eq!(gap(&[]).as_deref(), Some("10.0.0.0/24"));
        assert_eq!(gap(&["10.0.0.0/24", "10.0.1.128/25"]).as_deref(), Some("10.0.2.0/24"));
        assert_eq!(gap(&["10.0.0.0/15"]).as_deref(), Some("10.2.0.0/24"));
        assert_eq!(gap(&["10.0.0.0/8"]), None);
        assert_eq!(gap(&["192.168.0.0/16", "10.0.0.7/32"]).as_deref(), Some("10.0.1.0/24"));
    }

    #[test]
    fn a_pool_at_the_end_of_the_address_space_ends_there() {
        let last = net("255.255.255.0/24");
        assert_eq!(first_gap(last, 24, &[range(last)]), None);
        assert_eq!(first_gap(last, 25, &[range(net("255.255.255.0/25"))]), Some(net("255.255.255.128/25")));
    }

    proptest! {
        #[test]
        fn the_first_gap_is_the_first_one(blocked in prop::collection::vec((0u32..256, 24u8..=30), 0..12)) {
            let pool = net("10.0.0.0/24");
            let nets: Vec<Ipv4Net> = blocked
                .into_iter()
                .map(|(host, prefix)| {
                    Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + host), prefix).unwrap().trunc()
                })
                .collect();
            let mut ranges: Vec<_> = nets.iter().map(|n| range(*n)).collect();
            ranges.sort_unstable();
            let clear = |s: &Ipv4Net| nets.iter().all(|n| !n.contains(s) && !s.contains(n));
            let expected = pool.subnets(28).unwrap().find(clear);
            prop_assert_eq!(first_gap(pool, 28, &ranges), expected);
        }
    }
}
