//! A daemon's API as raw HTTP: requests no client library would send.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No answer of the API takes as long; one that does hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(35);
/// The longest refusal.
const MAX_MESSAGE: usize = 2048;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    pub fn is_refusal(&self) -> bool {
        self.status >= 400
    }

    /// What a refusal says: one short line.
    pub fn message(&self) -> Result<&str> {
        let message = self.body["message"].as_str().with_context(|| format!("no message: {self:?}"))?;
        ensure!(!message.is_empty() && message.len() <= MAX_MESSAGE, "{} bytes: {message}", message.len());
        ensure!(!message.contains(char::is_control), "it steers terminals: {message:?}");
        Ok(message)
    }
}

/// A request on a connection of its own.
pub fn ask(socket: &Path, method: &str, target: &str, body: Option<&Value>) -> Result<Answer> {
    let body = body.map(Value::to_string).unwrap_or_default();
    ask_raw(socket, method, target.as_bytes(), body.as_bytes())
        .with_context(|| format!("{method} {target:.200} {body:.300}"))
}

/// As [`ask`], with any bytes.
pub fn ask_raw(socket: &Path, method: &str, target: &[u8], body: &[u8]) -> Result<Answer> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connecting {}", socket.display()))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let length = body.len();
    let end = format!(" HTTP/1.1\r\nHost: skep\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    // In one piece, as clients send what is small.
    let request = [method.as_bytes(), b" ", target, end.as_bytes(), body].concat();
    // A daemon that refuses before it has read all may close early: its answer counts.
    let _ = stream.write_all(&request);
    read(&mut BufReader::new(stream))
}

fn read(answer: &mut impl BufRead) -> Result<Answer> {
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("not an answer: {line:?}"))?;
    let mut rest = String::new();
    answer.read_to_string(&mut rest)?;
    let body = rest.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    Ok(Answer { status, body: serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)) })
}
