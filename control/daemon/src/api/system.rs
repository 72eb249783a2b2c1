//! Who answers: `/_ping`, `/version`, `/info`.

use super::{API_VERSION, App, MIN_API_VERSION, render};
use crate::node::{LocalState, Node};
use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use nix::sys::utsname::uname;
use serde_json::{Value, json};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Clients read the role from the `Swarm` header. `Builder-Version: 1` keeps `docker build` off BuildKit.
pub(crate) async fn ping(State(node): App) -> impl IntoResponse {
    let swarm = match (node.local_state(), node.manager()) {
        (LocalState::Active, Some(_)) => "active/manager",
        (LocalState::Active, None) => "active/worker",
        (state, _) => state.as_str(),
    };
    let headers = [
        (CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        ("builder-version", "1"),
        ("swarm", swarm),
    ];
    (headers, "OK")
}

pub(crate) async fn version() -> Json<Value> {
    let kernel = uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    Json(json!({
        "Platform": { "Name": "Skep" },
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": go_arch(),
        "KernelVersion": kernel,
        "Components": [{
            "Name": "Engine",
            "Version": VERSION,
            "Details": { "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "Os": "linux", "Arch": go_arch() },
        }],
    }))
}

/// Docker names architectures as Go does.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) async fn info(State(node): App) -> Json<Value> {
    let system = uname();
    let system = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        system.as_ref().map(|u| part(u).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let description = node.description();
    Json(json!({
        "ID": node.node_id().map(|id| id.0).unwrap_or_default(),
        "Name": description.hostname,
        "ServerVersion": VERSION,
        "OSType": "linux",
        "OperatingSystem": "Linux",
        "Architecture": description.platform.architecture,
        "KernelVersion": system(|u| u.release()),
        "NCPU": description.resources.nano_cpus / 1_000_000_000,
        "MemTotal": description.resources.memory_bytes,
        "DockerRootDir": node.config().state_dir,
        "Driver": "host",
        "Plugins": { "Network": ["overlay"], "Volume": [], "Log": [] },
        "Swarm": swarm_info(&node),
        "Skep": skep_info(&node),
        "Warnings": warnings(&node),
    }))
}

/// What Docker has no words for: how this node seals what it sends, and who it is to its peers. Null: it is no member.
fn skep_info(node: &Node) -> Value {
    let data_path = node.agent().data_path();
    data_path.map_or(Value::Null, |(cipher, key)| json!({ "DataCipher": cipher, "DataPathKey": key }))
}

/// Null where there are none, as Docker has it.
fn warnings(node: &Node) -> Value {
    Some(node.warnings()).filter(|warnings| !warnings.is_empty()).map_or(Value::Null, Value::from)
}

fn swarm_info(node: &Node) -> Value {
    let state = node.manager().map(|manager| manager.db().state());
    let managers: Vec<Value> = node
        .remote_managers()
        .into_iter()
        .map(
            |(id, addr)| json!({ "NodeID": id.map(|id| id.0).unwrap_or_default(), "Addr": addr.to_string() }),
        )
        .collect();
    let mut info = json!({
        "NodeID": node.node_id().map(|id| id.0).unwrap_or_default(),
        "NodeAddr": node.node_addr().map(|addr| addr.to_string()).unwrap_or_default(),
        "LocalNodeState": node.local_state().as_str(),
        "ControlAvailable": state.is_some(),
        "Error": node.last_error().unwrap_or_default(),
        "RemoteManagers": if managers.is_empty() { Value::Null } else { Value::Array(managers) },
    });
    if let Some(state) = state {
        info["Nodes"] = json!(state.nodes.len());
        info["Managers"] = json!(state.nodes.values().filter(|n| render::is_manager(n)).count());
        info["Cluster"] = state.cluster.as_ref().map(render::cluster_info).unwrap_or_default();
    }
    info
}
