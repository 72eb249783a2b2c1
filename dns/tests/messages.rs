//! Messages, without sockets: what is a question, what the answer to it looks like and how large it gets.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a library of its own where the fuzzer builds it")]
mod fuzz;
mod support;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;
use skep_dns::View;
use skep_dns::decide::{Decision, Outcome, decide};
use skep_dns::message::{MAX_QUESTION, MAX_UDP_ANSWER, Question, Rejected, Transport, Unfit};
use skep_dns::records::{Instance, Records};
use skep_dns::resolver::ANSWER_TTL_SECS;
use support::{addresses, message, query, records, view};

/// What the server says to these bytes; it has an upstream.
fn decided(bytes: &[u8], transport: Transport) -> Decision {
    let view = view(&["b", "o"], &["192.0.2.53:53".parse().unwrap()]);
    decide(bytes, transport, &records(), &view, |_| 0)
}

fn reply(bytes: &[u8], transport: Transport) -> (Message, Outcome) {
    match decided(bytes, transport) {
        Decision::Reply(reply, outcome) => (Message::from_vec(&reply).unwrap(), outcome),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_echoes_the_question_and_offers_recursion() {
    let asked = message("wEb", RecordType::A, Some(1_232));
    let (reply, outcome) = reply(&asked.to_vec().unwrap(), Transport::Udp);
    assert_eq!(outcome, Outcome::Answered);
    assert_eq!(reply.queries[0].name().to_ascii(), "wEb.", "in the asker's case");
    assert_eq!(reply.queries, asked.queries);
    assert_eq!((reply.metadata.id, reply.metadata.message_type), (asked.metadata.id, MessageType::Response));
    assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
    assert!(!reply.metadata.authoritative && !reply.metadata.authentic_data);
    assert_eq!(reply.answers[0].name.to_ascii(), "wEb.", "clients that mix case check it");
    assert_eq!(reply.answers[0].ttl, ANSWER_TTL_SECS);
    const { assert!(ANSWER_TTL_SECS <= 5) };
}

/// RFC 6891 §6.1.1: who asks with OPT is answered with OPT, whatever the answer, and nobody else.
#[test]
fn opt_is_answered_where_it_was_asked() {
    for name in ["web", "77.1.0.10.in-addr.arpa"] {
        for edns in [None, Some(512), Some(4_096)] {
            let asked = message(name, RecordType::PTR, edns).to_vec().unwrap();
            let (reply, _) = reply(&asked, Transport::Udp);
            assert_eq!(reply.edns.map(|edns| edns.max_payload()), edns.map(|_| MAX_UDP_ANSWER), "{name}");
        }
    }
}

/// What the container without upstreams is told, and why.
#[test]
fn no_name_and_no_way_out_are_told_apart() {
    let asked = |name, view: &View| {
        let bytes = message(name, RecordType::PTR, None).to_vec().unwrap();
        match decide(&bytes, Transport::Udp, &records(), view, |_| 0) {
            Decision::Reply(reply, outcome) => {
                (Message::from_vec(&reply).unwrap().metadata.response_code, outcome)
            }
            other => panic!("{other:?}"),
        }
    };
    let inside = view(&["b"], &[]);
    assert_eq!(asked("77.1.0.10.in-addr.arpa", &inside), (ResponseCode::NXDomain, Outcome::NoSuchName));
    assert_eq!(asked("8.8.8.8.in-addr.arpa", &inside), (ResponseCode::ServFail, Outcome::NoUpstreams));
    assert_eq!(asked("web", &inside), (ResponseCode::NoError, Outcome::Answered));
}

/// The answer about a service of `n` tasks, and its size in bytes.
fn large(
    name: &str,
    record_type: RecordType,
    n: u16,
    edns: Option<u16>,
    transport: Transport,
) -> (Message, usize) {
    let task = |i: u16| Ipv4Addr::from([10, 0, i.to_be_bytes()[0], i.to_be_bytes()[1]]);
    let all: Vec<_> = (0..n).map(task).collect();
    let mut zone = support::zone("backend", &[("tasks.many", &all)], &[]);
    let instance = |i| Instance { name: format!("many.{i}.id"), addr: task(i), port: 80 };
    zone.services.insert("_80._tcp.many".into(), (0..n).map(instance).collect());
    let records = Records { zones: HashMap::from([("b".into(), zone)]) };
    let asked = message(name, record_type, edns).to_vec().unwrap();
    match decide(&asked, transport, &records, &view(&["b"], &[]), |_| 0) {
        Decision::Reply(bytes, Outcome::Answered) => (Message::from_vec(&bytes).unwrap(), bytes.len()),
        other => panic!("{other:?}"),
    }
}

fn tasks(n: u16, edns: Option<u16>, transport: Transport) -> (Message, usize) {
    large("tasks.many", RecordType::A, n, edns, transport)
}

#[test]
fn a_reply_is_cut_to_what_the_asker_takes() {
    let (reply, len) = tasks(200, None, Transport::Udp);
    assert!(reply.metadata.truncation && len <= 512 && len > 480, "{len}");
    assert_eq!(
        addresses(&reply)[..2],
        [Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 0, 1)],
        "the first ones"
    );
    let (reply, len) = tasks(200, Some(1_232), Transport::Udp);
    assert!(reply.metadata.truncation && len <= 1_232 && len > 1_200, "{len}");
    assert!(reply.edns.is_some());
    let (reply, _) = tasks(200, Some(4_096), Transport::Udp);
    assert_eq!((reply.metadata.truncation, addresses(&reply).len()), (false, 200));
    let (reply, len) = tasks(300, Some(u16::MAX), Transport::Udp);
    assert!(reply.metadata.truncation && len <= usize::from(MAX_UDP_ANSWER), "{len}");
    let (reply, _) = tasks(300, None, Transport::Tcp);
    assert_eq!((reply.metadata.truncation, addresses(&reply).len()), (false, 300));
    let (reply, _) = tasks(20, Some(7), Transport::Udp);
    assert_eq!(addresses(&reply).len(), 20, "RFC 6891 §6.2.3: sizes below 512 mean 512");
}

#[test]
fn additional_addresses_go_first_and_silently() {
    let srv = |n, edns| large("_80._tcp.many", RecordType::SRV, n, edns, Transport::Udp);
    let (reply, len) = srv(11, None);
    assert!(!reply.metadata.truncation && len <= 512);
    assert!(reply.answers.len() == 11 && reply.additionals.len() < 11, "{}", reply.additionals.len());
    let (reply, _) = srv(11, Some(4_096));
    assert_eq!((reply.answers.len(), reply.additionals.len()), (11, 11));
    let (reply, _) = srv(30, None);
    assert!(reply.metadata.truncation && reply.answers.len() < 30 && reply.additionals.is_empty());
}

#[test]
fn what_is_not_a_question_is_told_why() {
    let why = |bytes: &[u8]| match reply(bytes, Transport::Udp) {
        (reply, Outcome::Unfit(why)) => (reply.metadata.response_code, why),
        other => panic!("{other:?}"),
    };
    let malformed = (ResponseCode::FormErr, Unfit::Malformed);
    let asked = message("web", RecordType::A, None);
    let bytes = asked.to_vec().unwrap();
    assert_eq!(why(&bytes[..14]), malformed);
    let mut two = asked.clone();
    two.add_query(query("db", RecordType::A));
    assert_eq!(why(&two.to_vec().unwrap()), malformed);
    let mut none = asked;
    none.queries.clear();
    assert_eq!(why(&none.to_vec().unwrap()), malformed);
    for section in [7, 9] {
        let mut more = bytes.clone();
        more[section] = 1;
        assert_eq!(why(&more), malformed, "an answer or authority in a question");
    }
    let mut long = bytes.clone();
    long.resize(MAX_QUESTION + 1, 0);
    assert_eq!(why(&long), malformed);

    let mut notify = bytes.clone();
    notify[2] = 4 << 3 | 1;
    assert_eq!(why(&notify), (ResponseCode::NotImp, Unfit::Operation));
    let (told, _) = reply(&notify, Transport::Udp);
    assert_eq!(
        (u8::from(told.metadata.op_code), told.metadata.recursion_desired),
        (4, true),
        "RFC 1035 §4.1.1"
    );
    let mut chaos = bytes;
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(why(&chaos), (ResponseCode::Refused, Unfit::Class));
    for transfer in [RecordType::AXFR, RecordType::IXFR] {
        for name in ["backend", "outside.example"] {
            let asked = message(name, transfer, None).to_vec().unwrap();
            assert_eq!(why(&asked), (ResponseCode::Refused, Unfit::Transfer), "{name}");
        }
    }
    let mut version = message("web", RecordType::A, Some(1_232));
    version.edns.as_mut().unwrap().set_version(1);
    let (code, unfit) = why(&version.to_vec().unwrap());
    // The codec calls 16 BADSIG, which shares the number.
    assert_eq!((u16::from(code), unfit), (u16::from(ResponseCode::BADVERS), Unfit::EdnsVersion));
}

#[test]
fn answers_and_scraps_are_not_answered() {
    let asked = message("web", RecordType::A, None);
    let answer = asked.clone().into_response().to_vec().unwrap();
    let bytes = asked.to_vec().unwrap();
    for silent in [&answer[..], &bytes[..11], &[], &[0xff; 12]] {
        assert_eq!(Question::parse(silent, Transport::Udp).unwrap_err(), Rejected::Drop, "no loops");
    }
}

/// A question about these bytes as a name.
fn about(name: &[u8]) -> Vec<u8> {
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&header[..], name, &[0, 1, 0, 1]].concat()
}

