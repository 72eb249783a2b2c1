//! What a question means to one container: an answer from the records, or a question for the upstreams. Pure.

use std::net::Ipv4Addr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use crate::records::{Addresses, Records, Zone};
use crate::view::View;

/// How long an answer may be kept, in seconds. A task's address may be gone a second later and asking again costs
/// microseconds, so nobody gains by keeping it; 0 is avoided because some caches take it for "never ask again".
/// (Swarm says 600, which is how clients keep talking to tasks that are gone.)
pub const ANSWER_TTL_SECS: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// NOERROR with these records. None: the name is known, but has nothing of the type asked for. Such a question
    /// is never forwarded: a private name's AAAA is no outsider's business, and a slow or wildcarding upstream would
    /// delay or falsify it.
    Answer(Vec<Record>),
    /// No zone of the view knows the name: the upstreams decide.
    ///
    /// Single-label names too, as Swarm does: hosts have resolvers that know such names (dnsmasq, a router, search
    /// domains applied upstream) and containers rely on reaching them. The price is that a mistyped service name is
    /// seen by the host's resolver. A name of a network the container isn't on is treated alike, so that nothing
    /// about the answer tells whether it exists.
    Forward,
}

/// `turn` selects which of several addresses comes first: consecutive turns go round.
pub fn resolve(query: &Query, records: &Records, view: &View, turn: u32) -> Resolution {
    let zones = || view.zones.iter().filter_map(|id| records.zones.get(id));
    if let Some(name) = reverse_lookup(query.name(), zones()) {
        return Resolution::Answer(match query.query_type() {
            RecordType::PTR | RecordType::ANY => vec![record(query, RData::PTR(PTR(name)))],
            _ => Vec::new(),
        });
    }
    let Some(addresses) = lookup(&key(query.name()), zones()) else { return Resolution::Forward };
    Resolution::Answer(match query.query_type() {
        RecordType::A | RecordType::ANY => {
            in_turn(addresses, turn).map(|ip| record(query, RData::A(A(ip)))).collect()
        }
        _ => Vec::new(),
    })
}

/// The form the records' keys have: lower case, no trailing dot. A label with a dot or a non-ASCII byte in it comes
/// out escaped, so it can't be mistaken for another name.
pub fn key(name: &Name) -> String {
    let mut key = name.to_ascii();
    key.make_ascii_lowercase();
    if key.ends_with('.') {
        key.pop();
    }
    key
}

/// Plain names of every zone come before `<name>.<network>` of any, in the zones' order.
fn lookup<'a>(key: &str, zones: impl Iterator<Item = &'a Zone> + Clone) -> Option<&'a Addresses> {
    let mut plain = zones.clone().filter_map(|zone| zone.names.get(key));
    plain.next().or_else(|| {
        let mut qualified = zones.filter_map(|zone| zone.names.get(strip_network(key, &zone.name)?));
        qualified.next()
    })
}

/// `web` of `web.backend` in network `backend`.
fn strip_network<'k>(key: &'k str, network: &str) -> Option<&'k str> {
    let at = key.len().checked_sub(network.len() + 1)?;
    let (name, suffix) = key.split_at_checked(at)?;
    let same = suffix.strip_prefix('.')?.eq_ignore_ascii_case(network);
    same.then_some(name)
}

/// The name behind a `4.3.2.1.in-addr.arpa.` that a zone knows, as `<name>.<network>.`.
fn reverse_lookup<'a>(asked: &Name, mut zones: impl Iterator<Item = &'a Zone>) -> Option<Name> {
    let Ok(IpNet::V4(net)) = asked.parse_arpa_name() else { return None };
    if net.prefix_len() != 32 {
        return None;
    }
    zones.find_map(|zone| {
        let name = zone.reverse.get(&net.addr())?;
        Name::from_ascii(format!("{name}.{}.", zone.name)).ok()
    })
}

fn in_turn(addresses: &Addresses, turn: u32) -> impl Iterator<Item = Ipv4Addr> {
    let first = (turn as usize).checked_rem(addresses.len()).unwrap_or(0);
    addresses[first..].iter().chain(&addresses[..first]).copied()
}

/// The owner is the name as it was asked: clients that mix the case of their questions check for it.
fn record(query: &Query, data: RData) -> Record {
    Record::from_rdata(query.name().clone(), ANSWER_TTL_SECS, data)
}
