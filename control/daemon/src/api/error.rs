//! Refusals as Docker's clients expect them: a status and `{"message": …}`.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use skep_model::text::line;
use std::fmt::Display;

#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

/// Swarm's words for cluster commands on a node that cannot answer them.
pub(crate) const NOT_IN_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
pub(crate) const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
pub(crate) const ALREADY_A_MEMBER: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Display) -> Self {
        Self { status, message: message.to_string() }
    }

    pub(crate) fn bad_request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn unavailable(message: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(crate) fn internal(message: impl Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// For endpoints of Docker's API that later releases bring.
    pub(crate) fn not_yet(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what}: not in this release of Skep"))
    }
}

/// A sentence with what it quotes. What was sent may be megabytes, and is shown on somebody's terminal.
const MAX_MESSAGE_BYTES: usize = 2048;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let message = line(&self.message, MAX_MESSAGE_BYTES);
        (self.status, Json(json!({ "message": message }))).into_response()
    }
}

/// A refusal of the router itself (a path that is no text, a method that isn't there), in the usual shape.
pub(crate) async fn in_shape(refusal: Response) -> Response {
    let is_json = refusal
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let status = refusal.status();
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return refusal;
    }
    let words = axum::body::to_bytes(refusal.into_body(), MAX_MESSAGE_BYTES).await.unwrap_or_default();
    match str::from_utf8(&words) {
        Ok(words) if !words.is_empty() => ApiError::new(status, words),
        _ if status == StatusCode::METHOD_NOT_ALLOWED => {
            ApiError::new(status, "this path has no such method")
        }
        _ => ApiError::new(status, status),
    }
    .into_response()
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<skep_manager::api::ApiError> for ApiError {
    fn from(error: skep_manager::api::ApiError) -> Self {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, error)
    }
}

pub(crate) type Result<T, E = ApiError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use serde_json::Value;

    async fn message(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let body: Value =
            serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap();
        (status, body["message"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_message_is_one_short_line_whatever_it_quotes() {
        for text in skep_hostile::strings().into_iter().chain(skep_hostile::megabytes()) {
            let (_, said) = message(ApiError::bad_request(&text).into_response()).await;
            assert!(said.len() <= MAX_MESSAGE_BYTES && !said.contains(char::is_control), "{said:?}");
        }
    }

    #[tokio::test]
    async fn the_routers_own_refusals_look_like_all_others() {
        let answer = |status: StatusCode, body: &'static str| (status, Body::from(body)).into_response();
        let refused = in_shape(answer(StatusCode::BAD_REQUEST, "Invalid UTF-8 in `id`")).await;
        assert_eq!(message(refused).await, (400, "Invalid UTF-8 in `id`".to_owned()));
        let refused = in_shape(answer(StatusCode::METHOD_NOT_ALLOWED, "")).await;
        assert_eq!(message(refused).await, (405, "this path has no such method".to_owned()));
        let fine = in_shape(answer(StatusCode::OK, "OK")).await;
        assert_eq!(to_bytes(fine.into_body(), 9).await.unwrap(), "OK");
    }
}
