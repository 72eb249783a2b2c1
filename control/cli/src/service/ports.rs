//! The PORTS column: `*:80->80/tcp`, neighbours joined to ranges.

use serde_json::Value;

use crate::query::{number, text};

/// Ports published on every node, sorted; `host` names what comes before the number (`*:`).
pub(crate) fn ports_text(ports: &[Value], mode: &str) -> String {
    let mut ports: Vec<(&str, u64, u64)> = ports
        .iter()
        .filter(|port| text(port, "/PublishMode") == mode)
        .map(|port| (text(port, "/Protocol"), number(port, "/PublishedPort"), number(port, "/TargetPort")))
        .collect();
    ports.sort_unstable();
    let mut runs: Vec<(&str, u64, u64, u64)> = Vec::new();
    for (protocol, published, target) in ports {
        match runs.last_mut() {
            Some((of, first, first_target, last))
                if *of == protocol
                    && published == *last + 1
                    && target == *first_target + (published - *first) =>
            {
                *last = published;
            }
            _ => runs.push((protocol, published, target, published)),
        }
    }
    runs.iter().map(|run| run_text(*run)).collect::<Vec<_>>().join(", ")
}

fn run_text((protocol, first, target, last): (&str, u64, u64, u64)) -> String {
    match last - first {
        0 => format!("*:{first}->{target}/{protocol}"),
        more => format!("*:{first}-{last}->{target}-{}/{protocol}", target + more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn neighbours_are_joined() {
        let port = |protocol: &str, published: u16, target: u16| json!({"Protocol": protocol, "PublishedPort": published, "TargetPort": target, "PublishMode": "ingress"});
        let shown = |ports: &[Value]| ports_text(ports, "ingress");
        assert_eq!(shown(&[port("tcp", 80, 80)]), "*:80->80/tcp");
        assert_eq!(
            shown(&[
                port("tcp", 8001, 81),
                port("udp", 53, 53),
                port("tcp", 8000, 80),
                port("tcp", 8002, 90)
            ]),
            "*:8000-8001->80-81/tcp, *:8002->90/tcp, *:53->53/udp"
        );
        assert_eq!(
            shown(&[
                json!({"Protocol": "tcp", "TargetPort": 90, "PublishedPort": 9090, "PublishMode": "host"})
            ]),
            ""
        );
        assert_eq!(shown(&[]), "");
    }
}
