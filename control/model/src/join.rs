//! How a node becomes a member. Two plain HTTPS requests on the manager's port:
//!
//! 1. `GET /v1/ca` answers the root certificate (PEM). The joiner accepts any certificate for this one
//!    request and then checks the digest in its token: nothing is trusted before. The header
//!    [`DATA_PATH_PORT`] says which UDP port the joiner will need, so that one that cannot have it does not
//!    become a member first.
//! 2. `POST /v1/join` with a [`JoinRequest`], verified against that root, answers a [`JoinResponse`].
//!
//! From then on the node speaks mutual TLS: `POST /v1/session` carries the stream of [`crate::session`], and
//! `POST /v1/renew` with a [`RenewRequest`] answers a [`RenewResponse`] with a certificate for a new key of TLS. The
//! [`DataPathKey`] stays the same for as long as the node is a member.

use crate::data_path::{DataCipher, DataPathKey};
use crate::node::Role;
use crate::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

pub const CA_PATH: &str = "/v1/ca";
pub const DATA_PATH_PORT: &str = "skep-data-path-port";
pub const JOIN_PATH: &str = "/v1/join";
pub const RENEW_PATH: &str = "/v1/renew";
pub const SESSION_PATH: &str = "/v1/session";

/// The name in managers' certificates and no other: a worker's certificate cannot pose as a manager.
pub const MANAGER_NAME: &str = "manager.skep";

#[derive(Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token: String,
    /// PEM certificate signing request; only its public key is used.
    pub csr: String,
    /// What peers will know this node by; it goes into the certificate.
    pub data_path_key: DataPathKey,
    pub hostname: String,
    #[serde(default)]
    pub availability: crate::node::Availability,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct JoinResponse {
    pub node_id: NodeId,
    pub cluster_id: ClusterId,
    pub role: Role,
    /// PEM, leaf only.
    pub certificate: String,
    pub data_path_port: u16,
    pub data_cipher: DataCipher,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PEM certificate signing request; only its public key is used.
    pub csr: String,
    /// The one of the certificate before.
    pub data_path_key: DataPathKey,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RenewResponse {
    /// PEM, leaf only. The one before stays valid until it expires.
    pub certificate: String,
}

/// Body of every refusal on the manager's port.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    pub message: String,
}

/// What a member proves itself with, and whom it believes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    pub node_id: NodeId,
    pub cluster_id: ClusterId,
    pub role: Role,
    /// PEM, leaf only.
    pub certificate: String,
    /// PEM (PKCS#8). Never leaves the node.
    pub private_key: String,
    /// PEM of the cluster's root.
    pub root_ca: String,
}
