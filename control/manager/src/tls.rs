//! TLS of the manager's port: 1.3 only, client certificates of this cluster welcome but not demanded,
//! because a joining node has none yet.

use crate::ca::{Authority, CaError, Subject};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use skep_model::NodeId;
use skep_model::data_path::{CertificateKeyError, DataPathKey};
use skep_model::node::Role;
use std::sync::{Arc, PoisonError, RwLock};
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the cluster's certificates cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the cluster's root certificate cannot be used: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// The certificate the manager shows, replaceable while it serves. Its key lives in memory only.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    pub(crate) fn issue(authority: &Authority, node: &NodeId) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { current: RwLock::new(certified(authority, node)?) }))
    }

    pub(crate) fn renew(&self, authority: &Authority, node: &NodeId) -> Result<(), TlsError> {
        let renewed = certified(authority, node)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

pub(crate) fn server_config(
    authority: &Authority,
    certificate: Arc<ServerCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let mut roots = RootCertStore::empty();
    roots.add(authority.root_der().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Whom a verified client certificate names.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) node: NodeId,
    pub(crate) data_path_key: Result<DataPathKey, CertificateKeyError>,
}

impl Shown {
    /// None where it names no node.
    pub(crate) fn by(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?;
        let node = name.as_str().ok().map(NodeId::from)?;
        Some(Self { node, data_path_key: DataPathKey::of_certificate(certificate) })
    }
}

fn certified(authority: &Authority, node: &NodeId) -> Result<Arc<CertifiedKey>, TlsError> {
    let (leaf, key) = authority.issue(&Subject { node, role: Role::Manager, data_path_key: None })?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![leaf.der().clone()], key, &provider())?;
    Ok(Arc::new(certified))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
