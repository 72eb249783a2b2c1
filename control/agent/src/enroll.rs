//! Becoming a member: nothing a manager says is believed before its root matches the join token's digest.

use skep_model::join::Credentials;
use skep_model::node::Availability;
use skep_model::token::JoinToken;
use std::net::SocketAddr;

#[derive(Clone, Debug)]
pub struct EnrollRequest {
    pub manager: SocketAddr,
    pub token: JoinToken,
    pub hostname: String,
    pub availability: Availability,
}

#[derive(Clone)]
pub struct Enrolled {
    pub credentials: Credentials,
    pub data_path_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(
        "cannot reach a manager at {manager}: {reason}; check the address, and that TCP port {} is open there",
        manager.port()
    )]
    Unreachable { manager: SocketAddr, reason: String },
}

/// Asks the manager at `request.manager` to make this host a node. Takes at most 20 s.
pub async fn enroll(request: EnrollRequest) -> Result<Enrolled, EnrollError> {
    Err(EnrollError::Unreachable { manager: request.manager, reason: "not wired yet".to_owned() })
}
