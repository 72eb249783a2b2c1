//! `/services`.

use super::error::{ApiError, Result};
use super::extract::{Body, Params, object_version, truthy};
use super::filters::Filters;
use super::{App, render};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use skep_manager::api::{self, lookup};
use skep_model::service::ServiceSpec;

#[derive(Deserialize)]
pub(crate) struct ListParams {
    filters: Option<String>,
    status: Option<String>,
}

const FILTERS: [&str; 5] = ["id", "label", "mode", "name", "runtime"];

pub(crate) async fn list(State(node): App, Params(params): Params<ListParams>) -> Result<Json<Vec<Value>>> {
    let state = node.require_manager()?.db().state();
    let filters = Filters::parse(params.filters.as_deref(), &FILTERS)?;
    filters.one_of("mode", &["replicated", "global", "replicated-job", "global-job"])?;
    let with_status = truthy(params.status.as_deref());
    let services = state
        .services
        .values()
        .filter(|s| filters.any("id", |id| s.id.as_str().starts_with(id)))
        .filter(|s| filters.any("name", |name| s.spec.name.starts_with(name)))
        .filter(|s| filters.any("mode", |mode| (mode == "global") == s.spec.mode.is_global()))
        .filter(|_| filters.any("runtime", |runtime| runtime == "container"))
        .filter(|s| filters.labels(&s.spec.labels))
        .map(|s| {
            let mut service = render::service(s, false);
            if with_status {
                service["ServiceStatus"] = render::service_status(s, &state);
            }
            service
        })
        .collect();
    Ok(Json(services))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InspectParams {
    insert_defaults: Option<String>,
}

pub(crate) async fn inspect(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<InspectParams>,
) -> Result<Json<Value>> {
    let state = node.require_manager()?.db().state();
    let service = lookup::service(&state, &reference)?;
    Ok(Json(render::service(service, truthy(params.insert_defaults.as_deref()))))
}

pub(crate) async fn create(
    State(node): App,
    Body(spec): Body<ServiceSpec>,
) -> Result<(StatusCode, Json<Value>)> {
    let id = api::create_service(node.require_manager()?.db(), &spec)?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id, "Warnings": null }))))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateParams {
    version: Option<String>,
    rollback: Option<String>,
}

pub(crate) async fn update(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<UpdateParams>,
    Body(spec): Body<ServiceSpec>,
) -> Result<Json<Value>> {
    let manager = node.require_manager()?;
    if params.rollback.is_some_and(|rollback| !rollback.is_empty()) {
        return Err(ApiError::not_yet("service rollback"));
    }
    let version = object_version("service", params.version.as_deref())?;
    api::update_service(manager.db(), &reference, version, &spec)?;
    Ok(Json(json!({ "Warnings": null })))
}

pub(crate) async fn remove(State(node): App, Path(reference): Path<String>) -> Result<()> {
    api::remove_service(node.require_manager()?.db(), &reference)?;
    Ok(())
}
