//! What names mean, per network. Immutable; swapped whole.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Names a network within [`Records`]; the caller's choice (Skep uses the network's id).
pub type ZoneId = String;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub zones: HashMap<ZoneId, Zone>,
}

/// The names one network knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// The network's own name: `web` is also `web.<name>`.
    pub name: String,
    /// Whose addresses are the network's: nobody outside is asked for their names.
    pub subnet: Option<Ipv4Net>,
    /// Keys in lower case, without a trailing dot. A name without addresses is known and empty.
    pub names: HashMap<String, Addresses>,
    /// What answers at a service's ports (RFC 2782); keys like those of `names`, `_http._tcp.web`.
    pub services: HashMap<String, Vec<Instance>>,
    /// Names for reverse look-ups, without the network's name.
    pub reverse: HashMap<Ipv4Addr, String>,
}

/// Answered in an order that changes from question to question.
pub type Addresses = Vec<Ipv4Addr>;

/// One task of a service, at one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// One of the zone's names, without the network's.
    pub name: String,
    pub addr: Ipv4Addr,
    pub port: u16,
}
