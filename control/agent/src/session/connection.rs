//! One session request: lines out, lines in.

use super::SessionEnd;
use crate::renewal::Life;
use crate::tls;
use crate::transport::{self, request};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, stream::Stream};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::Method;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use jiff::Timestamp;
use skep_model::join::{Credentials, Refusal, SESSION_PATH};
use skep_model::lines::Lines;
use skep_model::session::{MAX_MESSAGE_BYTES, ToAgent, ToManager};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages waiting for the connection. Beyond it the session waits.
const OUTBOUND_CAPACITY: usize = 16;
/// A manager that takes no message for this long is stuck; another connection may do better.
const SEND_LIMIT: Duration = Duration::from_secs(15);
/// The manager answers the request as soon as it has read its head.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A refusal is one sentence.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

pub(super) struct Connection {
    pub(super) outbound: Outbound,
    pub(super) inbound: Inbound,
    /// The connection lives as long as this.
    _requests: SendRequest<Body>,
}

pub(super) struct Outbound(mpsc::Sender<Bytes>);

pub(super) struct Inbound {
    body: Incoming,
    lines: Lines,
}

/// Connects to `manager` and opens the stream.
pub(super) async fn open(manager: SocketAddr, credentials: &Credentials) -> Result<Connection, SessionEnd> {
    check_life(&Life::of(&credentials.certificate)?, Timestamp::now())?;
    let tls = tls::member(credentials)?;
    let mut requests = transport::connect::<Body>(manager, tls).await?;
    let (outbound, messages) = mpsc::channel(OUTBOUND_CAPACITY);
    let body = StreamBody::new(frames(messages).boxed());
    let answer = requests.send_request(request(Method::POST, SESSION_PATH, body));
    let response = tokio::time::timeout(ANSWER_LIMIT, answer).await.map_err(|_| SessionEnd::Silent)??;
    if !response.status().is_success() {
        return Err(refusal(response.into_body()).await);
    }
    let inbound = Inbound { body: response.into_body(), lines: Lines::new(MAX_MESSAGE_BYTES) };
    Ok(Connection { outbound: Outbound(outbound), inbound, _requests: requests })
}

/// The manager would end the handshake with a word for machines.
fn check_life(life: &Life, now: Timestamp) -> Result<(), SessionEnd> {
    match now {
        now if now >= life.end => Err(SessionEnd::Expired(life.end)),
        now if now < life.begin => Err(SessionEnd::NotYetValid(life.begin)),
        _ => Ok(()),
    }
}

fn frames(messages: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    stream::unfold(messages, |mut messages| async move {
        let message = messages.recv().await?;
        Some((Ok(Frame::data(message)), messages))
    })
}

async fn refusal(body: Incoming) -> SessionEnd {
    let text = match Limited::new(body, MAX_REFUSAL_BYTES).collect().await {
        Ok(body) => serde_json::from_slice::<Refusal>(&body.to_bytes()).map(|refusal| refusal.message).ok(),
        Err(_) => None,
    };
    SessionEnd::Refused(text.unwrap_or_else(|| "the manager gave no reason".to_owned()))
}

impl Outbound {
    pub(super) async fn send(&self, message: &ToManager) -> Result<(), SessionEnd> {
        let mut line = serde_json::to_vec(message).expect("the model's messages serialize without failing");
        line.push(b'\n');
        match tokio::time::timeout(SEND_LIMIT, self.0.send(line.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(SessionEnd::Closed),
            Err(_elapsed) => Err(SessionEnd::Silent),
        }
    }
}

impl Inbound {
    /// The next message. May be dropped and called again at any time without losing one.
    pub(super) async fn next(&mut self) -> Result<ToAgent, SessionEnd> {
        loop {
            let line = self.lines.pop().map_err(|error| SessionEnd::Protocol(error.to_string()))?;
            if let Some(line) = line {
                return serde_json::from_slice(&line)
                    .map_err(|error| SessionEnd::Protocol(format!("not a message: {error}")));
            }
            let frame = self.body.frame().await.ok_or(SessionEnd::Closed)??;
            if let Some(data) = frame.data_ref() {
                self.lines.push(data);
            }
        }
    }
}
