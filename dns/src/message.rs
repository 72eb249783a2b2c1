//! Bytes of a DNS message to a question, an answer to bytes. Garbage gets an error reply or nothing, never a panic.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::resolver::Answer;

/// The largest answer sent over UDP, whatever the asker's EDNS buffer takes. The 1,232 bytes others stop at keep an
/// answer from being fragmented on its way; this one crosses a loopback of 64 KiB and reaches nobody else. Beyond it
/// TCP is the better way.
pub const MAX_UDP_ANSWER: u16 = 4_096;
/// The largest answer an upstream is asked to send over UDP: one that no path of the internet's fragments, because of
/// fragments only the first carries what tells a forgery (DNS flag day 2020, RFC 9715).
pub const MAX_UPSTREAM_ANSWER: u16 = 1_232;
/// What an asker without EDNS takes over UDP (RFC 1035 §4.2.1).
pub const PLAIN_UDP_ANSWER: u16 = 512;
/// The longest message taken for a question: a header, one name of at most 255 bytes and an OPT record, whose options
/// are a few dozen bytes and padding.
pub const MAX_QUESTION: usize = 4_096;
/// A message's header (RFC 1035 §4.1.1).
pub const HEADER_LEN: usize = 12;
/// What may follow a question: OPT, and a signature.
const MAX_ADDITIONALS: u16 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// One question as it came in, with what an answer to it needs.
#[derive(Clone, Debug)]
pub struct Question {
    pub query: Query,
    pub transport: Transport,
    metadata: Metadata,
    edns: Option<Edns>,
    /// The largest answer the asker takes, in bytes.
    pub room: u16,
}

/// A message that isn't a question to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Send these bytes: a header that says why.
    Reply(Vec<u8>, Unfit),
    /// Say nothing.
    Drop,
}

/// Why a message isn't a question this server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// FORMERR: not one question, or not to be read.
    Malformed,
    /// NOTIMP: another operation, like an update.
    Operation,
    /// BADVERS: an EDNS version nobody has defined (RFC 6891 §6.1.3).
    EdnsVersion,
    /// REFUSED: CHAOS and the rest ask about the server itself (version.bind); that is nobody's business here.
    Class,
    /// REFUSED: a whole zone, which is more than one container may see (RFC 5936 §5).
    Transfer,
}

impl Question {
    pub fn parse(bytes: &[u8], transport: Transport) -> Result<Self, Rejected> {
        // Bit 0x80 of byte 2 is QR: set in answers.
        let header = bytes.first_chunk::<HEADER_LEN>().filter(|header| header[2] & 0x80 == 0);
        let Some(header) = header else { return Err(Rejected::Drop) };
        let malformed = Err(reject_unread(header, ResponseCode::FormErr, Unfit::Malformed));
        if OpCode::from_u8(header[2] >> 3 & 0x0f) != OpCode::Query {
            return Err(reject_unread(header, ResponseCode::NotImp, Unfit::Operation));
        }
        // Looked at before anything is decoded: what a question can't have (RFC 9619 §4) isn't worth the time.
        let [questions, answers, authorities, additionals] =
            [4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
        let is_question = questions == 1 && answers == 0 && authorities == 0;
        if !is_question || additionals > MAX_ADDITIONALS || bytes.len() > MAX_QUESTION {
            return malformed;
        }
        let Ok(message) = Message::from_vec(bytes) else { return malformed };
        let [query] = message.queries.as_slice() else { return malformed };
        let room = match transport {
            Transport::Udp => message.max_payload().min(MAX_UDP_ANSWER),
            Transport::Tcp => u16::MAX,
        };
        let version = message.version();
        let question =
            Self { query: query.clone(), transport, metadata: message.metadata, edns: message.edns, room };
        let refuse = |code, why| Err(Rejected::Reply(question.reply(code, Answer::default()), why));
        if version > 0 {
            return refuse(ResponseCode::BADVERS, Unfit::EdnsVersion);
        }
        if !matches!(question.query.query_class, DNSClass::IN | DNSClass::ANY) {
            return refuse(ResponseCode::Refused, Unfit::Class);
        }
        if matches!(question.query.query_type, RecordType::AXFR | RecordType::IXFR) {
            return refuse(ResponseCode::Refused, Unfit::Transfer);
        }
        Ok(question)
    }

    pub fn id(&self) -> u16 {
        self.metadata.id
    }

    /// The question as an upstream is asked: built anew, so that nothing else a container sends reaches the host's
    /// resolvers. Types and EDNS options this crate has never heard of pass.
    pub fn for_upstream(&self, id: u16) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.metadata.recursion_desired;
        message.metadata.authentic_data = self.metadata.authentic_data;
        message.metadata.checking_disabled = self.metadata.checking_disabled;
        message.add_query(self.query.clone());
        if let Some(mut edns) = self.edns.clone() {
            edns.set_max_payload(edns.max_payload().min(MAX_UPSTREAM_ANSWER));
            message.set_edns(edns);
        }
        encode(&message)
    }

