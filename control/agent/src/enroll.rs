//! Becoming a member: nothing a manager says is believed before its root matches the join token's digest.

#[cfg(test)]
mod tests;

use crate::tls::{self, CredentialsError};
use crate::transport::{self, ConnectError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Response, StatusCode};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use skep_dataplane::io::{UdpError, probe};
use skep_model::data_path::{DataCipher, DataPathKey};
use skep_model::join::{CA_PATH, Credentials, DATA_PATH_PORT, JOIN_PATH, JoinRequest, JoinResponse, Refusal};
use skep_model::node::Availability;
use skep_model::token::JoinToken;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// For everything together: two handshakes and two small requests.
const ENROLL_LIMIT: Duration = Duration::from_secs(20);
/// A certificate or a refusal; both are far smaller.
const MAX_ANSWER_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub struct EnrollRequest {
    pub manager: SocketAddr,
    pub token: JoinToken,
    pub hostname: String,
    pub availability: Availability,
    /// Of this host, for the data path.
    pub data_path_addr: Ipv4Addr,
    /// This host's own, for this membership.
    pub data_path_key: DataPathKey,
}

#[derive(Clone)]
pub struct Enrolled {
    pub credentials: Credentials,
    pub data_path_port: u16,
    pub data_cipher: DataCipher,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(
        "cannot reach a manager at {manager}: {reason}; check the address, that skepd runs there as a manager, and that no firewall closes TCP port {}",
        manager.port()
    )]
    Unreachable { manager: SocketAddr, reason: String },
    #[error(
        "the manager at {manager} did not finish the join within {} s: it may be overloaded, try again",
        ENROLL_LIMIT.as_secs()
    )]
    Timeout { manager: SocketAddr },
    #[error(
        "remote CA does not match fingerprint: the certificate authority at {manager} is not the one this join token was made for; either the token is of another or a re-created cluster (get a fresh one with `skep swarm join-token worker`), or somebody between here and there poses as the manager"
    )]
    WrongAuthority { manager: SocketAddr },
    /// In the manager's words.
    #[error("{message}")]
    Refused { message: String },
    #[error("the answer of {manager} is not a Skep manager's: {reason}")]
    Answer { manager: SocketAddr, reason: String },
    #[error(transparent)]
    DataPath(#[from] UdpError),
    #[error("cannot make a key for this node: {0}")]
    Key(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(CredentialsError),
}

/// Asks the manager at `request.manager` to make this host a node. Takes at most 20 s.
pub async fn enroll(request: EnrollRequest) -> Result<Enrolled, EnrollError> {
    let manager = request.manager;
    match tokio::time::timeout(ENROLL_LIMIT, enroll_unbounded(request)).await {
        Ok(enrolled) => enrolled,
        Err(_elapsed) => Err(EnrollError::Timeout { manager }),
    }
}

async fn enroll_unbounded(request: EnrollRequest) -> Result<Enrolled, EnrollError> {
    let manager = request.manager;
    let (root_ca, data_path_port) = fetch_root(manager, &request.token).await?;
    if let Some(port) = data_path_port {
        // A member that cannot open it is of no use, and would stay in the cluster's list.
        probe(request.data_path_addr, port)?;
    }
    let root = tls::certificate(&root_ca).map_err(EnrollError::Tls)?;
    let tls = tls::believing(&root).map_err(EnrollError::Tls)?;

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let join = JoinRequest {
        token: request.token.to_string(),
        csr: CertificateParams::default().serialize_request(&key)?.pem()?,
        data_path_key: request.data_path_key,
        hostname: request.hostname,
        availability: request.availability,
    };
    let body = serde_json::to_vec(&join).expect("a join request serializes without failing");
    let answer = exchange(manager, tls, Method::POST, JOIN_PATH, body).await?;
    let joined: JoinResponse = serde_json::from_slice(answer.body())
        .map_err(|error| EnrollError::Answer { manager, reason: error.to_string() })?;
    let credentials = Credentials {
        node_id: joined.node_id.clone(),
        cluster_id: joined.cluster_id.clone(),
        role: joined.role,
        certificate: joined.certificate.clone(),
        private_key: key.serialize_pem(),
        root_ca,
    };
    // A certificate for another key would only fail later, at every session.
    let answer_error = |reason| EnrollError::Answer { manager, reason };
    tls::member(&credentials).map_err(|error| answer_error(error.to_string()))?;
    let bound =
        tls::data_path_key(&credentials.certificate).map_err(|error| answer_error(error.to_string()))?;
    if bound != request.data_path_key {
        return Err(answer_error("the certificate that came is for another data-path key".to_owned()));
    }
    let JoinResponse { data_path_port, data_cipher, .. } = joined;
    Ok(Enrolled { credentials, data_path_port, data_cipher })
}

/// The cluster's root, which is the token's own, and its data path port.
async fn fetch_root(manager: SocketAddr, token: &JoinToken) -> Result<(String, Option<u16>), EnrollError> {
    let tls = tls::believing_anybody().map_err(EnrollError::Tls)?;
    let answer = exchange(manager, tls, Method::GET, CA_PATH, Vec::new()).await?;
    let port = answer.headers().get(DATA_PATH_PORT).and_then(|port| port.to_str().ok()?.parse().ok());
    let answer_error = |reason| EnrollError::Answer { manager, reason };
    let pem = String::from_utf8(answer.into_body()).map_err(|error| answer_error(error.to_string()))?;
    let root = tls::certificate(&pem).map_err(|error| answer_error(error.to_string()))?;
    if token.pins(&root) { Ok((pem, port)) } else { Err(EnrollError::WrongAuthority { manager }) }
}

/// One request on a connection of its own; the body of the answer, if it is no refusal.
pub(crate) async fn exchange(
    manager: SocketAddr,
    tls: ClientConfig,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Response<Vec<u8>>, EnrollError> {
    let unreachable = |error: ConnectError| match error.is_certificate_refused() {
        true => EnrollError::WrongAuthority { manager },
        false => EnrollError::Unreachable { manager, reason: error.to_string() },
    };
    let broken = |reason: String| EnrollError::Unreachable { manager, reason };
    let mut connection = transport::connect::<Full<Bytes>>(manager, tls).await.map_err(unreachable)?;
    let request = transport::request(method, path, Full::new(Bytes::from(body)));
    let response = connection.send_request(request).await.map_err(|error| broken(error.to_string()))?;
    let (head, body) = response.into_parts();
    let status = head.status;
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| broken(error.to_string()))?.to_bytes().to_vec();
    if status == StatusCode::OK {
        return Ok(Response::from_parts(head, body));
    }
    Err(match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => EnrollError::Refused { message: refusal.message },
        Err(_) => EnrollError::Answer { manager, reason: format!("it answered {path} with {status}") },
    })
}
