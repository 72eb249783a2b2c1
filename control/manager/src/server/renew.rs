//! A member's next certificate: for a key it has just made, and for its own id alone.

use super::ManagerCore;
use super::join_rate::PER_SECOND;
use super::reports::NodeRemoved;
use crate::ca::{CaError, Subject};
use crate::db::UpdateError;
use crate::state::Change;
use hyper::StatusCode;
use skep_model::NodeId;
use skep_model::join::{RenewRequest, RenewResponse};
use std::net::IpAddr;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("a certificate is renewed with the one before: join first")]
    Stranger,
    #[error("{0} asks for certificates more than {PER_SECOND} times a second: wait a second and try again")]
    TooOften(IpAddr),
    #[error(transparent)]
    Removed(#[from] NodeRemoved),
    #[error(transparent)]
    Request(CaError),
    #[error("the certificate could not be recorded: {0}")]
    Store(String),
}

impl RenewError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Stranger => StatusCode::UNAUTHORIZED,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Removed(_) => StatusCode::FORBIDDEN,
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Signs the new key of `node`, which has shown its certificate. Blocks for one disk sync.
pub(super) fn renew(
    core: &ManagerCore,
    node: &NodeId,
    request: &RenewRequest,
) -> Result<RenewResponse, RenewError> {
    let role = core.db.state().nodes.get(node).ok_or(NodeRemoved)?.spec.role;
    let signed = core.authority.sign_request(&Subject { node, role }, &request.csr);
    let certificate = signed.map_err(RenewError::Request)?;
    let record = core.db.update(|state| {
        // Again, under the lock: the node may have been removed meanwhile.
        let mut node = state.nodes.get(node).cloned().ok_or(NodeRemoved)?;
        node.skep.certificate = certificate.clone();
        Ok(vec![Change::PutNode(Box::new(node))])
    });
    match record {
        Ok(_revision) => Ok(RenewResponse { certificate }),
        Err(UpdateError::Refused(removed)) => Err(RenewError::Removed(removed)),
        Err(other) => Err(RenewError::Store(other.to_string())),
    }
}
