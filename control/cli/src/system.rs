//! `skep info` and `skep version`.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cli::Format;
use crate::client::{API_VERSION, Client};
use crate::query::{list, number, text};
use crate::show::{self, bytes};

pub(crate) async fn info(client: &Client, format: &Format) -> anyhow::Result<u8> {
    let info = client.get("/info").await?;
    show::object(&info, format.format.as_deref(), || info_text(&info))?;
    Ok(0)
}

pub(crate) async fn version(client: &Client, format: &Format) -> anyhow::Result<u8> {
    let server = client.get("/version").await;
    let own = json!({"Version": env!("CARGO_PKG_VERSION"), "ApiVersion": API_VERSION});
    let both = json!({"Client": own, "Server": server.as_ref().ok()});
    show::object(&both, format.format.as_deref(), || version_text(&both))?;
    // The client's half is worth printing without a daemon; that there is none is still a failure.
    server.map_err(Into::into).map(|_| 0)
}

fn version_text(versions: &Value) -> String {
    let mut out = String::new();
    for (title, at) in [("Client", "/Client"), ("Server", "/Server")] {
        let Some(side) = versions.pointer(at).filter(|side| !side.is_null()) else { continue };
        line(&mut out, 0, title, "");
        line(&mut out, 1, "Version", &format!("          {}", text(side, "/Version")));
        line(&mut out, 1, "API version", &format!("      {}", text(side, "/ApiVersion")));
    }
    out
}

fn info_text(info: &Value) -> String {
    let mut out = String::new();
    line(&mut out, 0, "Server Version", text(info, "/ServerVersion"));
    line(&mut out, 0, "Swarm", text(info, "/Swarm/LocalNodeState"));
    swarm_text(&mut out, &info["Swarm"], &info["Skep"]);
    line(&mut out, 0, "Kernel Version", text(info, "/KernelVersion"));
    line(&mut out, 0, "Operating System", text(info, "/OperatingSystem"));
    line(&mut out, 0, "OSType", text(info, "/OSType"));
    line(&mut out, 0, "Architecture", text(info, "/Architecture"));
    line(&mut out, 0, "CPUs", &number(info, "/NCPU").to_string());
    line(&mut out, 0, "Total Memory", &bytes(number(info, "/MemTotal")));
    line(&mut out, 0, "Name", text(info, "/Name"));
    for warning in list(info, "/Warnings") {
        line(&mut out, 0, "WARNING", warning.as_str().unwrap_or_default());
    }
    out
}

fn swarm_text(out: &mut String, swarm: &Value, skep: &Value) {
    let error = text(swarm, "/Error");
    if !error.is_empty() {
        line(out, 1, "Error", error);
    }
    let is_manager = swarm["ControlAvailable"].as_bool().unwrap_or_default();
    if text(swarm, "/NodeID").is_empty() {
        return;
    }
    line(out, 1, "NodeID", text(swarm, "/NodeID"));
    line(out, 1, "Is Manager", &is_manager.to_string());
    if is_manager {
        cluster_text(out, swarm);
    }
    // A member that could not be taken up yet has neither.
    for (name, at) in [("Data Cipher", "/DataCipher"), ("Data Path Key", "/DataPathKey")] {
        if !text(skep, at).is_empty() {
            line(out, 1, name, text(skep, at));
        }
    }
    line(out, 1, "Node Address", text(swarm, "/NodeAddr"));
    let managers = list(swarm, "/RemoteManagers");
    if !managers.is_empty() {
        line(out, 1, "Manager Addresses", "");
        for manager in managers {
            // Writing to a String can't fail.
            let _ = writeln!(out, "  {}", text(manager, "/Addr"));
        }
    }
}

fn cluster_text(out: &mut String, swarm: &Value) {
    let cluster = &swarm["Cluster"];
    line(out, 1, "ClusterID", text(cluster, "/ID"));
    line(out, 1, "Managers", &number(swarm, "/Managers").to_string());
    line(out, 1, "Nodes", &number(swarm, "/Nodes").to_string());
    let pools: Vec<&str> = list(cluster, "/DefaultAddrPool").iter().filter_map(Value::as_str).collect();
    line(out, 1, "Default Address Pool", &pools.join(" "));
    line(out, 1, "SubnetSize", &number(cluster, "/SubnetSize").to_string());
    line(out, 1, "Data Path Port", &number(cluster, "/DataPathPort").to_string());
    line(out, 1, "Orchestration", "");
    let limit = number(cluster, "/Spec/Orchestration/TaskHistoryRetentionLimit");
    line(out, 2, "Task History Retention Limit", &limit.to_string());
}

/// `Name: value`, indented by `depth` spaces as docker does; `Name:` where there is no value.
fn line(out: &mut String, depth: usize, name: &str, value: &str) {
    let space = if value.is_empty() { "" } else { " " };
    // Writing to a String can't fail.
    let _ = writeln!(out, "{:depth$}{name}:{space}{value}", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_shows_the_swarm_as_docker_does() {
        let info = json!({
            "Skep": {"DataCipher": "aes-256-gcm", "DataPathKey": "BwcH"},
            "ServerVersion": "28.2.2", "NCPU": 2, "MemTotal": 25_275_674_624u64, "Name": "node-1",
            "Swarm": {
                "NodeID": "82ow5r7j1e4sc7u1axaidc76z", "NodeAddr": "192.0.2.10", "LocalNodeState": "active",
                "ControlAvailable": true, "Error": "", "Nodes": 3, "Managers": 1,
                "RemoteManagers": [{"NodeID": "82ow5r7j1e4sc7u1axaidc76z", "Addr": "192.0.2.10:2377"}],
                "Cluster": {
                    "ID": "vg4myilzecnw2isp6anm8k8qn", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24,
                    "DataPathPort": 4789, "Spec": {"Orchestration": {"TaskHistoryRetentionLimit": 5}},
                },
            },
        });
        let text = info_text(&info);
        for expected in [
            "\nSwarm: active\n NodeID: 82ow5r7j1e4sc7u1axaidc76z\n Is Manager: true\n ClusterID: vg4myilzecnw2isp6anm8k8qn\n Managers: 1\n Nodes: 3\n Default Address Pool: 10.0.0.0/8\n SubnetSize: 24\n Data Path Port: 4789\n Orchestration:\n  Task History Retention Limit: 5\n",
            " Data Cipher: aes-256-gcm\n Data Path Key: BwcH\n Node Address: 192.0.2.10\n Manager Addresses:\n  192.0.2.10:2377\n",
            "\nTotal Memory: 23.54GiB\n",
        ] {
            assert!(text.contains(expected), "{expected}\nin\n{text}");
        }
        let out_of_it = info_text(&json!({"Swarm": {"LocalNodeState": "inactive", "RemoteManagers": null}}));
        assert!(out_of_it.contains("Swarm: inactive\nKernel"), "{out_of_it}");
    }
}
