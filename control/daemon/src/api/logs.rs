//! `/services/{id}/logs` and `/tasks/{id}/logs`: one frame a line, as the CLI's parser needs it.

use super::App;
use super::error::{ApiError, Result};
use super::extract::{Params, truthy};
use super::stream;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use skep_agent::containers::ReadOptions;
use skep_manager::api::lookup;
use skep_manager::{LogOptions, LogTarget, Manager, TaskLogContext};
use skep_model::session::{LogLine, LogStream};
use std::convert::Infallible;
use std::fmt::Write;

#[derive(Deserialize)]
pub(crate) struct LogParams {
    stdout: Option<String>,
    stderr: Option<String>,
    follow: Option<String>,
    details: Option<String>,
    timestamps: Option<String>,
    tail: Option<String>,
    since: Option<String>,
}

pub(crate) async fn of_service(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<LogParams>,
) -> Result<Response> {
    let manager = node.require_manager()?;
    let id = lookup::service(&manager.db().state(), &reference)?.id.clone();
    answer(&manager, LogTarget::Service(id), params)
}

pub(crate) async fn of_task(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<LogParams>,
) -> Result<Response> {
    let manager = node.require_manager()?;
    let id = lookup::task(&manager.db().state(), &reference)?.id.clone();
    answer(&manager, LogTarget::Task(id), params)
}

/// Of a container of this node. A terminal's output is one stream without frames.
pub(crate) async fn of_container(
    State(node): App,
    Path(reference): Path<String>,
    Params(params): Params<LogParams>,
) -> Result<Response> {
    let (stdout, stderr) = (truthy(params.stdout.as_deref()), truthy(params.stderr.as_deref()));
    let timestamps = truthy(params.timestamps.as_deref());
    let LogOptions { follow, tail, since } = options(&params)?;
    let containers = node.agent().containers();
    let is_terminal = containers.inspect(&reference)?.config.terminal.is_some();
    let lines = containers.logs(&reference, ReadOptions { follow, tail, since })?;
    let frames = futures_util::stream::unfold(lines, move |mut lines| async move {
        loop {
            let line = lines.recv().await?;
            let wanted = match line.stream {
                LogStream::Stdout => stdout,
                LogStream::Stderr => stderr,
            };
            if wanted {
                let time = if timestamps { format!("{} ", line.time) } else { String::new() };
                let text = format!("{time}{}\n", line.text);
                let frame =
                    if is_terminal { text.into() } else { stream::frame(line.stream, text.as_bytes()) };
                return Some((Ok::<Bytes, Infallible>(frame), lines));
            }
        }
    });
    let kind = if is_terminal { stream::RAW } else { stream::MULTIPLEXED };
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(frames)).into_response())
}

fn answer(manager: &Manager, target: LogTarget, params: LogParams) -> Result<Response> {
    let (stdout, stderr) = (truthy(params.stdout.as_deref()), truthy(params.stderr.as_deref()));
    if !stdout && !stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let (details, timestamps) = (truthy(params.details.as_deref()), truthy(params.timestamps.as_deref()));
    let lines = manager.logs(target, options(&params)?).map_err(ApiError::internal)?;
    let frames = futures_util::stream::unfold(lines, move |mut lines| async move {
        loop {
            let (context, line) = lines.recv().await?;
            let wanted = match line.stream {
                LogStream::Stdout => stdout,
                LogStream::Stderr => stderr,
            };
            if wanted {
                return Some((Ok::<Bytes, Infallible>(frame(&context, &line, details, timestamps)), lines));
            }
        }
    });
    Ok(([(CONTENT_TYPE, stream::MULTIPLEXED)], Body::from_stream(frames)).into_response())
}

fn frame(context: &TaskLogContext, line: &LogLine, details: bool, timestamps: bool) -> Bytes {
    let mut text = String::with_capacity(line.text.len() + 160);
    // Writing to a string cannot fail.
    if timestamps {
        let _ = write!(text, "{} ", line.time);
    }
    if details {
        let TaskLogContext { node, service, task } = context;
        let _ = write!(
            text,
            "com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} "
        );
    }
    text.push_str(&line.text);
    text.push('\n');
    stream::frame(line.stream, text.as_bytes())
}

fn options(params: &LogParams) -> Result<LogOptions> {
    let tail = match params.tail.as_deref() {
        None | Some("" | "all") => None,
        Some(lines) => Some(
            lines
                .parse()
                .map_err(|_| ApiError::bad_request(format!("invalid tail '{lines}': a number or 'all'")))?,
        ),
    };
    let since = match params.since.as_deref() {
        None | Some("" | "0") => None,
        Some(text) => Some(timestamp(text)?),
    };
    Ok(LogOptions { follow: truthy(params.follow.as_deref()), tail, since })
}

/// RFC 3339, or Docker's `seconds[.nanoseconds]` since the epoch.
fn timestamp(text: &str) -> Result<Timestamp> {
    let refuse =
        || ApiError::bad_request(format!("invalid since '{text}': a time like 2026-01-31T12:00:00Z"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let (seconds, nanos) = text.split_once('.').unwrap_or((text, "0"));
    let nanos = format!("{nanos:0<9}");
    let seconds = seconds.parse().map_err(|_| refuse())?;
    let nanos = nanos.get(..9).and_then(|n| n.parse().ok()).ok_or_else(refuse)?;
    Timestamp::new(seconds, nanos).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_since_are_read() {
        let expected: Timestamp = "2026-11-21T04:45:03.5Z".parse().unwrap();
        assert_eq!(timestamp("2026-11-21T04:45:03.5Z").unwrap(), expected);
        assert_eq!(timestamp(&format!("{}.500000000", expected.as_second())).unwrap(), expected);
        assert!(timestamp("yesterday").is_err());
    }
}
