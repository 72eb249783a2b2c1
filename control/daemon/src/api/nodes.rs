//! `/nodes`.

use super::error::Result;
use super::extract::{Body, Params, object_version, truthy};
use super::filters::Filters;
use super::{App, data_path, render};
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;
use skep_manager::api::{self, UpdateNode, lookup};

#[derive(Deserialize)]
pub(crate) struct ListParams {
    filters: Option<String>,
}

const FILTERS: [&str; 6] = ["id", "label", "node.label", "membership", "name", "role"];

pub(crate) async fn list(State(node): App, Params(params): Params<ListParams>) -> Result<Json<Vec<Value>>> {
    let state = node.require_manager()?.db().state();
    let filters = Filters::parse(params.filters.as_deref(), &FILTERS)?;
    filters.one_of("role", &["manager", "worker"])?;
    filters.one_of("membership", &["accepted", "pending"])?;
    let nodes = state
        .nodes
        .values()
        .filter(|n| filters.any("id", |id| n.id.as_str().starts_with(id)))
        .filter(|n| filters.any("name", |name| n.description.hostname.starts_with(name)))
        .filter(|n| {
            filters.any("role", |role| role == if render::is_manager(n) { "manager" } else { "worker" })
        })
        .filter(|_| filters.any("membership", |membership| membership == "accepted"))
        .filter(|n| filters.labels(&n.spec.labels) && filters.labels_of("node.label", &n.spec.labels))
        .map(|n| render::node(n, state.cluster.as_ref()))
        .collect();
    Ok(Json(nodes))
}

pub(crate) async fn inspect(State(node): App, Path(reference): Path<String>) -> Result<Json<Value>> {
    let state = node.require_manager()?.db().state();
    let found = lookup::node(&state, &reference)?;
    let mut shown = render::node(found, state.cluster.as_ref());
    shown["DataPath"] = data_path::of_node(&node, &found.id).await;
    Ok(Json(shown))
}

#[derive(Deserialize)]
pub(crate) struct UpdateParams {
    version: Option<String>,
}

pub(crate) async fn update(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<UpdateParams>,
    Body(spec): Body<UpdateNode>,
) -> Result<()> {
    let manager = node.require_manager()?;
    let version = object_version("node", params.version.as_deref())?;
    Ok(api::update_node(manager.db(), &reference, version, spec)?)
}

#[derive(Deserialize)]
pub(crate) struct RemoveParams {
    force: Option<String>,
}

pub(crate) async fn remove(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<RemoveParams>,
) -> Result<()> {
    let manager = node.require_manager()?;
    Ok(api::remove_node(manager.db(), &reference, truthy(params.force.as_deref()))?)
}
