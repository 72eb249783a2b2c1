//! The questions nearly all are: for A, AAAA or PTR, of a name that the networks know, in letters, digits, `-` and `_`,
//! with a bare OPT record or nothing behind it. Such an answer is the question's own bytes and a record for each address
//! or the name, and needs no message to be taken apart and put together: that would be most of the work. It is byte for
//! byte what [`crate::decide::decide_any`] makes, which every other question is left to.

mod question;
mod record;

use crate::decide::Outcome;
use crate::message::Transport;
use crate::records::Records;
use crate::resolver::{Known, in_turn, lookup, zones};
use crate::reverse::{self, Reverse};
use crate::view::View;
use question::{A, AAAA, MAX_NAME, PTR, Question};

/// The codec writes later records of a message with the whole name.
const MAX_ADDRESSES: usize = 100;
/// RFC 1035 §4.1.1.
const NO_ERROR: u8 = 0;
const NO_SUCH_NAME: u8 = 3;

/// None: a question for the codec.
pub(crate) fn answer(
    bytes: &[u8],
    transport: Transport,
    records: &Records,
    view: &View,
    turn: impl Fn(&str) -> u32,
) -> Option<(Vec<u8>, Outcome)> {
    let mut key = [0; MAX_NAME];
    let question = Question::parse(bytes, transport, &mut key)?;
    if question.key.ends_with(".arpa") {
        return about_address(&question, records, view);
    }
    let Known::Addresses(addresses) = lookup(question.key, zones(records, view))? else { return None };
    let reply = match question.kind {
        A if addresses.len() <= MAX_ADDRESSES => {
            let in_turn = in_turn(addresses, turn(question.key));
            question.reply(NO_ERROR, addresses.len(), |reply| {
                in_turn.for_each(|address| reply.extend_from_slice(&record::a(*address)));
            })
        }
        AAAA => question.reply(NO_ERROR, 0, |_| ()),
        _ => None,
    };
    Some((reply?, Outcome::Answered))
}

fn about_address(question: &Question<'_>, records: &Records, view: &View) -> Option<(Vec<u8>, Outcome)> {
    let labels = question.key.split('.').map(str::as_bytes);
    match reverse::look_up(labels, zones(records, view))? {
        Reverse::Named { host, network } if question.kind == PTR => {
            let name = record::ptr(host, network)?;
            Some((question.reply(NO_ERROR, 1, |reply| reply.extend_from_slice(&name))?, Outcome::Answered))
        }
        Reverse::Nameless => Some((question.reply(NO_SUCH_NAME, 0, |_| ())?, Outcome::NoSuchName)),
        Reverse::Named { .. } | Reverse::Range => None,
    }
}

#[cfg(test)]
mod tests;
