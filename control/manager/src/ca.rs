//! The cluster's certificate authority: one ECDSA P-256 root whose digest the join tokens carry, and
//! one leaf per node. Subject names and lifetimes are Swarm's.

#[cfg(test)]
mod tests;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use skep_model::data_path::{DataPathKey, KEY_EXTENSION};
use skep_model::join::MANAGER_NAME;
use skep_model::node::Role;
use skep_model::{ClusterId, NodeId};
use std::time::{Duration, SystemTime};

const ROOT_NAME: &str = "skep-ca";
const DAY: Duration = Duration::from_hours(24);
const ROOT_VALIDITY: Duration = Duration::from_hours(24 * 365 * 20);
pub const NODE_VALIDITY: Duration = Duration::from_hours(24 * 90);
/// Nodes' clocks may be behind the manager's by this much. Swarm allows an hour; a clock that is off by a day, set
/// by hand or to the wrong date line, is told to the operator by the node and must not keep it out before.
const BACK_DATE: Duration = Duration::from_hours(25);
/// Swarm takes keys of this curve alone; so does Skep, whatever the request says.
const KEY_ALGORITHM: &rcgen::SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    root_der: CertificateDer<'static>,
    cluster: ClusterId,
}

/// Whom a certificate is for.
pub struct Subject<'a> {
    pub node: &'a NodeId,
    pub role: Role,
    /// None in what a manager serves with: that is no node's.
    pub data_path_key: Option<DataPathKey>,
}

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the certificate authority failed: {0}")]
    Rcgen(#[from] rcgen::Error),
    #[error("the cluster's root certificate cannot be read: {0}")]
    Root(#[from] rustls::pki_types::pem::Error),
    #[error("certificate requests need an ECDSA P-256 key")]
    KeyAlgorithm,
    #[error("the certificate request cannot be read: {0}")]
    Request(#[source] rcgen::Error),
}

impl Authority {
    /// A new root with a new key, for a new cluster.
    pub fn create(cluster: ClusterId) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(KEY_ALGORITHM)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, ROOT_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, SystemTime::now(), ROOT_VALIDITY);
        let root = params.self_signed(&key)?;
        let (root_pem, root_der) = (root.pem(), root.der().clone());
        Ok(Self { issuer: Issuer::new(params, key), root_pem, root_der, cluster })
    }

    /// The authority of an existing cluster, from its root certificate and the root's key.
    pub fn load(cluster: ClusterId, root_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let root_der = CertificateDer::from_pem_slice(root_pem.as_bytes())?;
        let issuer = Issuer::from_ca_cert_der(&root_der, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { issuer, root_pem: root_pem.to_owned(), root_der, cluster })
    }

    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub fn root_der(&self) -> &CertificateDer<'static> {
        &self.root_der
    }

    /// PEM of the root's private key: for the manager's state directory and nowhere else.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs the key of a certificate request (PEM). Whatever else the request asks for is ignored:
    /// the manager alone decides who a node is. Returns the leaf as PEM.
    pub fn sign_request(&self, subject: &Subject<'_>, request: &str) -> Result<String, CaError> {
        let request = CertificateSigningRequestParams::from_pem(request).map_err(CaError::Request)?;
        if request.public_key.algorithm() != KEY_ALGORITHM {
            return Err(CaError::KeyAlgorithm);
        }
        Ok(self.sign(subject, &request.public_key)?.pem())
    }

    /// A new key and its certificate.
    pub fn issue(&self, subject: &Subject<'_>) -> Result<(rcgen::Certificate, KeyPair), CaError> {
        let key = KeyPair::generate_for(KEY_ALGORITHM)?;
        Ok((self.sign(subject, &key)?, key))
    }

    /// As [`Self::issue`], when the clock showed `now`.
    #[cfg(test)]
    pub(crate) fn issue_at(
        &self,
        now: SystemTime,
        subject: &Subject<'_>,
    ) -> Result<(rcgen::Certificate, KeyPair), CaError> {
        let key = KeyPair::generate_for(KEY_ALGORITHM)?;
        Ok((self.sign_at(now, subject, &key)?, key))
    }

    fn sign(&self, subject: &Subject<'_>, key: &impl PublicKeyData) -> Result<rcgen::Certificate, CaError> {
        self.sign_at(SystemTime::now(), subject, key)
    }

    fn sign_at(
        &self,
        now: SystemTime,
        subject: &Subject<'_>,
        key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = self.name_of(subject);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        if subject.role == Role::Manager {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names = vec![SanType::DnsName(MANAGER_NAME.try_into()?)];
        }
        let key_extension =
            |key: DataPathKey| CustomExtension::from_oid_content(&KEY_EXTENSION, key.to_extension());
        params.custom_extensions.extend(subject.data_path_key.map(key_extension));
        set_validity(&mut params, now, NODE_VALIDITY);
        Ok(params.signed_by(key, &self.issuer)?)
    }

    fn name_of(&self, subject: &Subject<'_>) -> DistinguishedName {
        let unit = match subject.role {
            Role::Manager => "swarm-manager",
            Role::Worker => "swarm-worker",
        };
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, self.cluster.as_str());
        name.push(DnType::OrganizationalUnitName, unit);
        name.push(DnType::CommonName, subject.node.as_str());
        name
    }
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, validity: Duration) {
    params.not_before = (now - BACK_DATE).into();
    params.not_after = (now + validity).into();
}

/// Half of a node certificate's life: when the manager replaces its own.
pub const RENEW_AFTER: Duration = DAY.saturating_mul(45);
