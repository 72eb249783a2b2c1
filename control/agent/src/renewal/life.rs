//! From when to when a certificate is valid. Pure.

use crate::tls::{CredentialsError, certificate};
use jiff::{SignedDuration, Timestamp};
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) begin: Timestamp,
    pub(crate) end: Timestamp,
}

impl Life {
    pub(crate) fn of(pem: &str) -> Result<Self, CredentialsError> {
        let der = certificate(pem)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CredentialsError::NoCertificate)?;
        let validity = parsed.validity();
        let at = |seconds| Timestamp::from_second(seconds).map_err(|_| CredentialsError::NoCertificate);
        Ok(Self { begin: at(validity.not_before.timestamp())?, end: at(validity.not_after.timestamp())? })
    }

    /// When `part` of it is over; 0 is its begin, 1 its end.
    pub(crate) fn at(&self, part: f64) -> Timestamp {
        let life = self.end.duration_since(self.begin).as_secs_f64();
        let offset = SignedDuration::try_from_secs_f64(life * part).unwrap_or_default();
        self.begin.checked_add(offset).unwrap_or(self.end)
    }
}
