//! `/containers`: the few endpoints `run` needs. The only image is `host`, a command of this host.

mod create;

pub(crate) use create::create;

use super::App;
use super::error::{ApiError, Result};
use super::extract::{Params, truthy};
use super::stream;
use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use axum::http::{StatusCode, response};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use skep_agent::containers::{ContainerError, ContainerInfo, ContainerState, ContainerStreams, TerminalSize};
use skep_model::signal::Signal;
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink, split};

pub(crate) async fn start(State(node): App, Path(id): Path<String>) -> Result<StatusCode> {
    node.agent().containers().start(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(crate) struct AttachParams {
    stdin: Option<String>,
    stream: Option<String>,
}

/// Hijacks the connection: `101 UPGRADED`, then raw input one way and multiplexed output the other.
pub(crate) async fn attach(
    State(node): App,
    Path(id): Path<String>,
    Params(params): Params<AttachParams>,
    request: Request,
) -> Result<Response> {
    if !truthy(params.stream.as_deref()) {
        return Err(ApiError::not_yet("attach without stream=1"));
    }
    let containers = node.agent().containers();
    let is_terminal = containers.inspect(&id)?.config.terminal.is_some();
    let streams = containers.attach(&id)?;
    let client = Client { with_stdin: truthy(params.stdin.as_deref()), is_terminal };
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(connection) => relay(TokioIo::new(connection), streams, client).await,
            Err(error) => tracing::debug!(%error, "the client did not take up the attach"),
        }
    });
    let upgraded = response::Builder::new()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .header(CONTENT_TYPE, if is_terminal { stream::RAW } else { stream::MULTIPLEXED });
    upgraded.body(HttpBody::empty()).map_err(ApiError::internal)
}

/// How long a client may take to read the end of the output and close.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Who is attached, and to what.
#[derive(Clone, Copy)]
struct Client {
    with_stdin: bool,
    /// Its output is one stream, passed on as it comes.
    is_terminal: bool,
}

