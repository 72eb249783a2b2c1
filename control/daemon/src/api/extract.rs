//! Extractors whose refusals are Docker-shaped.

use super::error::ApiError;
use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A JSON body. Docker's clients do not all send a content type, so none is asked for.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let late = |_elapsed| {
            let limit = BODY_LIMIT.as_secs();
            let text = format!("the request did not come to its end within {limit} s: send it again");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, text)
        };
        let bytes = tokio::time::timeout(BODY_LIMIT, whole(request)).await.map_err(late)??;
        let Json(value) = Json::from_bytes(&bytes)?;
        Ok(Self(value))
    }
}

/// Clients are on this host: a body that takes longer has no end.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Specs are small; this bounds what one request may make us hold.
const MAX_BODY_BYTES: usize = 4 << 20;
/// What is longer is read up to here, and forgotten: a client that still writes would not see the refusal.
const MAX_READ_BYTES: usize = 64 << 20;

async fn whole(request: Request) -> Result<Vec<u8>, ApiError> {
    let mut frames = request.into_body().into_data_stream();
    let (mut bytes, mut len) = (Vec::new(), 0);
    while let Some(frame) = frames.next().await {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("the request broke off: {error}")))?;
        len += frame.len();
        if len <= MAX_BODY_BYTES {
            bytes.extend_from_slice(&frame);
        } else if len > MAX_READ_BYTES {
            break;
        }
    }
    match len {
        0..=MAX_BODY_BYTES => Ok(bytes),
        _ => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request is longer than 4 MiB: ask for less at once, such as fewer ports",
        )),
    }
}

/// Query parameters.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        Ok(Self(value))
    }
}

/// Go's spelling of a boolean query parameter: `1`, `true`, `True`, `t`.
pub(crate) fn truthy(value: Option<&str>) -> bool {
    value.is_some_and(|value| !matches!(value, "" | "0" | "false" | "False" | "f" | "no" | "none"))
}

/// The `version` of an update: the `Version.Index` its sender read, so that no change in between is undone.
pub(crate) fn object_version(kind: &str, text: Option<&str>) -> Result<u64, ApiError> {
    let text = text.unwrap_or_default();
    let invalid = |_| {
        ApiError::bad_request(format!(
            "invalid {kind} version '{text}': pass the Version.Index that was read"
        ))
    };
    text.parse().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body as HttpBody;
    use axum::response::IntoResponse;

    #[tokio::test]
    async fn a_long_request_is_read_and_refused() {
        let sent = |len: usize| whole(Request::new(HttpBody::from(vec![b' '; len])));
        assert_eq!(sent(MAX_BODY_BYTES).await.unwrap().len(), MAX_BODY_BYTES);
        assert!(sent(MAX_BODY_BYTES + 1).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_end_is_refused_in_time() {
        let endless =
            HttpBody::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let refused = Body::<serde_json::Value>::from_request(Request::new(endless), &()).await;
        let status = refused.err().map(|error| error.into_response().status());
        assert_eq!(status, Some(StatusCode::REQUEST_TIMEOUT));
    }
}
