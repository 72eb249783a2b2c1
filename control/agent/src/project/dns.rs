//! What names mean.

use super::{Cluster, Local};
use crate::tasks::{container_id, short_id};
use skep_dns::View;
use skep_dns::records::{Instance, Records, Zone};
use skep_model::NetworkId;
use skep_model::assign::{EndpointAssignment, NetworkAssignment, ServiceAssignment, ServiceNetwork};
use skep_model::service::Protocol;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

#[cfg(test)]
mod tests;

/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;

/// One zone for each network. The one of ingress, whose addresses have no names, is there so that nobody outside is
/// asked about these either.
pub(crate) fn records(cluster: &Cluster<'_>, local: &Local) -> Records {
    let zone = |network: &NetworkAssignment| match network.ingress {
        true => nameless(network),
        false => zone(cluster, local, network),
    };
    let zones = cluster.networks.values().map(|network| (network.id.0.clone(), zone(network)));
    Records { zones: zones.collect() }
}

/// What a container on `networks` (in the order of its attachments) may ask, and of whom.
pub(crate) fn view(cluster: &Cluster<'_>, networks: &[NetworkId], resolvers: &[IpAddr]) -> View {
    let known: Vec<_> = networks.iter().filter_map(|id| cluster.networks.get(id)).collect();
    let zones = known.iter().map(|network| network.id.0.clone()).collect();
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

fn nameless(network: &NetworkAssignment) -> Zone {
    Zone { name: network.name.to_lowercase(), subnet: Some(network.subnet), ..Zone::default() }
}

fn zone(cluster: &Cluster<'_>, local: &Local, network: &NetworkAssignment) -> Zone {
    let mut zone = nameless(network);
    let reachable = cluster.reachable(local, &network.id);
    let serving: Vec<_> =
        reachable.iter().map(|(endpoint, _)| *endpoint).filter(|e| cluster.is_serving(local, e)).collect();
    let services: Vec<_> =
        cluster.services.values().filter_map(|service| Meaning::of(service, network, &serving)).collect();

    for meaning in &services {
        meaning.add(&mut zone, &meaning.service.name);
        if let Some(vip) = meaning.foot.vip {
            zone.reverse.insert(vip, meaning.service.name.to_lowercase());
        }
    }
    // A service's name means the service, also where another one has it for an alias. An alias of several services
    // means them all, as in Docker: that is how one is replaced by another without a gap.
    let taken = names(&zone);
    for meaning in &services {
        let free = meaning.foot.aliases.iter().filter(|alias| !taken.contains(&alias.to_lowercase()));
        free.for_each(|alias| meaning.add(&mut zone, alias));
    }
    // And where an attachment has chosen it.
    let taken = names(&zone);
    for endpoint in &serving {
        add_endpoint(&mut zone, endpoint, &taken);
    }
    zone
}

fn names(zone: &Zone) -> BTreeSet<String> {
    zone.names.keys().cloned().collect()
}

/// What a service's names mean on one network.
struct Meaning<'a> {
    service: &'a ServiceAssignment,
    foot: &'a ServiceNetwork,
    /// Those that serve.
    tasks: Vec<&'a EndpointAssignment>,
}

impl<'a> Meaning<'a> {
    fn of(
        service: &'a ServiceAssignment,
        network: &NetworkAssignment,
        serving: &[&'a EndpointAssignment],
    ) -> Option<Self> {
        let foot = service.networks.iter().find(|foot| foot.network == network.id)?;
        let own = serving.iter().filter(|endpoint| endpoint.service.as_ref() == Some(&service.id));
        Some(Self { service, foot, tasks: own.copied().collect() })
    }

    /// `<name>` → VIP, or the tasks' addresses without one; `tasks.<name>` → these; `_<port>._<protocol>.<name>` →
    /// these with the port (RFC 2782), the port by its number inside the tasks and by its name.
    ///
    /// All exist as long as the service, also while nothing serves: that nobody is there now is what the asker has
    /// to know, and no outsider knows more.
    fn add(&self, zone: &mut Zone, name: &str) {
        let tasks: Vec<_> = self.tasks.iter().map(|task| task.addr).collect();
        add(zone, &format!("tasks.{name}"), &tasks);
        match self.foot.vip {
            Some(vip) => add(zone, name, &[vip]),
            None => add(zone, name, &tasks),
        }
        for port in &self.service.ports {
            let number = port.target_port.to_string();
            for label in [&number, &port.name].into_iter().filter(|label| !label.is_empty()) {
                let key = format!("_{label}._{}.{name}", protocol(port.protocol)).to_lowercase();
                let known = zone.services.entry(key).or_default();
                known.extend(self.tasks.iter().map(|task| instance(task, port.target_port)));
                known.sort();
                known.dedup();
            }
        }
    }
}

fn instance(task: &EndpointAssignment, port: u16) -> Instance {
    Instance { name: task.task_name.to_lowercase(), addr: task.addr, port }
}

/// RFC 2782's names.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The names an endpoint has for itself: the task's name and id, and for a service's task what its own `hostname`
/// says unless the service sets another. Aliases no service has.
fn add_endpoint(zone: &mut Zone, endpoint: &EndpointAssignment, taken: &BTreeSet<String>) {
    let own = [endpoint.task_name.as_str(), endpoint.task.as_str()];
    let container = endpoint.service.as_ref().map(|_| container_id(endpoint.task.as_str()));
    let hostname = container.as_deref().map(short_id);
    for name in endpoint.aliases.iter().map(String::as_str).chain(own).chain(hostname) {
        if !name.is_empty() && !taken.contains(&name.to_lowercase()) {
            add(zone, name, &[endpoint.addr]);
        }
    }
    if !endpoint.task_name.is_empty() {
        zone.reverse.insert(endpoint.addr, endpoint.task_name.to_lowercase());
    }
}

/// In the order of the addresses, the same on every node.
fn add(zone: &mut Zone, name: &str, addresses: &[Ipv4Addr]) {
    let known = zone.names.entry(name.to_lowercase()).or_default();
    known.extend(addresses);
    known.sort();
    known.dedup();
}
