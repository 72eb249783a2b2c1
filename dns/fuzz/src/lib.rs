//! What the fuzzer feeds to the server, and what has to hold whatever it feeds. `tests/messages.rs` of the server
//! replays the committed inputs through the same functions, and feeds them with what it makes up itself.

use std::net::Ipv4Addr;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use skep_dns::View;
use skep_dns::decide::{Decision, Outcome, decide};
use skep_dns::message::{HEADER_LEN, MAX_UDP_ANSWER, Transport, is_reply_to};
use skep_dns::records::{Instance, Records, Zone};

/// What runs one input; it panics where something doesn't hold.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[("message", message), ("reply", reply)];

/// The first byte says whether it came over TCP, the rest is what a container sent. What goes out is a message with
/// the same id, no larger than the asker takes.
pub fn message(data: &[u8]) {
    let Some((tcp, bytes)) = data.split_first() else { return };
    let transport = if tcp & 1 == 1 { Transport::Tcp } else { Transport::Udp };
    match decide(bytes, transport, &records(), &view(), |_| u32::from(tcp >> 1)) {
        Decision::Reply(reply, outcome) => {
            assert_eq!(reply[..2], bytes[..2]);
            let read = Message::from_vec(&reply).unwrap();
            assert_eq!(read.metadata.message_type, MessageType::Response);
            let limit = match (transport, &read.edns) {
                (Transport::Tcp, _) => u16::MAX,
                (Transport::Udp, Some(_)) => MAX_UDP_ANSWER,
                (Transport::Udp, None) => 512,
            };
            assert!(reply.len() <= usize::from(limit), "{} bytes", reply.len());
            assert!(outcome != Outcome::NoUpstreams, "there is one");
        }
        Decision::Forward(question) => {
            let asked = Message::from_vec(&question.for_upstream(7)).unwrap();
            assert_eq!((asked.metadata.id, asked.queries.len()), (7, 1));
            assert_eq!(asked.queries[0].name().to_ascii(), question.query.name().to_ascii());
            let told = Message::from_vec(&question.truncated_reply(ResponseCode::NoError)).unwrap();
            assert!(told.metadata.truncation);
        }
        Decision::Drop => assert!(bytes.len() < HEADER_LEN || bytes[2] & 0x80 != 0),
    }
}

/// What an upstream, or somebody in its name, sent. What is taken for the answer has the id that was asked with.
pub fn reply(data: &[u8]) {
    const ASKED: [u8; 2] = [0x12, 0x34];
    let query = Query::query(Name::from_ascii("outside.example.").unwrap(), RecordType::A);
    if is_reply_to(data, ASKED, &query) {
        assert!(data.len() >= HEADER_LEN && data[..2] == ASKED && data[2] & 0x80 != 0);
    }
}

fn view() -> View {
    View { zones: vec!["b".into(), "o".into()], upstreams: vec!["192.0.2.53:53".parse().unwrap()] }
}

/// Two networks, one with a service whose tasks don't fit a datagram.
fn records() -> Records {
    let task = |n: u16| Ipv4Addr::from([10, 0, n.to_be_bytes()[0] + 1, n.to_be_bytes()[1]]);
    let instance = |n| Instance { name: format!("web.{n}.abc"), addr: task(n), port: 8080 };
    let backend = Zone {
        name: "backend".into(),
        subnet: Some("10.0.0.0/22".parse().unwrap()),
        names: [("web".into(), vec![task(0)]), ("tasks.web".into(), (1..300).map(task).collect())].into(),
        services: [("_8080._tcp.web".into(), (1..300).map(instance).collect())].into(),
        reverse: [(task(0), "web".into())].into(),
    };
    let other = Zone { name: "Other".into(), names: [("web".into(), Vec::new())].into(), ..Zone::default() };
    Records { zones: [("b".into(), backend), ("o".into(), other)].into() }
}