#[test]
fn names_as_long_as_names_get_are_names() {
    let label = |len: u8| [vec![len], vec![b'a'; usize::from(len)]].concat();
    let longest = [label(63), label(63), label(63), label(60), vec![0]].concat();
    assert_eq!(longest.len(), 254);
    for name in [&longest, &[label(63), vec![0]].concat(), &vec![0]] {
        assert!(
            matches!(decided(&about(name), Transport::Udp), Decision::Forward(_)),
            "{} bytes",
            name.len()
        );
    }
    let too_long = [label(63), label(63), label(63), label(63), vec![0]].concat();
    let label_too_long = [vec![64], vec![b'a'; 64], vec![0]].concat();
    for name in [&too_long, &label_too_long, &label(5), &vec![]] {
        let (reply, why) = reply(&about(name), Transport::Udp);
        assert_eq!(
            (reply.metadata.response_code, why),
            (ResponseCode::FormErr, Outcome::Unfit(Unfit::Malformed))
        );
    }
}

#[test]
fn compression_in_a_question_leads_nowhere() {
    // To itself, to the next byte, into what follows, to its own start after a label.
    for name in
        [&[0xc0, 12][..], &[0xc0, 13], &[0xc0, 40], &[1, b'a', 0xc0, 12], &[0xff, 0xff], &[0x40, 0], &[0x80]]
    {
        let (reply, why) = reply(&about(name), Transport::Udp);
        assert_eq!(
            (reply.metadata.response_code, why),
            (ResponseCode::FormErr, Outcome::Unfit(Unfit::Malformed))
        );
    }
}

