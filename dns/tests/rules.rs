//! The rules of names, without sockets.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod support;

use std::net::Ipv4Addr;

use hickory_proto::rr::{RData, Record, RecordType};
use proptest::prelude::*;
use skep_dns::records::{Records, Zone};
use skep_dns::resolver::{ANSWER_TTL_SECS, Answer, Resolution, resolve};
use support::{VIP, ip, query, records, view};

const EMPTY: Resolution = Resolution::Answer(Answer { answers: vec![], additionals: vec![] });

fn ask(name: &str, record_type: RecordType, zones: &[&str], turn: u32) -> Resolution {
    resolve(&query(name, record_type), &records(), &view(zones, &[]), turn)
}

/// The A records' addresses; None where the question is forwarded.
fn ips(name: &str, zones: &[&str]) -> Option<Vec<Ipv4Addr>> {
    let Resolution::Answer(Answer { answers, .. }) = ask(name, RecordType::A, zones, 0) else { return None };
    let a = |record: &Record| if let RData::A(a) = record.data { Some(a.0) } else { None };
    Some(answers.iter().map(|record| a(record).expect("an A record")).collect())
}

#[test]
fn every_form_of_a_name_is_known() {
    for name in ["web", "web.backend", "WEB", "Web.BackEnd"] {
        assert_eq!(ips(name, &["b"]), Some(vec![VIP]), "{name}");
    }
    for name in ["tasks.web", "tasks.web.backend", "rr", "rr.backend", "TASKS.web"] {
        assert_eq!(ips(name, &["b"]), Some(vec![ip(11), ip(12), ip(13)]), "{name}");
    }
    assert_eq!(ips("web.1.abc.backend", &["b"]), Some(vec![ip(11)]));
    assert_eq!(ips("idle", &["b"]), Some(vec![]), "a service without tasks is known and empty");
}

#[test]
fn another_networks_names_do_not_exist() {
    for name in ["secret", "secret.other", "web.other", "web.backend.other", "backend", "web.", "x.web"] {
        assert_eq!(ips(name.trim_end_matches('.'), &[]), None, "{name}");
    }
    for name in ["secret", "secret.other", "web.other"] {
        assert_eq!(ips(name, &["b"]), None, "{name}");
    }
    assert_eq!(ips("secret.other", &["o"]), Some(vec![ip(99)]));
    assert_eq!(ips("web", &["gone"]), None, "a zone the records don't hold");
}

#[test]
fn the_first_network_that_knows_a_name_answers() {
    assert_eq!(ips("web", &["b", "o"]), Some(vec![VIP]));
    assert_eq!(ips("web", &["o", "b"]), Some(vec![ip(98)]));
    assert_eq!(ips("web.backend", &["o", "b"]), Some(vec![VIP]), "the network's name decides");
}

#[test]
fn a_known_name_is_never_forwarded_whatever_the_type() {
    for record_type in [
        RecordType::AAAA,
        RecordType::MX,
        RecordType::TXT,
        RecordType::HTTPS,
        RecordType::SRV,
        RecordType::PTR,
    ] {
        assert_eq!(ask("web", record_type, &["b"], 0), EMPTY, "{record_type}");
        assert_eq!(ask("nowhere", record_type, &["b"], 0), Resolution::Forward, "{record_type}");
    }
}

#[test]
fn reverse_names_are_known_on_the_containers_networks_only() {
    let asked = "2.1.0.10.in-addr.arpa";
    let Resolution::Answer(found) = ask(asked, RecordType::PTR, &["b"], 0) else { panic!("forwarded") };
    assert_eq!(found.answers[0].data.to_string(), "web.backend.");
    assert_eq!(ask("2.1.0.10.IN-ADDR.ARPA", RecordType::A, &["b"], 0), EMPTY);
    assert_eq!(ask(asked, RecordType::PTR, &["o"], 0), Resolution::Forward);
    assert_eq!(ask("8.8.8.8.in-addr.arpa", RecordType::PTR, &["b"], 0), Resolution::Forward);
}

#[test]
fn which_addresses_a_network_uses_is_told_to_nobody_outside() {
    for nobody in [
        "77.1.0.10.in-addr.arpa",
        "0.1.0.10.in-addr.arpa",
        "x.2.1.0.10.in-addr.arpa",
        "b._dns-sd._udp.0.1.0.10.in-addr.arpa",
        "b._dns-sd._udp.1.0.10.in-addr.arpa",
        "02.1.0.10.in-addr.arpa",
        "256.1.0.10.in-addr.arpa",
        "9.2.1.0.10.in-addr.arpa",
    ] {
        assert_eq!(ask(nobody, RecordType::PTR, &["b"], 0), Resolution::NoSuchName, "{nobody}");
        assert_eq!(ask(nobody, RecordType::PTR, &["o"], 0), Resolution::Forward, "{nobody}");
    }
    assert_eq!(ask("1.0.10.in-addr.arpa", RecordType::SOA, &["b"], 0), EMPTY, "a range with names below");
    for outside in
        ["0.10.in-addr.arpa", "10.in-addr.arpa", "in-addr.arpa", "arpa", "2.1.0.10.in-addr.example"]
    {
        assert_eq!(ask(outside, RecordType::PTR, &["b"], 0), Resolution::Forward, "{outside}");
    }
}