/// Input ends when the client closes its half; output ends with the container.
async fn relay(connection: impl AsyncRead + AsyncWrite + Send, streams: ContainerStreams, client: Client) {
    let (mut from_client, mut to_client) = split(connection);
    let ContainerStreams { mut stdin, mut output } = streams;
    let input = async {
        if client.with_stdin {
            // A container that reads no input closes it: that ends the copy, not the container.
            let _ = copy(&mut from_client, &mut stdin).await;
        }
        // A terminal without input is still one; the end of its input would hang it up.
        if client.with_stdin || !client.is_terminal {
            drop(stdin);
        }
        pending::<()>().await;
    };
    let passed = async {
        while let Some((source, bytes)) = output.recv().await {
            let piece = if client.is_terminal { bytes } else { stream::frame(source, &bytes) };
            if to_client.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = input => {}
        () = passed => {}
    }
    // Closing a socket with input in it resets the connection, and the client would lose the end of the output.
    let _ = tokio::time::timeout(CLOSE_LIMIT, copy(&mut from_client, &mut sink())).await;
}

/// Answers its head at once and the exit code when there is one, as the CLI needs it.
pub(crate) async fn wait(State(node): App, Path(id): Path<String>) -> Result<Response> {
    let containers = node.agent().containers();
    containers.inspect(&id)?;
    let code = async move {
        let answer = match containers.wait(&id).await {
            Ok(code) => json!({ "StatusCode": code }),
            Err(error) => json!({ "StatusCode": 125, "Error": { "Message": error.to_string() } }),
        };
        Ok::<_, Infallible>(Bytes::from(answer.to_string()))
    };
    let body = HttpBody::from_stream(futures_util::stream::once(code));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

#[derive(Deserialize)]
pub(crate) struct KillParams {
    signal: Option<String>,
}

pub(crate) async fn kill(
    State(node): App,
    Path(id): Path<String>,
    Params(params): Params<KillParams>,
) -> Result<StatusCode> {
    let signal: Signal = params.signal.as_deref().unwrap_or("KILL").parse().map_err(ApiError::bad_request)?;
    node.agent().containers().kill(&id, signal.number())?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(crate) struct ResizeParams {
    h: u16,
    w: u16,
}

pub(crate) async fn resize(
    State(node): App,
    Path(id): Path<String>,
    Params(ResizeParams { h: rows, w: columns }): Params<ResizeParams>,
) -> Result<StatusCode> {
    node.agent().containers().resize(&id, TerminalSize { rows, columns })?;
    Ok(StatusCode::OK)
}

#[derive(Deserialize)]
pub(crate) struct StopParams {
    t: Option<i64>,
}

pub(crate) async fn stop(
    State(node): App,
    Path(id): Path<String>,
    Params(params): Params<StopParams>,
) -> Result<StatusCode> {
    node.agent().containers().stop(&id, params.t.map(grace)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Seconds; -1 waits for ever, as Docker has it.
fn grace(seconds: i64) -> Duration {
    u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs)
}

#[derive(Deserialize)]
pub(crate) struct RemoveParams {
    force: Option<String>,
}

pub(crate) async fn remove(
    State(node): App,
    Path(id): Path<String>,
    Params(params): Params<RemoveParams>,
) -> Result<StatusCode> {
    node.agent().containers().remove(&id, truthy(params.force.as_deref())).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(crate) struct ListParams {
    all: Option<String>,
}

pub(crate) async fn list(State(node): App, Params(params): Params<ListParams>) -> Json<Vec<Value>> {
    let all = truthy(params.all.as_deref());
    let listed = |info: &ContainerInfo| all || matches!(info.state, ContainerState::Running { .. });
    Json(node.agent().containers().list().iter().filter(|info| listed(info)).map(summary).collect())
}

pub(crate) async fn inspect(State(node): App, Path(id): Path<String>) -> Result<Json<Value>> {
    let info = node.agent().containers().inspect(&id)?;
    Ok(Json(json!({
        "Id": info.id,
        "Created": info.created,
        "Name": format!("/{}", info.name),
        "Path": info.config.args.first(),
        "Args": info.config.args.iter().skip(1).collect::<Vec<_>>(),
        "State": state(&info.state),
        "Image": info.config.image,
        "Config": {
            "Hostname": info.config.hostname,
            "Image": info.config.image,
            "Cmd": info.config.args,
            "Env": info.config.env,
            "Tty": info.config.terminal.is_some(),
            "User": info.config.user,
            "WorkingDir": info.config.dir,
            "StopSignal": info.config.stop_signal.to_string(),
            "Labels": {},
        },
        "HostConfig": { "AutoRemove": info.config.auto_remove },
        "NetworkSettings": { "Networks": endpoints(&info) },
    })))
}

fn summary(info: &ContainerInfo) -> Value {
    let status = match &info.state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited { .. } => "exited",
    };
    json!({
        "Id": info.id,
        "Names": [format!("/{}", info.name)],
        "Image": info.config.image,
        "Command": info.config.args.join(" "),
        "Created": info.created.as_second(),
        "State": status,
        "Status": status,
        "Ports": [],
        "Labels": {},
        "NetworkSettings": { "Networks": endpoints(info) },
    })
}

fn state(state: &ContainerState) -> Value {
    match state {
        ContainerState::Created => json!({ "Status": "created", "Running": false, "Pid": 0, "ExitCode": 0 }),
        ContainerState::Running { pid, started } => {
            json!({ "Status": "running", "Running": true, "Pid": pid, "ExitCode": 0, "StartedAt": started })
        }
        ContainerState::Exited { code, started, finished, error } => json!({
            "Status": "exited", "Running": false, "Pid": 0, "ExitCode": code, "Error": error,
            "StartedAt": started, "FinishedAt": finished,
        }),
    }
}

fn endpoints(info: &ContainerInfo) -> Map<String, Value> {
    let endpoint = |(network, addr): &(String, ipnet::Ipv4Net)| {
        let settings = json!({ "IPAddress": addr.addr(), "IPPrefixLen": addr.prefix_len() });
        (network.clone(), settings)
    };
    info.networks.iter().map(endpoint).collect()
}

impl From<ContainerError> for ApiError {
    fn from(error: ContainerError) -> Self {
        match error {
            ContainerError::NotAMember => Self::unavailable(error),
            ContainerError::NotFound(_) => Self::not_found(error),
            // dockerd's class for what another state of the container forbids.
            ContainerError::NameTaken { .. }
            | ContainerError::NotRunning(_)
            | ContainerError::NoTerminal(_)
            | ContainerError::NoLog(_)
            | ContainerError::StillRuns(_) => Self::new(StatusCode::CONFLICT, error),
            error => Self::bad_request(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::session::LogStream;
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;

    #[test]
    fn refusals_have_dockers_status() {
        let status = |error: ContainerError| ApiError::from(error).into_response().status();
        let taken = ContainerError::NameTaken { name: "web".into(), id: "1".into() };
        assert_eq!(status(taken), StatusCode::CONFLICT);
        assert_eq!(status(ContainerError::NotRunning("1".into())), StatusCode::CONFLICT);
        assert_eq!(status(ContainerError::StillRuns("1".into())), StatusCode::CONFLICT);
        assert_eq!(status(ContainerError::NotFound("1".into())), StatusCode::NOT_FOUND);
        assert_eq!(status(ContainerError::NoCommand), StatusCode::BAD_REQUEST);
    }

    /// `seq 100000 | skep run -i … head -1`: the container ends with most of its input unread.
    #[tokio::test]
    async fn input_that_nobody_reads_does_not_cost_the_output() {
        let (daemon, client) = UnixStream::pair().unwrap();
        let (stdin, container) = duplex(64);
        let (to, output) = mpsc::channel(4);
        let client_with_input = Client { with_stdin: true, is_terminal: false };
        let relay = tokio::spawn(relay(daemon, ContainerStreams { stdin, output }, client_with_input));
        let (mut read, mut write) = client.into_split();
        write.write_all(&[b'x'; 100_000]).await.unwrap();
        to.send((LogStream::Stdout, Bytes::from_static(b"1"))).await.unwrap();
        drop((to, container));
        let mut all = Vec::new();
        read.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, stream::frame(LogStream::Stdout, b"1"));
        drop((read, write));
        relay.await.unwrap();
    }
}
