//! The paths to other nodes, as this one sees them: in `/nodes/{id}` and `/skep/paths`.

use crate::node::Node;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use skep_agent::PeerPath;
use skep_model::NodeId;
use skep_model::data_path::DataCipher;
use std::time::Instant;

/// Both of the same moment, to tell the time of what was timed by the monotonic clock.
#[derive(Clone, Copy)]
struct Now {
    instant: Instant,
    time: Timestamp,
}

/// Every path of this node. None: it is no member.
pub(super) async fn paths(node: &Node) -> Option<Vec<Value>> {
    let paths = node.agent().paths().await?;
    let (cipher, _key) = node.agent().data_path()?;
    let now = Now { instant: Instant::now(), time: Timestamp::now() };
    Some(paths.iter().map(|path| rendered(path, cipher, now)).collect())
}

/// `DataPath` of a node: the path to it, or all there are where it is this node. Null where this node has none.
pub(super) async fn of_node(node: &Node, id: &NodeId) -> Value {
    let Some(paths) = paths(node).await else { return Value::Null };
    if node.node_id().as_ref() == Some(id) {
        return Value::Array(paths);
    }
    paths.into_iter().find(|path| path["Node"] == id.as_str()).unwrap_or_default()
}

fn rendered(path: &PeerPath, cipher: DataCipher, now: Now) -> Value {
    let (stats, session) = (&path.stats, &path.stats.session);
    let drops: Map<String, Value> =
        session.drops.iter().map(|(reason, count)| (reason.to_string(), json!(count))).collect();
    json!({
        "Peer": stats.peer,
        "Node": path.node,
        "Hostname": path.hostname,
        "Key": path.key,
        "Cipher": cipher,
        "Silent": stats.silent,
        "PathMTU": stats.mtu,
        "SessionSince": session.since.map(|since| now.time_of(since)),
        "LastHandshake": session.last_handshake.map(|last| now.time_of(last)),
        "Handshakes": session.handshakes,
        "Rekeys": session.rekeys,
        "DatagramsSent": session.datagrams_sent,
        "BytesSent": session.bytes_sent,
        "DatagramsReceived": session.datagrams_received,
        "BytesReceived": session.bytes_received,
        "Drops": drops,
        "Asked": stats.asked,
        "Answered": stats.answered,
        "HeardMillisecondsAgo": stats.last_heard.map(|heard| (now.instant - heard).as_millis()),
    })
}

impl Now {
    /// RFC 3339, to the millisecond: the two clocks are not read at once.
    fn time_of(self, instant: Instant) -> String {
        let ago = SignedDuration::try_from(self.instant.saturating_duration_since(instant));
        let time = self.time.checked_sub(ago.unwrap_or_default()).unwrap_or(self.time);
        format!("{time:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_agent::{DropReason, PathStats, SessionStats};
    use skep_model::data_path::DataPathKey;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn now() -> Now {
        // Far enough from the machine's start that minutes can be taken off.
        let instant = Instant::now() + Duration::from_hours(1);
        Now { instant, time: "2026-11-26T12:00:00.25Z".parse().unwrap() }
    }

    fn path(session: SessionStats) -> PeerPath {
        let peer = Ipv4Addr::new(192, 0, 2, 2);
        let last_heard = Some(now().instant - Duration::from_millis(120));
        let stats = PathStats {
            peer,
            asked: 9,
            answered: 8,
            last_heard,
            silent: false,
            mtu: 1500,
            is_measured: true,
            session,
        };
        PeerPath {
            node: Some("n2".into()),
            hostname: "two".to_owned(),
            key: Some(DataPathKey([7; 32])),
            stats,
        }
    }

    #[test]
    fn a_session_is_told_with_its_times_and_losses() {
        let now = now();
        let session = SessionStats {
            since: Some(now.instant - Duration::from_secs(180)),
            last_handshake: Some(now.instant - Duration::from_secs(60)),
            handshakes: 3,
            rekeys: 2,
            datagrams_sent: 10,
            bytes_sent: 1_000,
            datagrams_received: 20,
            bytes_received: 2_000,
            drops: vec![(DropReason::ALL[0], 5)],
        };
        let shown = rendered(&path(session), DataCipher::Aes256Gcm, now);
        let reason = DropReason::ALL[0].to_string();
        for (field, value) in [
            ("Peer", json!("192.0.2.2")),
            ("Node", json!("n2")),
            ("Hostname", json!("two")),
            ("Key", json!("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")),
            ("Cipher", json!("aes-256-gcm")),
            ("Silent", json!(false)),
            ("PathMTU", json!(1500)),
            ("SessionSince", json!("2026-11-26T11:57:00.250Z")),
            ("LastHandshake", json!("2026-11-26T11:59:00.250Z")),
            ("Handshakes", json!(3)),
            ("Rekeys", json!(2)),
            ("DatagramsSent", json!(10)),
            ("BytesSent", json!(1_000)),
            ("DatagramsReceived", json!(20)),
            ("BytesReceived", json!(2_000)),
            ("Drops", json!({ reason: 5 })),
            ("Asked", json!(9)),
            ("Answered", json!(8)),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
    }

    #[test]
    fn without_a_session_there_is_no_time_of_one() {
        let shown = rendered(&path(SessionStats::default()), DataCipher::default(), now());
        assert_eq!((&shown["SessionSince"], &shown["LastHandshake"]), (&Value::Null, &Value::Null));
        assert_eq!(shown["Drops"], json!({}));
    }
}
