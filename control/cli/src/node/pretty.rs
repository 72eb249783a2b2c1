//! `skep node inspect --pretty`: a node for people, in docker's words, and what the daemon sees of its data path.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

use crate::query::{number, text};
use crate::show::{age, ago, bytes, capitalized, printable};

pub(super) fn node(node: &Value, now: Timestamp) -> String {
    let mut page = Page::default();
    page.field("ID", text(node, "/ID"));
    page.some("Name", text(node, "/Spec/Name"));
    labels(&mut page, node);
    page.field("Hostname", text(node, "/Description/Hostname"));
    page.field("Joined at", text(node, "/CreatedAt"));
    status(&mut page, node);
    manager(&mut page, node);
    host(&mut page, node);
    data_path(&mut page, &node["DataPath"], now);
    page.0
}

fn labels(page: &mut Page, node: &Value) {
    let labels = node.pointer("/Spec/Labels").and_then(Value::as_object);
    let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { return };
    page.title("Labels");
    for (key, value) in labels {
        let value = value.as_str().unwrap_or_default();
        page.line(&if value.is_empty() { format!(" - {key}") } else { format!(" - {key}={value}") });
    }
}

fn status(page: &mut Page, node: &Value) {
    page.title("Status");
    page.field(" State", &capitalized(text(node, "/Status/State")));
    page.some(" Message", text(node, "/Status/Message"));
    page.field(" Availability", &capitalized(text(node, "/Spec/Availability")));
    page.some(" Address", text(node, "/Status/Addr"));
}

fn manager(page: &mut Page, node: &Value) {
    let Some(manager) = node.get("ManagerStatus").filter(|status| !status.is_null()) else { return };
    page.title("Manager Status");
    page.field(" Address", text(manager, "/Addr"));
    page.field(" Raft Status", &capitalized(text(manager, "/Reachability")));
    page.field(" Leader", if manager["Leader"] == true { "Yes" } else { "No" });
}

fn host(page: &mut Page, node: &Value) {
    page.title("Platform");
    page.field(" Operating System", text(node, "/Description/Platform/OS"));
    page.field(" Architecture", text(node, "/Description/Platform/Architecture"));
    page.title("Resources");
    let cpus = number(node, "/Description/Resources/NanoCPUs") / 1_000_000_000;
    page.field(" CPUs", &cpus.to_string());
    page.field(" Memory", &bytes(number(node, "/Description/Resources/MemoryBytes")));
    page.field("Engine Version", text(node, "/Description/Engine/EngineVersion"));
}

/// The path to another node, or all of this one's.
fn data_path(page: &mut Page, seen: &Value, now: Timestamp) {
    let paths = match seen {
        Value::Array(paths) => paths.as_slice(),
        Value::Object(_) => std::slice::from_ref(seen),
        _ => return,
    };
    page.title("Data path");
    if paths.is_empty() {
        page.line(" (no peers)");
    }
    for path in paths {
        page.title(&format!(" {} ({})", text(path, "/Hostname"), text(path, "/Peer")));
        page.field("  Session", &session(path, now));
        page.some("  Last handshake", &ago(text(path, "/LastHandshake"), now));
        page.field("  Rekeys", &number(path, "/Rekeys").to_string());
        page.field("  Sent", &sent(path, "/DatagramsSent", "/BytesSent"));
        page.field("  Received", &sent(path, "/DatagramsReceived", "/BytesReceived"));
        page.field("  Path MTU", &number(path, "/PathMTU").to_string());
        page.some("  Key", text(path, "/Key"));
        page.field("  Drops", &drops(path));
    }
}

fn session(path: &Value, now: Timestamp) -> String {
    let state = match text(path, "/SessionSince") {
        "" => "none".to_owned(),
        since => format!("{} ({})", age(since, now), text(path, "/Cipher")),
    };
    if path["Silent"] == true { format!("{state}, silent") } else { state }
}

fn sent(path: &Value, datagrams: &str, total: &str) -> String {
    format!("{} in {} datagrams", bytes(number(path, total)), number(path, datagrams))
}

fn drops(path: &Value) -> String {
    let reasons = path["Drops"].as_object().into_iter().flatten();
    let reasons: Vec<String> = reasons.map(|(reason, count)| format!("{reason} {count}")).collect();
    if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") }
}

/// Lines of `Name: value`, the values below each other.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{}", printable(line));
    }

    fn title(&mut self, title: &str) {
        self.line(&format!("{title}:"));
    }

    fn field(&mut self, name: &str, value: &str) {
        self.line(format!("{:<24}{value}", format!("{name}:")).trim_end());
    }

    /// Left out where there is nothing to say.
    fn some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path() -> Value {
        json!({
            "Peer": "192.0.2.2", "Node": "n2", "Hostname": "two", "Key": "BwcH", "Cipher": "aes-256-gcm",
            "Silent": false, "PathMTU": 1500, "SessionSince": "2026-11-26T11:57:00.000Z",
            "LastHandshake": "2026-11-26T11:59:00.000Z", "Handshakes": 3, "Rekeys": 2, "DatagramsSent": 10,
            "BytesSent": 1536, "DatagramsReceived": 20, "BytesReceived": 2048, "Drops": {"replayed": 5, "stale": 1},
        })
    }

    fn shown(data_path: Value) -> String {
        let object = json!({
            "ID": "82ow5r7j1e4sc7u1axaidc76z", "CreatedAt": "2026-11-26T10:00:00Z",
            "Spec": {"Role": "manager", "Availability": "active", "Labels": {"disk": "ssd", "empty": ""}},
            "Description": {
                "Hostname": "one\u{1b}[2J", "Platform": {"OS": "linux", "Architecture": "x86_64"},
                "Resources": {"NanoCPUs": 2_000_000_000u64, "MemoryBytes": 67_108_864}, "Engine": {"EngineVersion": "0.1.0"},
            },
            "Status": {"State": "ready", "Addr": "192.0.2.1"},
            "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "192.0.2.1:2377"},
            "DataPath": data_path,
        });
        node(&object, "2026-11-26T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_node_is_shown_with_all_its_sessions() {
        let text = shown(json!([path()]));
        for line in [
            "ID:                     82ow5r7j1e4sc7u1axaidc76z",
            " - disk=ssd",
            " - empty",
            "Hostname:               one [2J",
            " State:                 Ready",
            " Leader:                Yes",
            " Memory:                64MiB",
            "Data path:",
            " two (192.0.2.2):",
            "  Session:              3 minutes (aes-256-gcm)",
            "  Last handshake:       about a minute ago",
            "  Rekeys:               2",
            "  Sent:                 1.5KiB in 10 datagrams",
            "  Received:             2KiB in 20 datagrams",
            "  Path MTU:             1500",
            "  Drops:                replayed 5, stale 1",
        ] {
            assert!(text.lines().any(|said| said == line), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn one_path_is_shown_as_many_are_and_none_says_so() {
        assert_eq!(shown(path()), shown(json!([path()])));
        assert!(shown(json!([])).contains("\nData path:\n (no peers)\n"));
        assert!(!shown(Value::Null).contains("Data path"));
    }

    #[test]
    fn a_path_without_session_and_a_silent_one_say_so() {
        let mut path = path();
        (path["SessionSince"], path["LastHandshake"], path["Drops"]) = (Value::Null, Value::Null, json!({}));
        let text = shown(path.clone());
        assert!(
            text.contains("Session:              none\n") && text.contains("Drops:                none\n"),
            "{text}"
        );
        assert!(!text.contains("Last handshake"), "{text}");
        path["Silent"] = json!(true);
        assert!(shown(path).contains("none, silent\n"));
    }
}