    /// The reply with these records, in this order. What doesn't fit is left out from the end: additional records
    /// silently, answers with the reply marked truncated (RFC 2181 §9). A client that never asks again over TCP (musl
    /// before 1.2.4) still has the first ones.
    pub fn reply(&self, code: ResponseCode, answer: Answer) -> Vec<u8> {
        let mut message = self.empty_reply(code);
        message.answers = answer.answers;
        message.additionals = answer.additionals;
        let bytes = encode(&message);
        if bytes.len() <= usize::from(self.room) {
            return bytes;
        }
        let additionals = std::mem::take(&mut message.additionals);
        if encode(&message).len() <= usize::from(self.room) {
            return self.longest(additionals.len(), |count| {
                message.additionals = additionals[..count].to_vec();
                encode(&message)
            });
        }
        message.metadata.truncation = true;
        let answers = std::mem::take(&mut message.answers);
        self.longest(answers.len(), |count| {
            message.answers = answers[..count].to_vec();
            encode(&message)
        })
    }

    /// The reply that says: too large for this transport, ask over TCP.
    pub fn truncated_reply(&self, code: ResponseCode) -> Vec<u8> {
        let mut message = self.empty_reply(code);
        message.metadata.truncation = true;
        encode(&message)
    }

    /// `encoded(n)` for the largest n below `excessive` that there is room for. Searched, not computed: not every
    /// record's name is compressed alike.
    fn longest(&self, excessive: usize, mut encoded: impl FnMut(usize) -> Vec<u8>) -> Vec<u8> {
        let (mut fitting, mut excessive) = (0, excessive);
        while excessive - fitting > 1 {
            let tried = usize::midpoint(fitting, excessive);
            if encoded(tried).len() <= usize::from(self.room) {
                fitting = tried;
            } else {
                excessive = tried;
            }
        }
        encoded(fitting)
    }

    fn empty_reply(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        // Who asks with OPT is answered with OPT, and nobody else (RFC 6891 §6.1.1).
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_ANSWER);
            message.set_edns(edns);
        }
        message
    }
}

/// Whether an upstream's message answers what it was asked with this id: id, QR bit and question must be ours (RFC 5452
/// §9.1). A reply with an error code may leave the question out (many servers do so for FORMERR and REFUSED).
pub fn is_reply_to(reply: &[u8], id: [u8; 2], query: &Query) -> bool {
    if reply.len() < HEADER_LEN || reply[..2] != id || reply[2] & 0x80 == 0 {
        return false;
    }
    let mut decoder = BinDecoder::new(reply);
    let Ok(header) = Header::read(&mut decoder) else { return false };
    match header.counts.queries {
        0 => response_code(reply) != ResponseCode::NoError,
        1 => Query::read(&mut decoder).is_ok_and(|echoed| echoed == *query),
        _ => false,
    }
}

/// Of a message at least [`HEADER_LEN`] long.
pub(crate) fn response_code(reply: &[u8]) -> ResponseCode {
    ResponseCode::from_low(reply[3] & 0x0f)
}

/// A header alone, for a message of which no more was read: its id, operation and RD bit come back.
fn reject_unread(header: &[u8; HEADER_LEN], code: ResponseCode, why: Unfit) -> Rejected {
    let mut reply = [0; HEADER_LEN];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | header[2] & 0x79;
    reply[3] = 0x80 | code.low();
    Rejected::Reply(reply.to_vec(), why)
}

/// A message that can't be encoded (nothing this crate builds; the question came from a decoder) becomes a bare
/// SERVFAIL header.
fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_else(|error| {
        tracing::error!(%error, "a DNS reply can't be encoded: answering SERVFAIL");
        let [hi, lo] = message.metadata.id.to_be_bytes();
        vec![hi, lo, 0x80, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]
    })
}
