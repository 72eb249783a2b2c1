//! HTTP/1.1 on the daemon's unix socket, one connection a request.

use std::io;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// The version of Docker's API whose shapes this client speaks.
pub(crate) const API_VERSION: &str = "1.44";

/// The largest answer that is read whole. A listing of 100,000 tasks is about that size; a daemon that sends more is
/// broken.
const MAX_ANSWER: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Error response from daemon: {message}")]
    Daemon { status: StatusCode, message: String },
    #[error(
        "Cannot connect to the Skep daemon at unix://{0}: there is no such socket. Is skepd running? Start it as root, or name its socket with -H unix://PATH or SKEP_HOST."
    )]
    NoSocket(String),
    #[error(
        "Cannot connect to the Skep daemon at unix://{0}: the socket is there, but nobody listens. Start skepd as root."
    )]
    NobodyListens(String),
    #[error(
        "permission denied on the Skep daemon's socket {0}: run this as root, or as a user who may write to it"
    )]
    PermissionDenied(String),
    #[error("Cannot connect to the Skep daemon at unix://{0}: {1}")]
    Connect(String, io::Error),
    #[error("the Skep daemon broke off: {0}. Its log says why.")]
    BrokeOff(#[from] hyper::Error),
    #[error("the request can't be built: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("what answers on the socket is not a Skep daemon: {0}")]
    NotOurs(String),
    #[error("-H {0}: only unix sockets are there, as in -H unix:///run/skep/skep.sock")]
    Scheme(String),
}

impl Error {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Daemon { status: StatusCode::NOT_FOUND, .. })
    }

    /// Another state of the object forbids it.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Daemon { status: StatusCode::CONFLICT, .. })
    }
}

pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// `host`: `unix://PATH`.
    pub(crate) fn new(host: &str) -> Result<Self, Error> {
        match host.strip_prefix("unix://") {
            Some(path) if !path.is_empty() => Ok(Self { socket: path.into() }),
            _ => Err(Error::Scheme(host.to_owned())),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.json(Method::GET, path, None).await
    }

    /// Null where the daemon answers without a body.
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        self.json(Method::POST, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        self.json(Method::DELETE, path, None).await.map(drop)
    }

    /// An answer whose body comes bit by bit.
    pub(crate) async fn stream(&self, method: Method, path: &str) -> Result<Response<Incoming>, Error> {
        self.send(request(method, path).body(Full::default())?).await
    }

    /// Takes the connection over after the daemon's `101`: what is read and written then is the container's.
    pub(crate) async fn hijack(&self, path: &str) -> Result<TokioIo<Upgraded>, Error> {
        let request = request(Method::POST, path).header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        let response = self.send(request.body(Full::default())?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::NotOurs(format!("{path} answered {} instead of 101", response.status())));
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let request = match body {
            Some(body) => request(method, path)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::from(body.to_string()))?,
            None => request(method, path).body(Full::default())?,
        };
        let bytes = whole(self.send(request).await?).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::NotOurs(format!("{path} answered no JSON: {error}")))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer; its errors come out of the answer's body.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let message = message_of(status, &whole(response).await?);
            return Err(Error::Daemon { status, message });
        }
        Ok(response)
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let socket = self.socket.display().to_string();
        match error.kind() {
            io::ErrorKind::NotFound => Error::NoSocket(socket),
            io::ErrorKind::ConnectionRefused => Error::NobodyListens(socket),
            io::ErrorKind::PermissionDenied => Error::PermissionDenied(socket),
            _ => Error::Connect(socket, error),
        }
    }
}

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    // Skep's own verbs have no version of Docker's.
    let uri = if path.starts_with("/skep/") { path.to_owned() } else { format!("/v{API_VERSION}{path}") };
    Request::builder().method(method).uri(uri).header(HOST, "skep")
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Error> {
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > MAX_ANSWER {
            return Err(Error::NotOurs(format!("an answer of more than {MAX_ANSWER} bytes")));
        }
    }
    Ok(bytes.freeze())
}

fn message_of(status: StatusCode, body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = match json.as_ref().and_then(|json| json.get("message")).and_then(Value::as_str) {
        Some(message) => message.trim().to_owned(),
        None if body.is_empty() => status.to_string(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    // Where the daemon uses Docker's own words, which scripts match, the advice should still work as typed.
    message.replace("\"docker swarm ", "\"skep swarm ")
}
