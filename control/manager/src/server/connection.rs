//! One TCP connection: TLS, HTTP/2, and which request goes where.

use super::join::{self, JoinError};
use super::renew::{self, RenewError};
use super::reports::Origin;
use super::session::{self, Admission};
use super::{ManagerCore, reports};
use crate::tls::Shown;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_model::join::{
    CA_PATH, DATA_PATH_PORT, JOIN_PATH, JoinRequest, RENEW_PATH, Refusal, RenewRequest, SESSION_PATH,
};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A connection that is no session is over after this: joining takes two short requests.
const STRANGER_LIMIT: Duration = Duration::from_secs(20);
/// Time to take in the answer once a session has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// A token, a request of about 500 bytes and a host name.
const MAX_JOIN_BYTES: usize = 64 << 10;
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// One session; joining sends one request at a time.
const MAX_STREAMS: u32 = 4;

/// What the connection is used for. It only moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    Stranger,
    Session,
    Over,
}

/// What a request may know of its connection.
struct Caller {
    peer: SocketAddr,
    /// What a certificate of this cluster says, if one was shown.
    shown: Option<Shown>,
    phase: watch::Sender<Phase>,
}

pub(super) async fn serve(
    core: Arc<ManagerCore>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Arc<ServerConfig>,
    permit: OwnedSemaphorePermit,
) {
    // Lines are small and somebody waits for each; a failure only makes them slower.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => serve_http(core, stream, peer, permit).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_elapsed) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn serve_http(
    core: Arc<ManagerCore>,
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let (phase, mut phases) = watch::channel(Phase::Stranger);
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = Arc::new(Caller { peer, shown: certificate.and_then(Shown::by), phase });
    let service = service_fn(|request| {
        let (core, caller) = (core.clone(), caller.clone());
        async move { Ok::<_, Infallible>(answer(&core, &caller, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut permit = Some(permit);
    let mut deadline = Some(Instant::now() + STRANGER_LIMIT);
    loop {
        let expiry = async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut connection => return log_end(peer, ended),
            () = expiry => return tracing::debug!(%peer, "connection closed: idle"),
            Ok(()) = phases.changed() => {}
        }
        match *phases.borrow_and_update() {
            Phase::Stranger => {}
            Phase::Session => {
                deadline = None;
                drop(permit.take());
            }
            Phase::Over => {
                deadline = Some(Instant::now() + DRAIN_LIMIT);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn log_end(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn answer(core: &Arc<ManagerCore>, caller: &Arc<Caller>, request: Request<Incoming>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, CA_PATH) => answer_ca(core),
        (&Method::POST, JOIN_PATH) => answer_join(core, caller.peer, request).await,
        (&Method::POST, RENEW_PATH) => answer_renew(core, caller, request).await,
        (&Method::POST, SESSION_PATH) => answer_session(core, caller, request),
        (_, path) => refusal(StatusCode::NOT_FOUND, format!("there is no {path} on a manager's port")),
    }
}

fn answer_ca(core: &ManagerCore) -> Response<Body> {
    let mut response = body(StatusCode::OK, core.authority.root_pem().to_owned());
    if let Some(cluster) = &core.db.state().cluster {
        response.headers_mut().insert(DATA_PATH_PORT, cluster.data_path_port.into());
    }
    response
}

async fn answer_join(
    core: &Arc<ManagerCore>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let from = peer.ip().to_canonical();
    if !core.admits_join(from) {
        let error = JoinError::TooOften(from);
        tracing::warn!(%peer, %error, "a node was not let in");
        return refusal(error.status(), error.to_string());
    }
    let request: JoinRequest = match read(request, "join").await {
        Ok(request) => request,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, why),
    };
    let core = core.clone();
    let joined = tokio::task::spawn_blocking(move || join::join(&core, &request, from)).await;
    match joined {
        Ok(Ok(response)) => {
            tracing::info!(node = %response.node_id, %peer, "a node joined");
            json(StatusCode::OK, &response)
        }
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "a node was not let in");
            refusal(error.status(), error.to_string())
        }
        Err(panic) => {
            let error = JoinError::Store(panic.to_string());
            refusal(error.status(), error.to_string())
        }
    }
}

async fn answer_renew(
    core: &Arc<ManagerCore>,
    caller: &Arc<Caller>,
    request: Request<Incoming>,
) -> Response<Body> {
    let from = caller.peer.ip().to_canonical();
    let refuse = |error: RenewError| {
        tracing::warn!(%from, %error, "a certificate was not renewed");
        refusal(error.status(), error.to_string())
    };
    let Some(shown) = caller.shown.clone() else { return refuse(RenewError::Stranger) };
    if !core.admits_join(from) {
        return refuse(RenewError::TooOften(from));
    }
    let request: RenewRequest = match read(request, "renewal").await {
        Ok(request) => request,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, why),
    };
    let core = core.clone();
    let renewed =
        tokio::task::spawn_blocking(move || (renew::renew(&core, &shown, &request), shown.node)).await;
    match renewed {
        Ok((Ok(response), node)) => {
            tracing::info!(%node, "a node's certificate was renewed");
            json(StatusCode::OK, &response)
        }
        Ok((Err(error), _)) => refuse(error),
        Err(panic) => refuse(RenewError::Store(panic.to_string())),
    }
}

/// The request's body; the error is a sentence for the sender.
async fn read<T: DeserializeOwned>(request: Request<Incoming>, what: &str) -> Result<T, String> {
    let collected = Limited::new(request.into_body(), MAX_JOIN_BYTES).collect().await;
    let bytes = collected.map_err(|error| format!("the {what} request broke off: {error}"))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| format!("not a {what} request: {error}"))
}

fn answer_session(
    core: &Arc<ManagerCore>,
    caller: &Arc<Caller>,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(Shown { node, data_path_key }) = caller.shown.clone() else {
        return refusal(
            StatusCode::UNAUTHORIZED,
            "a session needs a node certificate of this cluster: join first".to_owned(),
        );
    };
    if !core.db.state().nodes.contains_key(&node) {
        return refusal(StatusCode::FORBIDDEN, reports::NodeRemoved.to_string());
    }
    let data_path_key = match data_path_key {
        Ok(key) => key,
        Err(error) => return refusal(StatusCode::FORBIDDEN, reports::NoKey(error).to_string()),
    };
    // Again at its Hello; here is where the node hears why.
    if let Err(taken) = reports::free_key(&core.db.state(), Some(&node), data_path_key) {
        tracing::warn!(%node, %taken, "a session was refused");
        return refusal(StatusCode::CONFLICT, taken.to_string());
    }
    if *caller.phase.borrow() != Phase::Stranger {
        return refusal(StatusCode::CONFLICT, "this connection already has a session".to_owned());
    }
    caller.phase.send_replace(Phase::Session);
    let origin = Origin { addr: caller.peer.ip().to_canonical(), data_path_key };
    let admission = Admission { node, origin };
    let (session, outbound) = session::open(core.clone(), admission, request.into_body());
    let caller = caller.clone();
    tokio::spawn(async move {
        session.await;
        caller.phase.send_replace(Phase::Over);
    });
    Response::new(outbound)
}

fn refusal(status: StatusCode, message: String) -> Response<Body> {
    json(status, &Refusal { message })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    body(status, serde_json::to_string(value).expect("the model's objects serialize without failing"))
}

fn body(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response
}
