//! The text: Prometheus' exposition format 0.0.4. Pure.

use skep_agent::{PeerPath, Stats};
use std::fmt::{Display, Write};
use std::time::Instant;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a member sees.
pub(super) struct Seen {
    /// By reason, whichever part of the node counts it.
    pub(super) drops: Vec<(String, u64)>,
    pub(super) engine: Stats,
    pub(super) paths: Vec<PeerPath>,
    pub(super) now: Instant,
}

/// None: this node is no member.
pub(super) fn exposition(seen: Option<&Seen>) -> String {
    let mut out = Exposition::default();
    out.family("skep_build_info", "gauge", "The daemon's version.");
    out.sample("skep_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    out.family("skep_member", "gauge", "1 while this node is a member of a cluster.");
    out.sample("skep_member", &[], u8::from(seen.is_some()));
    if let Some(seen) = seen {
        node(&mut out, seen);
        paths(&mut out, seen);
        sessions(&mut out, seen);
    }
    out.0
}

fn node(out: &mut Exposition, seen: &Seen) {
    out.family(
        "skep_drops_total",
        "counter",
        "Packets dropped and questions for names not answered, by reason.",
    );
    for (reason, count) in &seen.drops {
        out.sample("skep_drops_total", &[("reason", reason)], count);
    }
    let engine = &seen.engine;
    out.family("skep_flows", "gauge", "Connections through virtual addresses and published ports.");
    out.sample("skep_flows", &[], engine.flows);
    out.family("skep_flow_capacity", "gauge", "How many flows fit.");
    out.sample("skep_flow_capacity", &[], engine.flow_capacity);
    out.family("skep_flows_displaced_total", "counter", "Flows that gave way to others before their time.");
    out.sample("skep_flows_displaced_total", &[], engine.flows_displaced);
    out.family(
        "skep_port_bytes_total",
        "counter",
        "Bytes of frames from and to a container's interface; port 0 is skep0.",
    );
    for (port, stats) in &engine.ports {
        for (direction, bytes) in [("from", stats.bytes_from), ("to", stats.bytes_to)] {
            out.sample("skep_port_bytes_total", &[("port", &port.0), ("direction", &direction)], bytes);
        }
    }
}

fn paths(out: &mut Exposition, seen: &Seen) {
    out.family(
        "skep_path_mtu_bytes",
        "gauge",
        "The largest outer IP packet that is known to reach the peer.",
    );
    out.each(seen, "skep_path_mtu_bytes", |path| Some(path.stats.mtu));
    out.family("skep_path_silent", "gauge", "1 while the peer answers no probe on the data path.");
    out.each(seen, "skep_path_silent", |path| Some(u8::from(path.stats.silent)));
}

fn sessions(out: &mut Exposition, seen: &Seen) {
    let age = |since: Instant| seen.now.saturating_duration_since(since).as_secs_f64();
    out.family(
        "skep_session_age_seconds",
        "gauge",
        "Since when there has been a session without a gap; absent without one.",
    );
    out.each(seen, "skep_session_age_seconds", |path| path.stats.session.since.map(age));
    out.family(
        "skep_session_last_handshake_seconds",
        "gauge",
        "Seconds since the session in use was agreed on.",
    );
    out.each(seen, "skep_session_last_handshake_seconds", |path| path.stats.session.last_handshake.map(age));
    out.family("skep_session_handshakes_total", "counter", "Handshakes that led to a session.");
    out.each(seen, "skep_session_handshakes_total", |path| Some(path.stats.session.handshakes));
    out.family("skep_session_rekeys_total", "counter", "Handshakes that renewed a session that stood.");
    out.each(seen, "skep_session_rekeys_total", |path| Some(path.stats.session.rekeys));
    out.family("skep_session_bytes_sent_total", "counter", "Bytes of sealed datagrams to the peer.");
    out.each(seen, "skep_session_bytes_sent_total", |path| Some(path.stats.session.bytes_sent));
    out.family("skep_session_bytes_received_total", "counter", "Bytes of sealed datagrams from the peer.");
    out.each(seen, "skep_session_bytes_received_total", |path| Some(path.stats.session.bytes_received));
    out.family(
        "skep_session_drops_total",
        "counter",
        "Datagrams from the peer's address that went no further.",
    );
    for path in &seen.paths {
        for (reason, count) in &path.stats.session.drops {
            let [peer, node] = labels(path);
            out.sample("skep_session_drops_total", &[peer, node, ("reason", reason)], count);
        }
    }
}

type Label<'a> = (&'a str, &'a dyn Display);

fn labels(path: &PeerPath) -> [Label<'_>; 2] {
    let node: &dyn Display = match &path.node {
        Some(node) => node,
        None => &"",
    };
    [("peer", &path.stats.peer), ("node", node)]
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample for each path that has a value.
    fn each<T: Display>(&mut self, seen: &Seen, name: &str, value: impl Fn(&PeerPath) -> Option<T>) {
        for path in &seen.paths {
            if let Some(value) = value(path) {
                self.sample(name, &labels(path), value);
            }
        }
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(&value.to_string())))
            .collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_agent::{DropReason, PathStats, SessionStats};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn seen(session: SessionStats, now: Instant) -> Seen {
        let peer = Ipv4Addr::new(192, 0, 2, 2);
        let stats = PathStats {
            peer,
            asked: 1,
            answered: 1,
            last_heard: None,
            silent: true,
            mtu: 1400,
            is_measured: true,
            session,
        };
        let path = PeerPath { node: Some("n2".into()), hostname: String::new(), key: None, stats };
        let drops = vec![("dns_busy\"\\\n".to_owned(), 3)];
        Seen { drops, engine: Stats { flows: 4, ..Stats::default() }, paths: vec![path], now }
    }

    #[test]
    fn who_is_no_member_says_so_and_no_more() {
        let text = exposition(None);
        assert!(text.contains("\nskep_member 0\n") && !text.contains("skep_drops"), "{text}");
    }

    #[test]
    fn a_session_is_counted_under_its_peer() {
        let now = Instant::now() + Duration::from_hours(1);
        let reason = DropReason::ALL[0];
        let session = SessionStats {
            since: Some(now - Duration::from_secs(90)),
            last_handshake: Some(now - Duration::from_millis(1_500)),
            handshakes: 3,
            rekeys: 2,
            bytes_sent: 1_000,
            bytes_received: 2_000,
            drops: vec![(reason, 5)],
            ..SessionStats::default()
        };
        let text = exposition(Some(&seen(session, now)));
        let whom = "peer=\"192.0.2.2\",node=\"n2\"";
        for line in [
            "skep_member 1".to_owned(),
            "skep_flows 4".to_owned(),
            "skep_drops_total{reason=\"dns_busy\\\"\\\\\\n\"} 3".to_owned(),
            format!("skep_path_mtu_bytes{{{whom}}} 1400"),
            format!("skep_path_silent{{{whom}}} 1"),
            format!("skep_session_age_seconds{{{whom}}} 90"),
            format!("skep_session_last_handshake_seconds{{{whom}}} 1.5"),
            format!("skep_session_handshakes_total{{{whom}}} 3"),
            format!("skep_session_rekeys_total{{{whom}}} 2"),
            format!("skep_session_bytes_sent_total{{{whom}}} 1000"),
            format!("skep_session_bytes_received_total{{{whom}}} 2000"),
            format!("skep_session_drops_total{{{whom},reason=\"{reason}\"}} 5"),
        ] {
            assert!(text.lines().any(|said| said == line), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn without_a_session_it_has_no_age() {
        let text = exposition(Some(&seen(SessionStats::default(), Instant::now())));
        assert!(
            !text.contains("\nskep_session_age_seconds") && text.contains("skep_session_handshakes_total{")
        );
    }

    /// As Prometheus demands: every family is declared once, before its samples, which follow each other.
    #[test]
    fn families_are_declared_once_and_hang_together() {
        let text = exposition(Some(&seen(SessionStats::default(), Instant::now())));
        let mut declared: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(!declared.contains(&name), "{name}");
                declared.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(declared.last(), Some(&name), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
