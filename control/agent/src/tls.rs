//! Whom this node believes, and how it proves itself. TLS 1.3 only.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};
use skep_model::data_path::{CertificateKeyError, DataPathKey};
use skep_model::join::Credentials;
use std::sync::Arc;

/// HTTP/2 is all that is spoken on a manager's port.
const ALPN: &[u8] = b"h2";

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("not a PEM certificate or key: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("not an X.509 certificate")]
    NoCertificate,
    #[error(transparent)]
    DataPathKey(#[from] CertificateKeyError),
    #[error("the certificate, its key and the root do not fit together: {0}")]
    Rustls(#[from] rustls::Error),
}

/// For the very first request alone: accepts whatever certificate is shown. What comes over such a
/// connection is worth nothing until it was compared with the digest in the join token.
pub(crate) fn believing_anybody() -> Result<ClientConfig, CredentialsError> {
    let verifier = Arc::new(AnyCertificate(provider()));
    let config = builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(with_alpn(config))
}

/// Believes managers of the cluster with this root, and shows nothing.
pub(crate) fn believing(root: &CertificateDer<'_>) -> Result<ClientConfig, CredentialsError> {
    Ok(with_alpn(builder()?.with_root_certificates(store(root)?).with_no_client_auth()))
}

/// Believes managers of the cluster, and shows this node's certificate.
pub(crate) fn member(credentials: &Credentials) -> Result<ClientConfig, CredentialsError> {
    let root = certificate(&credentials.root_ca)?;
    let leaf = certificate(&credentials.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(credentials.private_key.as_bytes())?;
    let config = builder()?.with_root_certificates(store(&root)?).with_client_auth_cert(vec![leaf], key)?;
    Ok(with_alpn(config))
}

pub(crate) fn certificate(pem: &str) -> Result<CertificateDer<'static>, CredentialsError> {
    Ok(CertificateDer::from_pem_slice(pem.as_bytes())?)
}

/// The data-path key that a certificate (PEM) binds to its node.
pub(crate) fn data_path_key(pem: &str) -> Result<DataPathKey, CredentialsError> {
    Ok(DataPathKey::of_certificate(&certificate(pem)?)?)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, CredentialsError> {
    Ok(ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?)
}

fn store(root: &CertificateDer<'_>) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    Ok(roots)
}

fn with_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Checks that the other side has the key of the certificate it shows, and nothing about the certificate.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
