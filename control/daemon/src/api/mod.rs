//! Docker's Engine API, its swarm part, on a unix socket. The stock `docker` CLI and `skep` both speak it.
//!
//! Paths may carry any `/v1.N` prefix or none: clients newer than what we announce are not refused.

mod connections;
mod containers;
mod data_path;
pub(crate) mod error;
mod extract;
mod filters;
mod logs;
mod networks;
mod nodes;
mod render;
mod services;
mod skep;
mod stream;
mod swarm;
mod system;
mod tasks;

pub(crate) use error::{ALREADY_A_MEMBER, NOT_A_MANAGER, NOT_IN_SWARM};

use crate::node::Node;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, delete, get, post};
use error::ApiError;
use std::sync::Arc;
use tokio::net::UnixListener;
use tower::util::MapRequest;

/// What we announce; clients negotiate down to it.
const API_VERSION: &str = "1.44";
const MIN_API_VERSION: &str = "1.24";

type App = State<Arc<Node>>;

/// Serves the API until `stopped` resolves, then until its connections have ended.
pub(crate) async fn serve(listener: UnixListener, node: Arc<Node>, stopped: impl Future<Output = ()>) {
    let app: connections::App = MapRequest::new(router(node), strip_version);
    connections::serve(listener, app, stopped).await;
}

fn router(node: Arc<Node>) -> Router {
    Router::new()
        .merge(system_routes())
        .merge(cluster_routes())
        .merge(local_routes())
        .merge(later_routes())
        .fallback(|| async { ApiError::not_found("page not found") })
        .layer(middleware::from_fn(announce))
        .with_state(node)
}

fn system_routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
}

fn cluster_routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/swarm", get(swarm::inspect))
        .route("/swarm/init", post(swarm::init))
        .route("/swarm/join", post(swarm::join))
        .route("/swarm/leave", post(swarm::leave))
        .route("/swarm/update", post(swarm::update))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route("/services/{id}", get(services::inspect).delete(services::remove))
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(logs::of_service))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/tasks/{id}/logs", get(logs::of_task))
}

fn local_routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/attach", post(containers::attach))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/logs", get(logs::of_container))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/skep/attach", post(skep::attach))
        .route("/skep/detach", post(skep::detach))
        .route("/skep/drops", get(skep::drops))
        .route("/skep/metrics", get(skep::metrics))
        .route("/skep/paths", get(skep::paths))
}

/// Endpoints Docker's tools ask for that a later release brings. The CLI goes on without `/distribution`.
fn later_routes() -> Router<Arc<Node>> {
    let later = |what: &'static str| any(move || async move { ApiError::not_yet(what) });
    Router::new()
        .route("/secrets", later("secrets"))
        .route("/secrets/{*rest}", later("secrets"))
        .route("/configs", later("configs"))
        .route("/configs/{*rest}", later("configs"))
        .route("/swarm/unlockkey", later("locking managers"))
        .route("/swarm/unlock", later("locking managers"))
        .route("/events", later("events"))
        .route("/images/{*rest}", later("images (the only one is \"host\": commands of the host itself)"))
        .route(
            "/networks/{id}/connect",
            later("network connect (`skep attach` puts a namespace on a network)"),
        )
        .route(
            "/networks/{id}/disconnect",
            later("network disconnect (`skep detach` takes a namespace off a network)"),
        )
        .route("/volumes", later("volumes"))
        .route("/volumes/{*rest}", later("volumes"))
        .route("/exec/{*rest}", later("exec"))
        .route(
            "/distribution/{*rest}",
            any(|| async { ApiError::not_found("Skep asks no registry: the only image is \"host\"") }),
        )
}

/// Drops a leading `/v1.N`.
fn strip_version(mut request: Request) -> Request {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Some(rest) = without_version(path)
        && let Ok(uri) = rest.parse::<Uri>()
    {
        *request.uri_mut() = uri;
    }
    request
}

fn without_version(path: &str) -> Option<&str> {
    let after = path.strip_prefix("/v1.")?;
    let slash = after.find('/')?;
    let (minor, rest) = after.split_at(slash);
    (!minor.is_empty() && minor.bytes().all(|c| c.is_ascii_digit())).then_some(rest)
}

/// Headers dockerd puts on every answer; clients negotiate by them.
async fn announce(request: Request, next: Next) -> Response {
    const HEADERS: [(&str, &str); 4] = [
        ("api-version", API_VERSION),
        ("ostype", "linux"),
        ("docker-experimental", "false"),
        ("server", concat!("Skep/", env!("CARGO_PKG_VERSION"), " (linux)")),
    ];
    let mut response = error::in_shape(next.run(request).await).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::without_version;

    #[test]
    fn any_minor_version_is_accepted_and_nothing_else_is_cut() {
        assert_eq!(without_version("/v1.44/info"), Some("/info"));
        assert_eq!(without_version("/v1.99/services?status=true"), Some("/services?status=true"));
        assert_eq!(without_version("/info"), None);
        assert_eq!(without_version("/v2.0/info"), None);
        assert_eq!(without_version("/v1.x/info"), None);
    }
}
