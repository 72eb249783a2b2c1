//! Bytes of a DNS message to a question, an answer to bytes. Garbage gets an error reply or nothing, never a panic.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record};

/// The largest answer sent over UDP, whatever the asker's EDNS buffer takes. Loopback would carry more; beyond this
/// TCP is the better way.
pub const MAX_UDP_ANSWER: u16 = 4_096;
/// What an asker without EDNS takes over UDP (RFC 1035 §4.2.1).
pub const PLAIN_UDP_ANSWER: u16 = 512;
/// A message's header (RFC 1035 §4.1.1).
pub const HEADER_LEN: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// One question as it came in, with what an answer to it needs.
#[derive(Clone, Debug)]
pub struct Question {
    pub query: Query,
    metadata: Metadata,
    edns: bool,
    /// The largest answer the asker takes, in bytes.
    pub room: u16,
}

/// A message that isn't a question to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Send these bytes: a header that says why.
    Reply(Vec<u8>),
    /// Say nothing.
    Drop,
}

impl Question {
    pub fn parse(bytes: &[u8], transport: Transport) -> Result<Self, Rejected> {
        // Bit 0x80 of byte 2 is QR: set in answers.
        if bytes.len() < HEADER_LEN || bytes[2] & 0x80 != 0 {
            return Err(Rejected::Drop);
        }
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        let message = Message::from_vec(bytes)
            .map_err(|_| reject(id, OpCode::Query, ResponseCode::FormErr, None, false))?;
        let edns = message.edns.is_some();
        let op_code = message.metadata.op_code;
        let refuse = |code| Err(reject(id, op_code, code, message.queries.first(), edns));
        if op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let [query] = message.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
        if message.version() > 0 {
            return refuse(ResponseCode::BADVERS);
        }
        // CHAOS and the rest ask about the server itself (version.bind); that is nobody's business here.
        if !matches!(query.query_class, DNSClass::IN | DNSClass::ANY) {
            return refuse(ResponseCode::Refused);
        }
        let room = match transport {
            Transport::Udp => message.max_payload().min(MAX_UDP_ANSWER),
            Transport::Tcp => u16::MAX,
        };
        Ok(Self { query: query.clone(), metadata: message.metadata, edns, room })
    }

    pub fn id(&self) -> u16 {
        self.metadata.id
    }

    /// The reply with these records, in this order. What doesn't fit is left out from the end and the reply marked
    /// truncated: a client that never asks again over TCP (musl before 1.2.4) still has the first ones.
    pub fn reply(&self, code: ResponseCode, answers: Vec<Record>) -> Vec<u8> {
        let mut message = self.empty_reply(code);
        message.answers = answers;
        let bytes = encode(&message);
        if bytes.len() <= usize::from(self.room) {
            return bytes;
        }
        message.metadata.truncation = true;
        let all = std::mem::take(&mut message.answers);
        let mut encode_first = |count: usize| {
            message.answers = all[..count].to_vec();
            encode(&message)
        };
        // How many fit is searched, not computed: not every record's name is compressed alike.
        let (mut fitting, mut excessive) = (0, all.len());
        while excessive - fitting > 1 {
            let tried = usize::midpoint(fitting, excessive);
            if encode_first(tried).len() <= usize::from(self.room) {
                fitting = tried;
            } else {
                excessive = tried;
            }
        }
        encode_first(fitting)
    }

    /// The reply that says: too large for this transport, ask over TCP.
    pub fn truncated_reply(&self, code: ResponseCode) -> Vec<u8> {
        let mut message = self.empty_reply(code);
        message.metadata.truncation = true;
        encode(&message)
    }

    fn empty_reply(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        if self.edns {
            message.set_edns(our_edns());
        }
        message
    }
}

fn reject(id: u16, op_code: OpCode, code: ResponseCode, query: Option<&Query>, edns: bool) -> Rejected {
    let mut message = Message::new(id, MessageType::Response, op_code);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries.extend(query.cloned());
    if edns {
        message.set_edns(our_edns());
    }
    Rejected::Reply(encode(&message))
}

fn our_edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_ANSWER);
    edns
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
