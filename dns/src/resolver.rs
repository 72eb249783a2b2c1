//! What a question means to one container: an answer from the records, or a question for the upstreams. Pure.

use std::net::Ipv4Addr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::records::{Instance, Records, Zone};
use crate::reverse::{self, Reverse};
use crate::view::View;

/// How long an answer may be kept, in seconds. A task's address may be gone a second later and asking again costs
/// microseconds, so nobody gains by keeping it; 0 is avoided because some caches take it for "never ask again".
/// (Swarm says 600, which is how clients keep talking to tasks that are gone.)
pub const ANSWER_TTL_SECS: u32 = 1;

/// No task of a service is preferred. RFC 2782's choice among weights of 0 is always the first; equal weights above 0
/// share evenly.
const SRV_PRIORITY: u16 = 0;
const SRV_WEIGHT: u16 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// NOERROR with these records. None: the name is known, but has nothing of the type asked for. Such a question
    /// is never forwarded: a private name's AAAA is no outsider's business, and a slow or wildcarding upstream would
    /// delay or falsify it. No SOA comes with it, so that nobody keeps it (RFC 2308 §5): the next task may change it.
    Answer(Answer),
    /// NXDOMAIN: the name of an address that is the networks' own and that nobody has. Asking outside would tell
    /// which private addresses are in use, and get no answer.
    NoSuchName,
    /// No zone of the view knows the name: the upstreams decide.
    ///
    /// Single-label names too, as Swarm does: hosts have resolvers that know such names (dnsmasq, a router, search
    /// domains applied upstream) and containers rely on reaching them. The price is that a mistyped service name is
    /// seen by the host's resolver. A name of a network the container isn't on is treated alike, so that nothing
    /// about the answer tells whether it exists.
    Forward,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub answers: Vec<Record>,
    /// What the asker will want to know next: left out where it doesn't fit.
    pub additionals: Vec<Record>,
}

/// What a name is in a zone.
pub(crate) enum Known<'a> {
    Addresses(&'a [Ipv4Addr]),
    Service(&'a [Instance], &'a Zone),
}

/// `turn` selects which of several records comes first: consecutive turns go round.
pub fn resolve(query: &Query, records: &Records, view: &View, turn: u32) -> Resolution {
    match reverse::look_up(query.name().iter(), zones(records, view)) {
        Some(Reverse::Named { host, network }) => {
            let Ok(name) = Name::from_ascii(format!("{host}.{network}.")) else {
                return Resolution::NoSuchName;
            };
            return Resolution::Answer(only(match query.query_type() {
                RecordType::PTR | RecordType::ANY => vec![record(query, RData::PTR(PTR(name)))],
                _ => Vec::new(),
            }));
        }
        Some(Reverse::Range) => return Resolution::Answer(Answer::default()),
        Some(Reverse::Nameless) => return Resolution::NoSuchName,
        None => {}
    }
    // ANY gets what there is, one set of records (RFC 8482 §4.1).
    match (lookup(&key(query.name()), zones(records, view)), query.query_type()) {
        (None, _) => Resolution::Forward,
        (Some(Known::Addresses(addresses)), RecordType::A | RecordType::ANY) => {
            let answers = in_turn(addresses, turn).map(|ip| record(query, RData::A(A(*ip))));
            Resolution::Answer(only(answers.collect()))
        }
        (Some(Known::Service(instances, zone)), RecordType::SRV | RecordType::ANY) => {
            Resolution::Answer(service(query, instances, zone, turn))
        }
        (Some(_), _) => Resolution::Answer(Answer::default()),
    }
}

/// What a container sees, in its order.
pub(crate) fn zones<'a>(records: &'a Records, view: &'a View) -> impl Iterator<Item = &'a Zone> + Clone {
    view.zones.iter().filter_map(|id| records.zones.get(id))
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
pub(crate) fn lookup<'a>(key: &str, zones: impl Iterator<Item = &'a Zone> + Clone) -> Option<Known<'a>> {
    let mut plain = zones.clone().filter_map(|zone| known(zone, key));
    plain.next().or_else(|| {
        let mut qualified = zones.filter_map(|zone| known(zone, strip_network(key, &zone.name)?));
        qualified.next()
    })
}

fn known<'a>(zone: &'a Zone, key: &str) -> Option<Known<'a>> {
    let addresses = zone.names.get(key).map(|addresses| Known::Addresses(addresses));
    addresses.or_else(|| zone.services.get(key).map(|instances| Known::Service(instances, zone)))
}

/// `web` of `web.backend` in network `backend`.
fn strip_network<'k>(key: &'k str, network: &str) -> Option<&'k str> {
    let at = key.len().checked_sub(network.len() + 1)?;
    let (name, suffix) = key.split_at_checked(at)?;
    let same = suffix.strip_prefix('.')?.eq_ignore_ascii_case(network);
    same.then_some(name)
}

/// Where a service's tasks answer, and at which addresses these are (RFC 2782's additional data).
fn service(query: &Query, instances: &[Instance], zone: &Zone, turn: u32) -> Answer {
    let mut answer = Answer::default();
    for instance in in_turn(instances, turn) {
        let Ok(target) = Name::from_ascii(format!("{}.{}.", instance.name, zone.name)) else { continue };
        let address = RData::A(A(instance.addr));
        answer.additionals.push(Record::from_rdata(target.clone(), ANSWER_TTL_SECS, address));
        let at = SRV::new(SRV_PRIORITY, SRV_WEIGHT, instance.port, target);
        answer.answers.push(record(query, RData::SRV(at)));
    }
    answer
}

pub(crate) fn in_turn<T>(all: &[T], turn: u32) -> impl Iterator<Item = &T> {
    let first = (turn as usize).checked_rem(all.len()).unwrap_or(0);
    all[first..].iter().chain(&all[..first])
}

fn only(answers: Vec<Record>) -> Answer {
    Answer { answers, additionals: Vec::new() }
}

/// The owner is the name as it was asked: clients that mix the case of their questions check for it.
fn record(query: &Query, data: RData) -> Record {
    Record::from_rdata(query.name().clone(), ANSWER_TTL_SECS, data)
}
