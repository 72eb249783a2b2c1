//! What the host says about itself.

use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};

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
}
