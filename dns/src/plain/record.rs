//! Records about the name asked.

use std::net::Ipv4Addr;

use super::question::{A, IN, MAX_LABEL, MAX_NAME, PTR, is_plain};
use crate::message::HEADER_LEN;
use crate::resolver::ANSWER_TTL_SECS;

/// Stands for the name at the start of the question (RFC 1035 §4.1.4).
const THE_NAME_ASKED: u8 = HEADER_LEN as u8;
/// Everything before the data: name, type, class, TTL, and the data's length.
const HEAD_LEN: usize = 12;
const ADDRESS_LEN: u8 = 4;
pub(super) const A_LEN: usize = HEAD_LEN + ADDRESS_LEN as usize;

pub(super) fn a(address: Ipv4Addr) -> [u8; A_LEN] {
    let mut record = [0; A_LEN];
    record[..HEAD_LEN].copy_from_slice(&head(A, ADDRESS_LEN.into()));
    record[HEAD_LEN..].copy_from_slice(&address.octets());
    record
}

/// None: the codec would write it in another way. It has the end of a name that ends as the one asked point there.
pub(super) fn ptr(host: &str, network: &str) -> Option<Vec<u8>> {
    let is_arpa = network.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("arpa"));
    let len = host.len() + network.len() + 3;
    if is_arpa || len > MAX_NAME {
        return None;
    }
    let mut record = Vec::with_capacity(HEAD_LEN + len);
    record.extend_from_slice(&head(PTR, u16::try_from(len).ok()?));
    for label in host.split('.').chain(network.split('.')) {
        if !(1..=MAX_LABEL).contains(&label.len()) || !label.bytes().all(is_plain) {
            return None;
        }
        record.push(u8::try_from(label.len()).ok()?);
        record.extend_from_slice(label.as_bytes());
    }
    record.push(0);
    Some(record)
}

fn head(kind: u16, data_len: u16) -> [u8; HEAD_LEN] {
    let ([a, b], [c, d]) = (kind.to_be_bytes(), IN.to_be_bytes());
    let ([t, u, v, w], [x, y]) = (ANSWER_TTL_SECS.to_be_bytes(), data_len.to_be_bytes());
    [0xc0, THE_NAME_ASKED, a, b, c, d, t, u, v, w, x, y]
}
