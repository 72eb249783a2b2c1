//! The node's half of the stream.

use super::SessionEnd;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use skep_model::lines::Lines;
use skep_model::session::{MAX_MESSAGE_BYTES, ToManager};

pub(super) struct Inbound {
    body: Incoming,
    lines: Lines,
}

impl Inbound {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, lines: Lines::new(MAX_MESSAGE_BYTES) }
    }

    /// The next message. May be dropped and called again at any time without losing one.
    pub(super) async fn next(&mut self) -> Result<ToManager, SessionEnd> {
        loop {
            if let Some(line) = self.lines.pop().map_err(|error| SessionEnd::Protocol(error.to_string()))? {
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
