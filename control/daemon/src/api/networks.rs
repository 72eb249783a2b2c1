//! `/networks`: the cluster's overlays, and this node's egress bridge.

use super::error::{ApiError, Result};
use super::extract::{Body, Params};
use super::filters::Filters;
use super::{App, render};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use skep_manager::api::{self, CreateNetwork, lookup};

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
    Ok(Json(render::network(lookup::network(&state, &reference)?)))
}

pub(crate) async fn create(
    State(node): App,
    Body(request): Body<CreateNetwork>,
) -> Result<(StatusCode, Json<Value>)> {
    let id = api::create_network(node.require_manager()?.db(), request)?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warning": "" }))))
}

pub(crate) async fn remove(State(node): App, Path(reference): Path<String>) -> Result<StatusCode> {
    if reference == render::GATEWAY_BRIDGE && node.gateway_bridge().is_some() {
        return Err(ApiError::bad_request(
            "docker_gwbridge is this node's way out; it goes when the node leaves",
        ));
    }
    api::remove_network(node.require_manager()?.db(), &reference)?;
    Ok(StatusCode::NO_CONTENT)
}
