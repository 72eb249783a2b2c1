//! Names of addresses: `4.3.2.1.in-addr.arpa.` (RFC 1035 §3.5).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::records::Zone;

/// What a network knows about a reverse name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reverse<'a> {
    /// `<host>.<network>.`
    Named { host: &'a str, network: &'a str },
    /// Above addresses of the network, without a record of its own.
    Range,
    /// Of an address of the network that has no name, or below an address.
    Nameless,
}

/// Of the labels of a name. None: no business of these networks.
pub(crate) fn look_up<'a, 'l>(
    asked: impl DoubleEndedIterator<Item = &'l [u8]>,
    zones: impl Iterator<Item = &'a Zone> + Clone,
) -> Option<Reverse<'a>> {
    let (range, is_below) = range(asked)?;
    let address = range.addr();
    let is_address = range.prefix_len() == 32;
    if is_address && !is_below {
        let named =
            |zone: &'a Zone| Some(Reverse::Named { host: zone.reverse.get(&address)?, network: &zone.name });
        if let Some(named) = zones.clone().find_map(named) {
            return Some(named);
        }
    }
    let mut subnets = zones.filter_map(|zone| zone.subnet);
    subnets.any(|subnet| subnet.contains(&range)).then_some(match is_address || is_below {
        true => Reverse::Nameless,
        false => Reverse::Range,
    })
}

/// The addresses a reverse name is about, and whether it has labels below them: services are looked for at such
/// (`b._dns-sd._udp.0.1.0.10.in-addr.arpa.`, RFC 6763 §11).
fn range<'l>(labels: impl DoubleEndedIterator<Item = &'l [u8]>) -> Option<(Ipv4Net, bool)> {
    let mut labels = labels.rev();
    let is =
        |label: Option<&[u8]>, word: &str| label.is_some_and(|l| l.eq_ignore_ascii_case(word.as_bytes()));
    if !is(labels.next(), "arpa") || !is(labels.next(), "in-addr") {
        return None;
    }
    let mut octets = [0; 4];
    let mut known = 0;
    let mut labels = labels.peekable();
    while let Some(octet) = labels.peek().copied().and_then(octet).filter(|_| known < octets.len()) {
        octets[known] = octet;
        known += 1;
        labels.next();
    }
    let prefix_len = u8::try_from(8 * known).ok()?;
    Some((Ipv4Net::new(Ipv4Addr::from(octets), prefix_len).ok()?, labels.next().is_some()))
}

/// Decimal, as an address has it: `01` is a label like any other.
fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    text.parse().ok().filter(|octet: &u8| octet.to_string() == text)
}
