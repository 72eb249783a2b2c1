//! A daemon that gives prepared answers on a unix socket and remembers what it was asked.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::process::Command;

pub(crate) struct Asked {
    /// `GET /nodes?…`, without the version.
    pub(crate) line: String,
    pub(crate) body: Value,
}

pub(crate) enum Answer {
    Json(u16, Value),
    Stream(Vec<u8>),
    /// Takes the connection over: writes these bytes, then what it reads as a frame of stdout.
    Hijack(Vec<u8>),
}

pub(crate) fn ok(body: Value) -> Answer {
    Answer::Json(200, body)
}

pub(crate) fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0][..], &length, payload].concat()
}

pub(crate) struct Daemon {
    dir: TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

impl Daemon {
    /// Answers by `script`; what it doesn't know should be a 404.
    pub(crate) fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let dir = TempDir::new().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        tokio::spawn(serve(listener, Arc::new(script), Arc::clone(&asked)));
        Self { dir, asked }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Runs `skep` with these words.
    pub(crate) async fn skep(&self, line: &str) -> Output {
        self.skep_with(line, b"").await
    }

    pub(crate) async fn skep_with(&self, line: &str, stdin: &[u8]) -> Output {
        let mut skep = Command::new(env!("CARGO_BIN_EXE_skep"))
            .args(line.split_whitespace())
            .env("SKEP_HOST", format!("unix://{}", self.socket().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = skep.stdin.take().unwrap();
        input.write_all(stdin).await.unwrap();
        drop(input);
        skep.wait_with_output().await.unwrap()
    }

    /// The requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
    }

    /// The body of the last request whose line starts so.
    pub(crate) fn body(&self, start: &str) -> Value {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .rev()
            .find(|asked| asked.line.starts_with(start))
            .map(|asked| asked.body.clone())
            .expect(start)
    }
}

async fn serve(listener: UnixListener, script: Arc<Script>, log: Arc<Mutex<Vec<Asked>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (script, log) = (Arc::clone(&script), Arc::clone(&log));
        let service =
            hyper::service::service_fn(move |request| answer(request, Arc::clone(&script), Arc::clone(&log)));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection.with_upgrades());
    }
}

async fn answer(
    mut request: Request<Incoming>,
    script: Arc<Script>,
    log: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().as_str();
    let path = path.strip_prefix("/v1.44").unwrap_or(path);
    let line = format!("{} {path}", request.method());
    let upgrade = hyper::upgrade::on(&mut request);
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let asked = Asked { line, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) };
    let answer = script(&asked);
    log.lock().unwrap().push(asked);
    let response = Response::builder();
    Ok(match answer {
        Answer::Json(status, body) => response
            .status(status)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(if body.is_null() { String::new() } else { body.to_string() })),
        Answer::Stream(bytes) => response.body(Full::from(bytes)),
        Answer::Hijack(bytes) => {
            tokio::spawn(async move {
                let mut connection = TokioIo::new(upgrade.await.unwrap());
                connection.write_all(&bytes).await.unwrap();
                let mut input = Vec::new();
                connection.read_to_end(&mut input).await.unwrap();
                connection.write_all(&frame(1, &input)).await.unwrap();
                connection.shutdown().await.unwrap();
            });
            response.status(101).header(CONNECTION, "Upgrade").header(UPGRADE, "tcp").body(Full::default())
        }
    }
    .unwrap())
}

pub(crate) fn not_found(what: &str) -> Answer {
    Answer::Json(404, json!({"message": format!("{what} not found")}))
}
