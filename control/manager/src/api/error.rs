//! Refusals, with the texts scripts match.

use crate::db::UpdateError;

/// Docker's daemon passes swarmkit's errors through with their gRPC prefix; what the daemon itself says
/// has none. The variants tell them apart, [`ApiError::http_status`] maps them as dockerd does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    NotFound(String),
    /// A name that is taken, as the daemon says it.
    #[error("{0}")]
    Conflict(String),
    /// A name that is taken, as the manager says it.
    #[error("rpc error: code = AlreadyExists desc = {0}")]
    AlreadyExists(String),
    /// Something that cannot be, as the daemon says it.
    #[error("{0}")]
    BadRequest(String),
    /// Something that cannot be, as the manager says it.
    #[error("rpc error: code = InvalidArgument desc = {0}")]
    InvalidArgument(String),
    /// Something that cannot be at present.
    #[error("rpc error: code = FailedPrecondition desc = {0}")]
    FailedPrecondition(String),
    /// The object changed since the client read it.
    #[error("rpc error: code = Unknown desc = update out of sequence")]
    OutOfSequence,
    /// Something this release cannot do.
    #[error("{0}")]
    Unimplemented(String),
    /// The store did not take the change; nothing was done.
    #[error("rpc error: code = Unavailable desc = {0}")]
    Unavailable(String),
}

impl ApiError {
    pub fn http_status(&self) -> u16 {
        match self {
            Self::NotFound(_) => 404,
            Self::Conflict(_) | Self::AlreadyExists(_) => 409,
            Self::BadRequest(_) | Self::InvalidArgument(_) | Self::FailedPrecondition(_) => 400,
            Self::Unimplemented(_) => 501,
            Self::OutOfSequence | Self::Unavailable(_) => 500,
        }
    }

    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidArgument(text.into())
    }

    pub(super) fn unimplemented(text: impl Into<String>) -> Self {
        Self::Unimplemented(text.into())
    }
}

impl From<UpdateError<Self>> for ApiError {
    fn from(error: UpdateError<Self>) -> Self {
        match error {
            UpdateError::Refused(refusal) => refusal,
            other => Self::Unavailable(other.to_string()),
        }
    }
}
