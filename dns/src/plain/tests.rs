use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::question::read_key;
use super::*;
use crate::decide::{Decision, Outcome, decide_any};
use crate::records::Zone;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

/// Networks `back` and `Front`, which both know `web`; with names of every size of answer, and an odd one of addresses.
fn records() -> Records {
    let reverse =
        [(ip(1), "web"), (ip(2), "Web.1.abc"), (ip(3), "a b")].map(|(at, name)| (at, name.to_owned()));
    let zone = |name: &str, names: &[(&str, u8)]| Zone {
        name: name.into(),
        subnet: Some(Ipv4Net::new_assert(ip(0), 24)),
        reverse: reverse.clone().into(),
        names: names.iter().map(|(name, count)| ((*name).into(), (0..*count).map(ip).collect())).collect(),
        ..Zone::default()
    };
    let back = [
        ("web", 1),
        ("tasks.web", 3),
        ("idle", 0),
        ("all_of-them.1", 40),
        ("hundred", 100),
        ("many", 101),
        ("x.arpa", 1),
    ];
    Records { zones: [("b".into(), zone("back", &back)), ("f".into(), zone("Front", &[("web", 2)]))].into() }
}

fn view() -> View {
    View { zones: ["f", "b", "a"].map(Into::into).into(), upstreams: Vec::new() }
}

/// What both ways say of a message: the short one, and the codec's.
fn both(bytes: &[u8], transport: Transport, turn: u32) -> [Option<(Vec<u8>, Outcome)>; 2] {
    let (records, view) = (records(), view());
    let long = match decide_any(bytes, transport, &records, &view, |_| turn) {
        Decision::Reply(reply, outcome) => Some((reply, outcome)),
        Decision::Forward(_) | Decision::Drop => None,
    };
    [answer(bytes, transport, &records, &view, |_| turn), long]
}

fn asked(name: &str, kind: RecordType, edns: Option<u16>) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(room) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(room);
        message.set_edns(edns);
    }
    message
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

const NAMES: [&str; 19] = [
    "web.",
    "tasks.web.",
    "tasks.web.back.",
    "idle.front.",
    "IDLE.",
    "aLL_of-them.1.",
    "hundred.",
    "many.",
    "x.arpa.",
    "1.1.0.10.in-addr.arpa.",
    "2.1.0.10.IN-addr.arpa.",
    "3.1.0.10.in-addr.arpa.",
    "4.1.0.10.in-addr.arpa.",
    "web.4.1.0.10.in-addr.arpa.",
    "1.0.10.in-addr.arpa.",
    "1.2.0.192.in-addr.arpa.",
    "1.2.0.192.in-addr.Arpa.",
    "nobody.",
    ".",
];

prop_compose! {
    fn question()(
        name in prop::sample::select(&NAMES[..]),
        kind in prop::sample::select(&[RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::MX, RecordType::PTR][..]),
        edns in prop::option::of(any::<u16>()),
        flags: [bool; 3],
        id: u16,
    ) -> Vec<u8> {
        let mut message = asked(name, kind, edns);
        message.metadata.id = id;
        let [recursion, checking, authentic] = flags;
        message.metadata.recursion_desired = recursion;
        message.metadata.checking_disabled = checking;
        message.metadata.authentic_data = authentic;
        message.to_vec().unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn a_short_answer_is_the_codecs_to_the_byte(asked in question(), transport in transport(), turn: u32) {
        let [short, long] = both(&asked, transport, turn);
        prop_assert!(short.is_none() || short == long, "{:?}, {:?}", short, long);
    }

    /// Bytes that a question should not have, cut off ones and more behind it.
    #[test]
    fn so_is_one_to_a_spoilt_question(
        mut asked in question(),
        transport in transport(),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        more in prop::collection::vec(any::<u8>(), 0..3),
        turn: u32,
    ) {
        for (at, byte) in spoilt {
            let at = at.index(asked.len());
            asked[at] = byte;
        }
        if let Some(cut) = cut {
            asked.truncate(cut.index(asked.len()));
        }
        asked.extend(more);
        let [short, long] = both(&asked, transport, turn);
        prop_assert!(short.is_none() || short == long, "{:?}, {:?}", short, long);
    }
}

/// Else nothing were tested above.
#[test]
fn what_is_asked_most_is_answered_the_short_way() {
    for name in ["web.", "WEB.front.", "tasks.web.back.", "idle.", "all_OF-them.1."] {
        for kind in [RecordType::A, RecordType::AAAA] {
            for edns in [None, Some(0), Some(1_232), Some(u16::MAX)] {
                let bytes = asked(name, kind, edns).to_vec().unwrap();
                let [short, long] = both(&bytes, Transport::Tcp, 1);
                assert_eq!(short, long);
                assert!(short.is_some(), "{name} {kind} {edns:?}");
            }
        }
    }
    for name in ["1.1.0.10.in-addr.arpa.", "2.1.0.10.IN-ADDR.arpa.", "4.1.0.10.in-addr.arpa."] {
        let [short, long] = both(&asked(name, RecordType::PTR, None).to_vec().unwrap(), Transport::Udp, 0);
        assert_eq!(short, long);
        assert!(short.is_some(), "{name}");
    }
}

#[test]
fn the_rest_is_left_to_the_codec() {
    let left = |message: &Message, transport| {
        assert_eq!(both(&message.to_vec().unwrap(), transport, 0)[0], None);
    };
    left(&asked("web.", RecordType::MX, None), Transport::Tcp);
    left(&asked("nobody.", RecordType::A, None), Transport::Tcp);
    left(&asked("x.arpa.", RecordType::A, None), Transport::Tcp);
    left(&asked("3.1.0.10.in-addr.arpa.", RecordType::PTR, None), Transport::Tcp);
    left(&asked("1.2.0.192.in-addr.arpa.", RecordType::PTR, None), Transport::Tcp);
    left(&asked("many.", RecordType::A, None), Transport::Tcp);
    let mut update = asked("web.", RecordType::A, None);
    update.metadata.op_code = OpCode::Update;
    left(&update, Transport::Tcp);
    let mut unknown = asked("web.", RecordType::A, Some(512));
    unknown.edns.as_mut().unwrap().set_version(1);
    left(&unknown, Transport::Tcp);
}

/// The longest name there is, and one byte more.
#[test]
fn a_name_is_as_long_as_names_may_be() {
    let wire = |labels: &[u8]| {
        let label = |len: &u8| [&[*len][..], &vec![b'A'; usize::from(*len)]].concat();
        [labels.iter().flat_map(label).collect(), vec![0]].concat()
    };
    let mut key = [0; MAX_NAME];
    let longest = wire(&[63, 63, 63, 61]);
    assert_eq!(longest.len(), MAX_NAME);
    let labels = [63, 63, 63, 61].map(|len| "a".repeat(len));
    assert_eq!(read_key(&longest, &mut key), Some(labels.join(".").as_str()));
    for refused in
        [wire(&[63, 63, 63, 62]), wire(&[63, 63, 63, 63]), wire(&[63, 63, 63, 61, 1]), wire(&[]), vec![]]
    {
        assert_eq!(read_key(&refused, &mut key), None);
    }
}
