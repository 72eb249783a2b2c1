//! `/networks`: the cluster's overlays, and this node's egress bridge.

use super::error::{ApiError, Result};
use super::extract::{Body, Params};
use super::filters::Filters;
use super::{App, render};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};
use skep_manager::api as manager_api;
use skep_model::network::NetworkSpec;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

#[derive(Deserialize)]
pub(crate) struct ListParams {
    filters: Option<String>,
}

const FILTERS: [&str; 7] = ["id", "name", "driver", "scope", "label", "type", "dangling"];

pub(crate) async fn list(State(node): App, Params(params): Params<ListParams>) -> Result<Json<Vec<Value>>> {
    let filters = Filters::parse(params.filters.as_deref(), &FILTERS)?;
    let bridge = node.gateway_bridge().map(render::gateway_bridge);
    let overlays: Vec<Value> = match node.manager() {
        Some(manager) => manager.db().state().networks.values().map(render::network).collect(),
        None => Vec::new(),
    };
    let text = |network: &Value, field: &str| network[field].as_str().unwrap_or_default().to_owned();
    let listed = bridge
        .into_iter()
        .chain(overlays)
        .filter(|n| filters.any("id", |id| text(n, "Id").starts_with(id)))
        .filter(|n| filters.any("name", |name| text(n, "Name").contains(name)))
        .filter(|n| filters.any("driver", |driver| text(n, "Driver") == driver))
        .filter(|n| filters.any("scope", |scope| text(n, "Scope") == scope))
        .filter(|n| filters.any("type", |kind| (kind == "builtin") == (text(n, "Scope") == "local")))
        .filter(|n| filters.labels(&serde_json::from_value(n["Labels"].clone()).unwrap_or_default()))
        .collect();
    Ok(Json(listed))
}

#[derive(Deserialize)]
pub(crate) struct InspectParams {
    scope: Option<String>,
}

pub(crate) async fn inspect(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<InspectParams>,
) -> Result<Json<Value>> {
    let swarm_only = params.scope.as_deref() == Some("swarm");
    if !swarm_only
        && reference == render::GATEWAY_BRIDGE
        && let Some(subnet) = node.gateway_bridge()
    {
        return Ok(Json(render::gateway_bridge(subnet)));
    }
    let Some(manager) = node.manager() else {
        return Err(ApiError::not_found(format!("network {reference} not found")));
    };
    let state = manager.db().state();
    Ok(Json(render::network(manager_api::find_network(&state, &reference)?)))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateBody {
    name: String,
    driver: Option<String>,
    scope: Option<String>,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: Option<Value>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: Option<String>,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<IpamConfig>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamConfig {
    subnet: Option<String>,
    #[serde(rename = "IPRange")]
    ip_range: Option<String>,
    gateway: Option<String>,
    auxiliary_addresses: Option<BTreeMap<String, String>>,
}

pub(crate) async fn create(State(node): App, Body(body): Body<CreateBody>) -> Result<(StatusCode, Json<Value>)> {
    let driver = body.driver.clone().filter(|driver| !driver.is_empty()).unwrap_or_else(|| "bridge".to_owned());
    if driver == "bridge" || driver == "macvlan" || driver == "ipvlan" {
        return Err(ApiError::not_yet(&format!("networks of driver '{driver}' (use --driver overlay)")));
    }
    let manager = node.require_manager()?;
    let spec = spec(body)?;
    let id = manager_api::create_network(manager.db(), &driver, spec)?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warning": "" }))))
}

fn spec(body: CreateBody) -> Result<NetworkSpec> {
    if body.config_only || body.config_from.is_some_and(|from| !from.is_null() && from["Network"] != "") {
        return Err(ApiError::not_yet("--config-only and --config-from"));
    }
    if body.enable_ipv6 == Some(true) {
        return Err(ApiError::not_yet("IPv6 in networks"));
    }
    if body.scope.is_some_and(|scope| !matches!(scope.as_str(), "" | "swarm")) {
        return Err(ApiError::bad_request("an overlay network is scoped to the swarm: leave --scope out"));
    }
    let (subnet, gateway) = addresses(body.ipam.unwrap_or_default())?;
    Ok(NetworkSpec {
        name: body.name,
        labels: body.labels.unwrap_or_default(),
        options: body.options.unwrap_or_default(),
        subnet,
        gateway,
        attachable: body.attachable,
        internal: body.internal,
        ingress: body.ingress,
    })
}

fn addresses(ipam: Ipam) -> Result<(Option<Ipv4Net>, Option<Ipv4Addr>)> {
    if ipam.driver.is_some_and(|driver| !matches!(driver.as_str(), "" | "default")) {
        return Err(ApiError::not_yet("--ipam-driver"));
    }
    if ipam.options.is_some_and(|options| !options.is_empty()) {
        return Err(ApiError::not_yet("--ipam-opt"));
    }
    let mut configs = ipam.config.unwrap_or_default();
    if configs.len() > 1 {
        return Err(ApiError::not_yet("several --subnet of one network"));
    }
    let Some(config) = configs.pop() else { return Ok((None, None)) };
    if config.ip_range.is_some_and(|range| !range.is_empty()) {
        return Err(ApiError::not_yet("--ip-range"));
    }
    if config.auxiliary_addresses.is_some_and(|addresses| !addresses.is_empty()) {
        return Err(ApiError::not_yet("--aux-address"));
    }
    let subnet = parse(config.subnet, "--subnet", "an IPv4 network like 10.1.2.0/24")?;
    let gateway = parse(config.gateway, "--gateway", "an IPv4 address")?;
    Ok((subnet, gateway))
}

fn parse<T: std::str::FromStr>(text: Option<String>, option: &str, expected: &str) -> Result<Option<T>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let refuse = |_| ApiError::bad_request(format!("invalid {option} '{text}': expected {expected}"));
    text.parse().map(Some).map_err(refuse)
}

pub(crate) async fn remove(State(node): App, Path(reference): Path<String>) -> Result<StatusCode> {
    if reference == render::GATEWAY_BRIDGE && node.gateway_bridge().is_some() {
        return Err(ApiError::bad_request("docker_gwbridge is this node's way out; it goes when the node leaves"));
    }
    manager_api::remove_network(node.require_manager()?.db(), &reference)?;
    Ok(StatusCode::NO_CONTENT)
}
