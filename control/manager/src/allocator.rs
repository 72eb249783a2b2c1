//! Gives what the users did not choose: VNIs and subnets to networks, addresses to nodes, services
//! and tasks, ports to services. What is taken is always read from the objects themselves, so that no
//! second book can disagree with them (moby#33795: addresses given twice after a leader change).
//!
//! Order as in Swarm: gateway first, then nodes on ingress, VIPs, tasks; serial next-fit.

mod addresses;
mod networks;
mod ports;
mod services;
mod tasks;

pub(crate) use addresses::{AddressError, Addresses};
pub(crate) use networks::allocate as allocate_networks;
pub(crate) use ports::ingress_ports;
pub(crate) use services::{allocate as allocate_services, networks_of, publishes};
pub(crate) use tasks::allocate as allocate_tasks;

use crate::draft::Draft;
use crate::state::State;
use skep_model::network::Network;

/// The network published ports live on.
pub(crate) fn ingress(state: &State) -> Option<&Network> {
    state.networks.values().find(|network| network.spec.ingress)
}

/// Gives every node the address of its `skep0`.
pub(crate) fn allocate_nodes(draft: &mut Draft<'_>) {
    let mut waiting: Vec<_> =
        draft.state().nodes.values().filter(|node| node.skep.ingress_addr.is_none()).cloned().collect();
    let Some(ingress) = ingress(draft.state()).map(|network| network.id.clone()) else { return };
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by(|a, b| (a.meta.created_at, &a.id).cmp(&(b.meta.created_at, &b.id)));
    let mut addresses = Addresses::of(draft.state());
    for mut node in waiting {
        match addresses.take_one(&ingress) {
            Ok(granted) => {
                node.skep.ingress_addr = Some(granted.addr());
                draft.put_node(node);
            }
            // There is no subnet before a first host has said what it routes.
            Err(AddressError::NoSubnet(_)) if node.skep.data_path_addr.is_none() => {}
            Err(error) => draft.report(format!("node {} has no ingress address: {error}", node.id)),
        }
    }
    addresses.store(draft);
}