/// A dot, a backslash or a byte beyond ASCII inside a label makes another name, not one of ours.
#[test]
fn a_label_with_a_dot_is_not_two_labels() {
    for name in [
        &[11, b't', b'a', b's', b'k', b's', b'.', b'w', b'e', b'b', b'.', b'x', 0][..],
        &[9, b't', b'a', b's', b'k', b's', b'.', b'w', b'e', b'b', 0],
    ] {
        assert!(matches!(decided(&about(name), Transport::Udp), Decision::Forward(_)));
    }
    for name in
        [&[4, b'w', b'e', b'b', 0, 0][..], &[3, b'w', b'e', 0xc2, 0], &[4, b'w', b'e', b'b', b'\\', 0]]
    {
        assert!(matches!(decided(&about(name), Transport::Udp), Decision::Forward(_)));
    }
}

fn any_transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

/// Whatever came in: what goes out is what [`fuzz::message`] says.
fn check(bytes: &[u8], transport: Transport) {
    fuzz::message(&[&[u8::from(transport == Transport::Tcp)], bytes].concat());
}

#[test]
fn every_input_the_fuzzer_kept_passes() {
    for (target, run) in fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries =
            std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{} has no inputs", directory.display());
        for input in inputs {
            // Said before: a panic tells nothing of the input.
            println!("{}", input.display());
            run(&std::fs::read(&input).unwrap());
        }
    }
}

proptest! {
    #[test]
    fn garbage_gets_a_message_with_its_id_or_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        transport in any_transport(),
    ) {
        check(&bytes, transport);
    }

    /// With the header of a question, so that the bytes after it are read.
    #[test]
    fn garbage_behind_a_header_too(
        id in any::<[u8; 2]>(),
        flags in any::<u8>(),
        additionals in 0..4u8,
        rest in prop::collection::vec(any::<u8>(), 0..300),
        transport in any_transport(),
    ) {
        let header = [id[0], id[1], flags & 0x01, 0, 0, 1, 0, 0, 0, 0, 0, additionals];
        check(&[&header[..], &rest].concat(), transport);
    }

    /// A valid question with bytes changed reaches the decoder's depths, which pure noise rarely does.
    #[test]
    fn a_damaged_question_never_panics(
        name in prop_oneof![Just("web".to_owned()), Just("_8080._tcp.web.backend".to_owned()), "[a-zA-Z0-9._-]{1,60}"],
        record_type in any::<u16>(),
        size in any::<u16>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        transport in any_transport(),
    ) {
        let Ok(name) = Name::from_ascii(&name) else { return Ok(()) };
        let mut asked = message("web", RecordType::from(record_type), Some(size));
        asked.queries[0].set_name(name);
        let mut bytes = asked.to_vec().unwrap();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        check(&bytes, transport);
    }

    #[test]
    fn as_many_records_as_there_is_room_for(
        n in 0..400u16,
        edns in prop::option::of(any::<u16>()),
        srv in any::<bool>(),
        transport in any_transport(),
    ) {
        let (reply, len) = match srv {
            true => large("_80._tcp.many", RecordType::SRV, n, edns, transport),
            false => tasks(n, edns, transport),
        };
        let room = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => usize::from(edns.unwrap_or(512).clamp(512, MAX_UDP_ANSWER)),
        };
        prop_assert!(len <= room);
        prop_assert_eq!(reply.metadata.truncation, reply.answers.len() < usize::from(n));
        // One record more wouldn't have fit, were its names written out.
        let spare = if srv { 60 } else { 26 };
        prop_assert!(!reply.metadata.truncation || room - len <= spare, "{} of {room} bytes left", room - len);
    }
}