#[test]
fn a_services_port_leads_to_its_tasks_and_their_addresses() {
    for name in ["_8080._tcp.web", "_8080._TCP.Web.backend"] {
        let Resolution::Answer(found) = ask(name, RecordType::SRV, &["b"], 1) else { panic!("{name}") };
        let at: Vec<_> = found.answers.iter().map(|record| record.data.to_string()).collect();
        let instances =
            ["0 1 8080 web.2.abc.backend.", "0 1 8080 web.3.abc.backend.", "0 1 8080 web.1.abc.backend."];
        assert_eq!(at, instances, "{name}");
        let also: Vec<_> =
            found.additionals.iter().map(|r| (r.name.to_ascii(), r.data.to_string())).collect();
        assert_eq!(also[0], ("web.2.abc.backend.".to_owned(), "10.0.1.12".to_owned()));
        assert!(found.answers.iter().chain(&found.additionals).all(|record| record.ttl == ANSWER_TTL_SECS));
    }
    assert_eq!(ips("web.1.abc.backend", &["b"]), Some(vec![ip(11)]), "what it leads to is a name");
    assert_eq!(ask("_8080._tcp.web", RecordType::A, &["b"], 0), EMPTY);
    assert_eq!(ask("_53._udp.idle", RecordType::SRV, &["b"], 0), EMPTY, "known, and nobody is there");
    for other in ["_8080._udp.web", "_81._tcp.web", "_8080._tcp.secret"] {
        assert_eq!(ask(other, RecordType::SRV, &["b"], 0), Resolution::Forward, "{other}");
    }
}

#[test]
fn any_gets_what_there_is() {
    let any = |name| match ask(name, RecordType::ANY, &["b"], 0) {
        Resolution::Answer(found) => found.answers.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (any("tasks.web"), any("_8080._tcp.web"), any("2.1.0.10.in-addr.arpa"), any("idle")),
        (3, 3, 1, 0)
    );
}

#[test]
fn consecutive_turns_begin_with_consecutive_addresses() {
    let first = |turn| match ask("rr", RecordType::A, &["b"], turn) {
        Resolution::Answer(found) => found.answers[0].data.to_string(),
        other => panic!("{other:?}"),
    };
    let firsts: Vec<_> = (0..4).map(first).collect();
    assert_eq!(firsts, ["10.0.1.11", "10.0.1.12", "10.0.1.13", "10.0.1.11"]);
    assert_eq!(ask("idle", RecordType::A, &["b"], u32::MAX), EMPTY);
}

/// The rules as a sentence each: plain name in the first zone that has it, else its network's name taken off.
fn model(name: &str, zones: &[&Zone]) -> Option<Vec<Ipv4Addr>> {
    let name = name.to_lowercase();
    let plain = zones.iter().find_map(|zone| zone.names.get(&name));
    let qualified = || {
        zones.iter().find_map(|zone| {
            zone.names.iter().find(|(short, _)| format!("{short}.{}", zone.name.to_lowercase()) == name)
        })
    };
    plain.or_else(|| qualified().map(|(_, ips)| ips)).cloned()
}

const LABELS: [&str; 6] = ["web", "tasks.web", "db", "backend", "Other", "a.b"];

prop_compose! {
    fn any_zone()(
        name in prop::sample::select(&LABELS[..]),
        names in prop::collection::hash_map(
            prop::sample::select(&LABELS[..]).prop_map(str::to_lowercase),
            prop::collection::vec(any::<Ipv4Addr>(), 0..4),
            0..5,
        ),
    ) -> Zone {
        Zone { name: name.into(), names, ..Zone::default() }
    }
}

proptest! {
    #[test]
    fn names_follow_the_model(
        zones in prop::collection::vec(any_zone(), 1..4),
        first in prop::sample::select(&LABELS[..]),
        second in prop::option::of(prop::sample::select(&LABELS[..])),
        upper in any::<bool>(),
        turn in any::<u32>(),
    ) {
        let mut name = second.map_or(first.to_owned(), |second| format!("{first}.{second}"));
        if upper { name = name.to_uppercase() }
        let ids: Vec<_> = (0..zones.len()).map(|id| id.to_string()).collect();
        let expected = model(&name, &zones.iter().collect::<Vec<_>>());
        let records = Records { zones: ids.iter().cloned().zip(zones).collect() };
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let got = resolve(&query(&name, RecordType::A), &records, &view(&ids, &[]), turn);
        match (expected, got) {
            (None, got) => prop_assert_eq!(got, Resolution::Forward),
            (Some(mut expected), Resolution::Answer(found)) => {
                let mut got: Vec<_> = found.answers.iter().map(|record| record.data.to_string()).collect();
                if !got.is_empty() {
                    prop_assert_eq!(&got[0], &expected[turn as usize % expected.len()].to_string());
                }
                got.sort();
                expected.sort_by_key(Ipv4Addr::to_string);
                prop_assert_eq!(got, expected.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>());
            }
            (Some(_), got) => prop_assert!(false, "a known name: {got:?}"),
        }
    }
}
