//! Membership: `/swarm`, init, join, leave.

use super::error::{ApiError, Result};
use super::extract::{Body, Params, object_version, truthy};
use super::{App, render};
use crate::node::{InitRequest, JoinRequest};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use skep_manager::api::{self, Rotate};
use skep_model::cluster::ClusterSpec;
use skep_model::node::Availability;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct InitBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    data_path_port: u32,
    /// Skep's own: the cipher of sealed frames.
    data_cipher: String,
    force_new_cluster: bool,
    auto_lock_managers: bool,
    availability: Option<String>,
    default_addr_pool: Option<Vec<String>>,
    subnet_size: u32,
    spec: ClusterSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct JoinBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    remote_addrs: Option<Vec<String>>,
    join_token: String,
    availability: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct LeaveParams {
    force: Option<String>,
}

pub(crate) async fn inspect(State(node): App) -> Result<Json<Value>> {
    let state = node.require_manager()?.db().state();
    let cluster =
        state.cluster.as_ref().ok_or_else(|| ApiError::unavailable("the cluster object is missing"))?;
    Ok(Json(render::swarm(cluster)))
}

pub(crate) async fn init(State(node): App, Body(body): Body<InitBody>) -> Result<Json<String>> {
    if body.force_new_cluster {
        return Err(ApiError::not_yet("--force-new-cluster"));
    }
    if body.auto_lock_managers {
        return Err(ApiError::not_yet("--autolock"));
    }
    api::check_cluster_spec(&body.spec)?;
    let request = InitRequest {
        listen: body.listen_addr,
        advertise: body.advertise_addr,
        data_path_addr: body.data_path_addr,
        data_path_port: body.data_path_port,
        data_cipher: body.data_cipher,
        availability: availability(body.availability.as_deref())?,
        default_addr_pool: body.default_addr_pool.unwrap_or_default(),
        subnet_size: body.subnet_size,
        spec: body.spec,
    };
    let id = uncancelled(async move { node.init(request).await }).await?;
    Ok(Json(id.0))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateParams {
    version: Option<String>,
    rotate_worker_token: Option<String>,
    rotate_manager_token: Option<String>,
    rotate_manager_unlock_key: Option<String>,
}

pub(crate) async fn update(
    State(node): App,
    Params(params): Params<UpdateParams>,
    Body(spec): Body<ClusterSpec>,
) -> Result<()> {
    let manager = node.require_manager()?;
    let version = object_version("swarm", params.version.as_deref())?;
    if truthy(params.rotate_manager_unlock_key.as_deref()) {
        return Err(ApiError::not_yet("locking managers"));
    }
    let rotate = Rotate {
        worker: truthy(params.rotate_worker_token.as_deref()),
        manager: truthy(params.rotate_manager_token.as_deref()),
    };
    api::update_cluster(manager.db(), manager.root_ca_der(), version, &spec, rotate)?;
    Ok(())
}

pub(crate) async fn join(State(node): App, Body(body): Body<JoinBody>) -> Result<()> {
    let request = JoinRequest {
        listen: body.listen_addr,
        advertise: body.advertise_addr,
        data_path_addr: body.data_path_addr,
        managers: body.remote_addrs.unwrap_or_default(),
        token: body.join_token,
        availability: availability(body.availability.as_deref())?,
    };
    uncancelled(async move { node.join(request).await }).await
}

pub(crate) async fn leave(State(node): App, Params(params): Params<LeaveParams>) -> Result<()> {
    let force = truthy(params.force.as_deref());
    uncancelled(async move { node.leave(force).await }).await
}

/// Runs to its end also when the client hangs up (Ctrl-C in the middle leaves nothing half-made).
async fn uncancelled<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(ApiError::internal)?
}

fn availability(text: Option<&str>) -> Result<Availability> {
    match text.unwrap_or_default() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(ApiError::bad_request(format!(
            "invalid availability '{other}': only 'active', 'pause' and 'drain' exist"
        ))),
    }
}
