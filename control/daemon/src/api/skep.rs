//! What Docker's API has no words for: namespaces put on networks by hand, why packets were dropped, and
//! what is seen of the data path.

use super::error::{ApiError, Result};
use super::extract::Body;
use super::{App, data_path};
use crate::metrics;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use skep_agent::{AttachError, AttachOptions, DetachError, DetachTarget};
use std::net::Ipv4Addr;
use std::path::PathBuf;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AttachBody {
    network: String,
    netns: PathBuf,
    name: String,
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DetachBody {
    id: String,
    network: String,
    netns: PathBuf,
}

pub(crate) async fn attach(State(node): App, Body(body): Body<AttachBody>) -> Result<Json<Value>> {
    if body.network.is_empty() || body.netns.as_os_str().is_empty() {
        return Err(ApiError::bad_request(
            "attach needs a Network and a Netns (the path of a network namespace)",
        ));
    }
    let ip = match body.ip.as_str() {
        "" => None,
        text => Some(text.parse::<Ipv4Addr>().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid address '{text}': expected an IPv4 address of the network"
            ))
        })?),
    };
    let options = AttachOptions { network: body.network, netns: body.netns, name: body.name, ip };
    let attached = node.agent().attach(options).await?;
    Ok(Json(json!({
        "Id": attached.id,
        "Name": attached.name,
        "Network": attached.network,
        "Netns": attached.netns,
        "Address": attached.address,
        "Interface": attached.interface,
    })))
}

pub(crate) async fn detach(State(node): App, Body(body): Body<DetachBody>) -> Result<StatusCode> {
    let target = match body.id.as_str() {
        "" if body.network.is_empty() || body.netns.as_os_str().is_empty() => {
            return Err(ApiError::bad_request("detach needs an Id, or a Network and a Netns"));
        }
        "" => DetachTarget::Netns { netns: body.netns, network: body.network },
        id => DetachTarget::Id(id.into()),
    };
    node.agent().detach(target).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why this node dropped what, and how often.
pub(crate) async fn drops(State(node): App) -> Result<Json<Value>> {
    let drops = node.drops().await.ok_or_else(no_member)?;
    let counts = drops.into_iter().map(|(reason, count)| (reason, json!(count)));
    Ok(Json(counts.collect::<serde_json::Map<_, _>>().into()))
}

/// Every peer this node shares a network with: its session, and whether it answers on the data path.
pub(crate) async fn paths(State(node): App) -> Result<Json<Vec<Value>>> {
    Ok(Json(data_path::paths(&node).await.ok_or_else(no_member)?))
}

/// The same as `skepd --metrics-addr` serves, for who is let in here.
pub(crate) async fn metrics(State(node): App) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&node).await)
}

fn no_member() -> ApiError {
    ApiError::unavailable("This node is not part of a swarm")
}

impl From<AttachError> for ApiError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NotAMember => Self::unavailable(error),
            error => Self::bad_request(error),
        }
    }
}

impl From<DetachError> for ApiError {
    fn from(error: DetachError) -> Self {
        match error {
            DetachError::NotAMember => Self::unavailable(error),
            DetachError::Unknown(_) => Self::not_found(error),
        }
    }
}
