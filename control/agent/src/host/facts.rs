//! What the host says about itself.

use super::netlink::{Link, Netlink};
use super::{FactsError, GWBRIDGE, SKEP0, VETH_PREFIX};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// A snapshot of the host's own configuration; nothing Skep made is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    pub hostname: String,
    /// Global IPv4 addresses, in the order of their interfaces.
    pub addresses: Vec<HostAddress>,
    /// Destinations of the host's IPv4 routes, the default route left out, sorted.
    pub routed: Vec<Ipv4Net>,
    /// `nameserver` lines of resolv.conf, in their order.
    pub resolvers: Vec<IpAddr>,
    /// The last `search` (or `domain`) line of resolv.conf.
    pub search: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    pub interface: String,
    pub addr: Ipv4Net,
    /// Of the interface, in bytes.
    pub mtu: u32,
}

impl HostFacts {
    /// MTU in bytes of the interface that owns `addr`.
    pub fn mtu_of(&self, addr: Ipv4Addr) -> Option<u32> {
        self.addresses.iter().find(|a| a.addr.addr() == addr).map(|a| a.mtu)
    }

    /// What no network of the cluster may cover: the host's routes, and the egress bridge's subnet, which a
    /// container on that network would have a second way to.
    pub fn routed_with(&self, gwbridge: Option<Ipv4Net>) -> Vec<Ipv4Net> {
        self.routed.iter().copied().chain(gwbridge).collect()
    }

    /// What a subnet of our own must not cover: a resolver may be reached by the default route alone.
    pub(super) fn taken(&self) -> Vec<Ipv4Net> {
        let resolvers = self.resolvers.iter().filter_map(|resolver| match resolver {
            IpAddr::V4(addr) => Some(Ipv4Net::from(*addr)),
            IpAddr::V6(_) => None,
        });
        self.routed.iter().copied().chain(resolvers).collect()
    }
}

pub(super) async fn read(netlink: &Netlink, resolv_conf: &Path) -> Result<HostFacts, FactsError> {
    let hostname = nix::unistd::gethostname().map_err(|errno| FactsError::Hostname(errno.into()))?;
    // A host without the file has no resolvers; glibc sees it the same way.
    let text = match fs::read_to_string(resolv_conf) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|source| FactsError::Resolvers { path: resolv_conf.to_owned(), source })?,
    };
    let (resolvers, search) = parse_resolv_conf(&text);
    let links = netlink.links().await.map_err(FactsError::Netlink)?;
    let foreign: BTreeMap<u32, Link> =
        links.into_iter().filter(|link| !is_ours(&link.name)).map(|link| (link.index, link)).collect();
    Ok(HostFacts {
        hostname: hostname.to_string_lossy().into_owned(),
        addresses: addresses(netlink, &foreign).await.map_err(FactsError::Netlink)?,
        routed: routed(netlink, &foreign).await.map_err(FactsError::Netlink)?,
        resolvers,
        search,
    })
}

async fn addresses(netlink: &Netlink, foreign: &BTreeMap<u32, Link>) -> io::Result<Vec<HostAddress>> {
    let all = netlink.addresses().await?;
    let global = all.into_iter().filter(|address| address.global && !address.addr.addr().is_loopback());
    Ok(global
        .filter_map(|address| {
            let Link { name, mtu, .. } = foreign.get(&address.index)?.clone();
            Some(HostAddress { interface: name, addr: address.addr, mtu })
        })
        .collect())
}

async fn routed(netlink: &Netlink, foreign: &BTreeMap<u32, Link>) -> io::Result<Vec<Ipv4Net>> {
    let routes = netlink.routes().await?.into_iter();
    let others = routes.filter(|route| route.index.is_none_or(|index| foreign.contains_key(&index)));
    let mut routed: Vec<Ipv4Net> =
        others.map(|route| route.destination).filter(|destination| destination.prefix_len() > 0).collect();
    routed.sort_unstable();
    routed.dedup();
    Ok(routed)
}

pub(super) fn is_ours(link: &str) -> bool {
    link == GWBRIDGE || link == SKEP0 || link.starts_with(VETH_PREFIX)
}

/// resolv.conf(5): `search` and `domain` exclude each other, the last one counts; the rest is not asked for.
fn parse_resolv_conf(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let mut resolvers = Vec::new();
    let mut search = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            // Without a scope: `fe80::1%eth0` names an interface containers don't have.
            Some("nameserver") => resolvers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
            Some("search" | "domain") => search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    (resolvers, search)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_hosts_have_it() {
        let text = "# made by hand\n; so is this\ndomain old.example\nsearch a.example b.example\n\
                    nameserver 192.0.2.1\nnameserver\t2001:db8::1 \nnameserver fe80::1%eth0\noptions ndots:2\n";
        let (resolvers, search) = parse_resolv_conf(text);
        assert_eq!(resolvers, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(search, ["a.example", "b.example"]);
    }
}
