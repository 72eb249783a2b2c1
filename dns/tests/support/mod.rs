//! Questions, records and views shared by the tests of this crate.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

pub(crate) mod server;
pub(crate) mod upstream;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use skep_dns::View;
use skep_dns::records::{Instance, Records, Zone};

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

pub(crate) fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

pub(crate) fn zone(name: &str, names: &[(&str, &[Ipv4Addr])], reverse: &[(Ipv4Addr, &str)]) -> Zone {
    Zone {
        name: name.into(),
        subnet: None,
        names: names.iter().map(|(name, ips)| ((*name).into(), ips.to_vec())).collect(),
        services: HashMap::new(),
        reverse: reverse.iter().map(|(ip, name)| (*ip, (*name).into())).collect(),
    }
}

/// Two networks: `backend` with service `web` of three tasks, `Other` with `secret`, and `web` of its own.
pub(crate) fn records() -> Records {
    let tasks = [ip(11), ip(12), ip(13)];
    let mut backend = zone(
        "backend",
        &[("web", &[VIP]), ("tasks.web", &tasks), ("rr", &tasks), ("web.1.abc", &tasks[..1]), ("idle", &[])],
        &[(VIP, "web"), (tasks[0], "web.1.abc")],
    );
    backend.subnet = Some("10.0.1.0/24".parse().expect("a subnet"));
    let instance = |n: u8| Instance { name: format!("web.{n}.abc"), addr: ip(10 + n), port: 8080 };
    backend.services.insert("_8080._tcp.web".into(), (1..=3).map(instance).collect());
    backend.services.insert("_53._udp.idle".into(), Vec::new());
    let other = zone("Other", &[("secret", &[ip(99)]), ("web", &[ip(98)])], &[(ip(99), "secret")]);
    Records { zones: HashMap::from([("b".into(), backend), ("o".into(), other)]) }
}

pub(crate) fn view(zones: &[&str], upstreams: &[SocketAddr]) -> View {
    View { zones: zones.iter().map(|id| (*id).into()).collect(), upstreams: upstreams.to_vec() }
}

pub(crate) fn query(name: &str, record_type: RecordType) -> Query {
    Query::query(Name::from_ascii(format!("{name}.")).expect("a test's name"), record_type)
}

pub(crate) fn message(name: &str, record_type: RecordType, edns: Option<u16>) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query(name, record_type));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message
}

pub(crate) fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let a = |data: &RData| if let RData::A(a) = data { Some(a.0) } else { None };
    message.answers.iter().filter_map(|record| a(&record.data)).collect()
}
