//! A member's next certificate: for a key it has just made, and for its own id alone.

use super::ManagerCore;
use super::join_rate::PER_SECOND;
use super::reports::{NoKey, NodeRemoved};
use crate::ca::{CaError, Subject};
use crate::db::UpdateError;
use crate::state::Change;
use crate::tls::Shown;
use hyper::StatusCode;
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
    NoKey(#[from] NoKey),
    #[error("a node keeps its data-path key for as long as it is a member: leave and join for another one")]
    OtherKey,
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
            Self::Removed(_) | Self::NoKey(_) | Self::OtherKey => StatusCode::FORBIDDEN,
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Signs the new key of the node that has shown its certificate. Blocks for one disk sync.
pub(super) fn renew(
    core: &ManagerCore,
    Shown { node, data_path_key }: &Shown,
    request: &RenewRequest,
) -> Result<RenewResponse, RenewError> {
    let key = data_path_key.map_err(NoKey)?;
    if request.data_path_key != key {
        return Err(RenewError::OtherKey);
    }
    let role = core.db.state().nodes.get(node).ok_or(NodeRemoved)?.spec.role;
    let subject = Subject { node, role, data_path_key: Some(key) };
    let signed = core.authority.sign_request(&subject, &request.csr);
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
