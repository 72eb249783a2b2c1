//! What names mean.

use super::{Cluster, Local};
use skep_dns::View;
use skep_dns::records::{Records, Zone};
use skep_model::NetworkId;
use skep_model::assign::{EndpointAssignment, NetworkAssignment, ServiceAssignment};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

#[cfg(test)]
mod tests;

/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;

/// One zone for each network except ingress, whose addresses have no names.
pub(crate) fn records(cluster: &Cluster<'_>, local: &Local) -> Records {
    let named = cluster.networks.values().filter(|network| !network.ingress);
    let zones = named.map(|network| (network.id.0.clone(), zone(cluster, local, network))).collect();
    Records { zones }
}

/// What a container on `networks` (in the order of its attachments) may ask, and of whom.
pub(crate) fn view(cluster: &Cluster<'_>, networks: &[NetworkId], resolvers: &[IpAddr]) -> View {
    let known: Vec<_> = networks.iter().filter_map(|id| cluster.networks.get(id)).collect();
    let zones = known.iter().filter(|network| !network.ingress).map(|network| network.id.0.clone()).collect();
    let upstreams = match has_egress(known.iter().map(|network| **network)) {
        true => resolvers.iter().map(|resolver| SocketAddr::new(*resolver, DNS_PORT)).collect(),
        false => Vec::new(),
    };
    View { zones, upstreams }
}

/// Whether a container on these networks may reach the outside: unless it is on internal ones only.
/// Ingress doesn't count: it leads in, not out.
pub(super) fn has_egress<'a>(networks: impl Iterator<Item = &'a NetworkAssignment>) -> bool {
    let mut overlays = networks.filter(|network| !network.ingress).peekable();
    overlays.peek().is_none() || overlays.any(|network| !network.internal)
}

fn zone(cluster: &Cluster<'_>, local: &Local, network: &NetworkAssignment) -> Zone {
    let mut zone = Zone { name: network.name.to_lowercase(), ..Zone::default() };
    let reachable = cluster.reachable(local, &network.id);
    let serving: Vec<_> =
        reachable.iter().map(|(endpoint, _)| *endpoint).filter(|e| cluster.is_serving(e)).collect();

    for service in cluster.services.values() {
        add_service(&mut zone, network, service, &serving);
    }
    // A service's name means the service, also where an attachment has chosen the same.
    let taken: BTreeSet<String> = zone.names.keys().cloned().collect();
    for endpoint in &serving {
        add_endpoint(&mut zone, endpoint, &taken);
    }
    zone
}

/// `<service>` and its aliases → VIP, or the tasks' addresses without one; `tasks.<service>` → these.
/// A name with a VIP exists as long as its service, also while nothing serves.
fn add_service(
    zone: &mut Zone,
    network: &NetworkAssignment,
    service: &ServiceAssignment,
    serving: &[&EndpointAssignment],
) {
    let Some(foot) = service.networks.iter().find(|foot| foot.network == network.id) else { return };
    let own = serving.iter().filter(|endpoint| endpoint.service.as_ref() == Some(&service.id));
    let tasks: Vec<Ipv4Addr> = own.map(|endpoint| endpoint.addr).collect();
    let meaning = foot.vip.map_or_else(|| tasks.clone(), |vip| vec![vip]);
    for name in foot.aliases.iter().chain([&service.name]) {
        add(zone, name, &meaning);
    }
    add(zone, &format!("tasks.{}", service.name), &tasks);
    if let Some(vip) = foot.vip {
        zone.reverse.insert(vip, service.name.to_lowercase());
    }
}

/// The endpoint's own name, and the aliases no service has.
fn add_endpoint(zone: &mut Zone, endpoint: &EndpointAssignment, taken: &BTreeSet<String>) {
    for name in endpoint.aliases.iter().chain([&endpoint.task_name]) {
        if !taken.contains(&name.to_lowercase()) {
            add(zone, name, &[endpoint.addr]);
        }
    }
    if !endpoint.task_name.is_empty() {
        zone.reverse.insert(endpoint.addr, endpoint.task_name.to_lowercase());
    }
}

/// A name without an address is no name.
fn add(zone: &mut Zone, name: &str, addresses: &[Ipv4Addr]) {
    if name.is_empty() || addresses.is_empty() {
        return;
    }
    let known = zone.names.entry(name.to_lowercase()).or_default();
    known.extend(addresses);
    known.sort();
    known.dedup();
}
