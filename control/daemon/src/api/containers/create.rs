//! `/containers/create`: what is asked for, checked field by field.

use super::grace;
use crate::api::App;
use crate::api::error::{ApiError, Result};
use crate::api::extract::{Body, Params};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use skep_agent::containers::{ContainerConfig, ContainerNetwork, TerminalSize};
use skep_model::service::DEFAULT_STOP_GRACE;
use skep_model::signal::Signal;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateBody {
    image: String,
    hostname: String,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    tty: bool,
    working_dir: String,
    user: String,
    stop_signal: String,
    /// Seconds.
    stop_timeout: Option<i64>,
    healthcheck: Option<Value>,
    host_config: Option<HostConfig>,
    networking_config: Option<NetworkingConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
    auto_remove: bool,
    privileged: bool,
    binds: Option<Vec<String>>,
    mounts: Option<Vec<Value>>,
    port_bindings: Option<Map<String, Value>>,
    publish_all_ports: bool,
    memory: i64,
    nano_cpus: i64,
    cap_add: Option<Vec<String>>,
    cap_drop: Option<Vec<String>>,
    init: Option<bool>,
    readonly_rootfs: bool,
    restart_policy: Option<RestartPolicy>,
    /// Rows and columns of the client's terminal.
    console_size: Option<[u16; 2]>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RestartPolicy {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkingConfig {
    endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct EndpointSettings {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<EndpointIpam>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct EndpointIpam {
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
}

#[derive(Deserialize)]
pub(crate) struct CreateParams {
    name: Option<String>,
}

pub(crate) async fn create(
    State(node): App,
    Params(params): Params<CreateParams>,
    Body(body): Body<CreateBody>,
) -> Result<(StatusCode, Json<Value>)> {
    let config = config(params.name.unwrap_or_default(), body)?;
    let id = node.agent().containers().create(config).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warnings": [] }))))
}

fn config(name: String, body: CreateBody) -> Result<ContainerConfig> {
    let host = body.host_config.unwrap_or_default();
    refuse_what_is_not_there(&host)?;
    refuse_healthcheck(body.healthcheck.as_ref())?;
    let [rows, columns] = host.console_size.unwrap_or_default();
    let networks = networks(&host, body.networking_config.unwrap_or_default())?;
    let args = body.entrypoint.into_iter().flatten().chain(body.cmd.into_iter().flatten()).collect();
    Ok(ContainerConfig {
        name,
        image: body.image,
        args,
        env: body.env.unwrap_or_default(),
        hostname: body.hostname,
        networks,
        dir: working_dir(body.working_dir)?,
        user: body.user,
        terminal: body.tty.then_some(TerminalSize { rows, columns }),
        stop_signal: match body.stop_signal.as_str() {
            "" => Signal::TERM,
            text => text.parse().map_err(ApiError::bad_request)?,
        },
        stop_grace: body.stop_timeout.map_or(DEFAULT_STOP_GRACE, grace),
        auto_remove: host.auto_remove,
    })
}

fn working_dir(dir: String) -> Result<String> {
    match dir.is_empty() || dir.starts_with('/') && !dir.contains('\0') {
        true => Ok(dir),
        false => Err(ApiError::bad_request(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        ))),
    }
}

/// `--no-healthcheck` asks for what happens anyway.
fn refuse_healthcheck(check: Option<&Value>) -> Result<()> {
    let test = check.and_then(|check| check.get("Test")).and_then(Value::as_array);
    match test.and_then(|test| test.first()).is_none_or(|kind| kind == "NONE") {
        true => Ok(()),
        false => Err(ApiError::not_yet("--health-cmd")),
    }
}

fn refuse_what_is_not_there(host: &HostConfig) -> Result<()> {
    let asked = [
        (host.privileged, "--privileged"),
        (host.binds.as_ref().is_some_and(|binds| !binds.is_empty()), "--volume"),
        (host.mounts.as_ref().is_some_and(|mounts| !mounts.is_empty()), "--mount"),
        (
            host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()),
            "--publish of a single container",
        ),
        (host.publish_all_ports, "--publish-all"),
        (host.memory != 0, "--memory"),
        (host.nano_cpus != 0, "--cpus"),
        (host.cap_add.as_ref().is_some_and(|caps| !caps.is_empty()), "--cap-add"),
        (host.cap_drop.as_ref().is_some_and(|caps| !caps.is_empty()), "--cap-drop"),
        (host.init == Some(true), "--init"),
        (
            host.readonly_rootfs,
            "--read-only (the host's files are; /tmp, /run and the working directory are not)",
        ),
        (
            host.restart_policy.as_ref().is_some_and(|policy| !matches!(policy.name.as_str(), "" | "no")),
            "--restart of a single container (a service restarts its tasks)",
        ),
    ];
    match asked.into_iter().find(|(asked, _)| *asked) {
        Some((_, option)) => Err(ApiError::not_yet(option)),
        None => Ok(()),
    }
}

/// The mode names the first network; others and fixed addresses come in `EndpointsConfig`.
fn networks(host: &HostConfig, config: NetworkingConfig) -> Result<Vec<ContainerNetwork>> {
    let mut endpoints = config.endpoints_config.unwrap_or_default();
    let mut networks = Vec::new();
    match host.network_mode.as_str() {
        "" | "default" | "bridge" | "none" => {}
        "host" => return Err(ApiError::not_yet("--network host")),
        mode if mode.starts_with("container:") => return Err(ApiError::not_yet("--network container:…")),
        mode => {
            let settings = endpoints.remove(mode).flatten();
            networks.push(network(mode.to_owned(), settings)?);
        }
    }
    // The stock CLI names the mode among the endpoints, too.
    for (name, settings) in endpoints.into_iter().filter(|(name, _)| name != &host.network_mode) {
        networks.push(network(name, settings)?);
    }
    match networks.is_empty() {
        true => Err(ApiError::bad_request(
            "which network? Name an attachable one with --network: a container without one isn't there yet",
        )),
        false => Ok(networks),
    }
}

fn network(network: String, settings: Option<EndpointSettings>) -> Result<ContainerNetwork> {
    let addr =
        settings.and_then(|settings| settings.ipam_config).map(|ipam| ipam.ipv4_address).unwrap_or_default();
    let addr = match addr.as_str() {
        "" => None,
        text => Some(text.parse::<Ipv4Addr>().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid address '{text}' on network {network}: expected an IPv4 address"
            ))
        })?),
    };
    Ok(ContainerNetwork { network, addr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_are_those_of_mode_and_endpoints() {
        let asked = |mode: &str, endpoints: Value| {
            let host = HostConfig { network_mode: mode.to_owned(), ..HostConfig::default() };
            let config = serde_json::from_value(json!({ "EndpointsConfig": endpoints })).unwrap();
            let networks = networks(&host, config).map_err(|_refused| ())?;
            Ok::<_, ()>(networks.into_iter().map(|network| network.network).collect::<Vec<_>>())
        };
        assert_eq!(asked("front", json!({ "front": {}, "back": null })).unwrap(), ["front", "back"]);
        assert!(asked("default", json!({ "default": {} })).is_err());
        assert!(asked("bridge", json!({})).is_err());
    }
}
