//! What is to be done with a message a container sent. Pure: the whole server but for sockets and clocks.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::message::{Question, Rejected, Transport, Unfit};
use crate::plain;
use crate::records::Records;
use crate::resolver::{Answer, Resolution, key, resolve};
use crate::view::View;

#[derive(Clone, Debug)]
pub enum Decision {
    /// Send these bytes.
    Reply(Vec<u8>, Outcome),
    /// Ask the view's upstreams; there is at least one.
    Forward(Question),
    /// Say nothing: too short to answer, or itself an answer (answering those would make loops).
    Drop,
}

/// Why a reply says what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the records.
    Answered,
    /// NXDOMAIN for an address of the container's networks.
    NoSuchName,
    /// SERVFAIL: the container may not ask outside, or the host has no resolver.
    ///
    /// As Docker does. NXDOMAIN would be a claim about a name that nobody looked up, which programs remember.
    NoUpstreams,
    Unfit(Unfit),
}

/// `turn` says which of several records of a name, given as its key, comes first.
pub fn decide(
    bytes: &[u8],
    transport: Transport,
    records: &Records,
    view: &View,
    turn: impl Fn(&str) -> u32,
) -> Decision {
    match plain::answer(bytes, transport, records, view, &turn) {
        Some((reply, outcome)) => Decision::Reply(reply, outcome),
        None => decide_any(bytes, transport, records, view, turn),
    }
}

/// The whole of it, for every message there is.
pub(crate) fn decide_any(
    bytes: &[u8],
    transport: Transport,
    records: &Records,
    view: &View,
    turn: impl Fn(&str) -> u32,
) -> Decision {
    let question = match Question::parse(bytes, transport) {
        Ok(question) => question,
        Err(Rejected::Reply(reply, unfit)) => return Decision::Reply(reply, Outcome::Unfit(unfit)),
        Err(Rejected::Drop) => return Decision::Drop,
    };
    let turn = match question.query.query_type() {
        RecordType::A | RecordType::SRV => turn(&key(question.query.name())),
        _ => 0,
    };
    let (code, answer, outcome) = match resolve(&question.query, records, view, turn) {
        Resolution::Forward if !view.upstreams.is_empty() => return Decision::Forward(question),
        Resolution::Forward => (ResponseCode::ServFail, Answer::default(), Outcome::NoUpstreams),
        Resolution::NoSuchName => (ResponseCode::NXDomain, Answer::default(), Outcome::NoSuchName),
        Resolution::Answer(answer) => (ResponseCode::NoError, answer, Outcome::Answered),
    };
    Decision::Reply(question.reply(code, answer), outcome)
}
