//! What names mean, per network. Immutable; swapped whole.

use std::collections::HashMap;
use std::net::Ipv4Addr;

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
    /// Keys in lower case, without a trailing dot.
    pub names: HashMap<String, Addresses>,
    /// Names for reverse look-ups, without the network's name.
    pub reverse: HashMap<Ipv4Addr, String>,
}

/// Answered in an order that changes from question to question.
pub type Addresses = Vec<Ipv4Addr>;
