//! What nodes agree on and know of each other to seal the data path: their keys, and the cluster's cipher.
//!
//! A node's key is X25519 (RFC 7748) and made on the node. Its public half is bound to who the node is by the node's
//! certificate, as a private extension: what peers are told is taken from there and nowhere else.

use data_encoding::BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use x509_parser::der_parser::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The extension's id, below the arc that needs no registration (ITU-T X.667: 2.25 and a UUID as one number). It is 63
/// random bits, for rcgen's arcs are that wide; a UUID that has a version is larger than any of those.
pub const KEY_EXTENSION: [u64; 3] = [2, 25, 8_693_137_752_428_052_845];

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// DER of an OCTET STRING (X.690 §8.7) that holds a key, up to the key: the extension's value.
const KEY_HEADER: [u8; 2] = [0x04, KEY_LEN as u8];

/// The public half of a node's key; base64 wherever it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataPathKey(pub [u8; KEY_LEN]);

/// The AEAD of sealed frames: one for the whole cluster, for as long as it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataCipher {
    #[default]
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a data-path key: expected {KEY_LEN} bytes in base64")]
pub struct InvalidKey;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid data cipher \"{0}\": choose chacha20-poly1305 or aes-256-gcm")]
pub struct InvalidCipher(String);

/// A certificate that binds no key to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateKeyError {
    #[error("it is no X.509 certificate")]
    NoCertificate,
    #[error("it has no data-path key, as those made before networks were sealed")]
    Missing,
    #[error("its data-path key is not {KEY_LEN} bytes long")]
    Malformed,
}

impl DataPathKey {
    /// The value of the extension [`KEY_EXTENSION`].
    pub fn to_extension(self) -> Vec<u8> {
        [KEY_HEADER.as_slice(), &self.0].concat()
    }

    /// The key a certificate (DER) binds to its node. Whether the certificate itself is to be believed is for the
    /// caller to know.
    pub fn of_certificate(der: &[u8]) -> Result<Self, CertificateKeyError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| CertificateKeyError::NoCertificate)?;
        let id = Oid::from(&KEY_EXTENSION).map_err(|_| CertificateKeyError::Missing)?;
        let extension = certificate.get_extension_unique(&id).map_err(|_| CertificateKeyError::Malformed)?;
        let value = extension.ok_or(CertificateKeyError::Missing)?.value;
        let key = value.strip_prefix(&KEY_HEADER).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or(CertificateKeyError::Malformed)
    }
}

impl fmt::Display for DataPathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for DataPathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataPathKey({self})")
    }
}

impl FromStr for DataPathKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| InvalidKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey)
    }
}

impl Serialize for DataPathKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataPathKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl DataCipher {
    /// Its name, as users choose it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
}

impl fmt::Display for DataCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataCipher {
    type Err = InvalidCipher;

    fn from_str(name: &str) -> Result<Self, InvalidCipher> {
        let known = [Self::ChaCha20Poly1305, Self::Aes256Gcm];
        // What a client sent may be long; the sentence quotes its beginning.
        let refuse = || InvalidCipher(name.chars().take(32).collect());
        known.into_iter().find(|cipher| cipher.name() == name).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_survives_text_and_json(bytes in any::<[u8; KEY_LEN]>()) {
            let key = DataPathKey(bytes);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
            prop_assert_eq!(key.to_string().len(), 44);
            let json = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<DataPathKey>(&json).unwrap(), key);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = DataPathKey([7; KEY_LEN]).to_string();
        let (short, unpadded) = (BASE64.encode(&[7; 31]), good.trim_end_matches('='));
        let odd = good.replace("c=", "d=");
        for bad in ["", "key", &short, &BASE64.encode(&[7; 33]), unpadded, &odd, &format!("{good} ")] {
            assert_eq!(bad.parse::<DataPathKey>(), Err(InvalidKey), "{bad}");
        }
        assert!(serde_json::from_str::<DataPathKey>("null").is_err());
    }

    #[test]
    fn what_is_no_certificate_has_no_key() {
        assert_eq!(DataPathKey::of_certificate(b"hello"), Err(CertificateKeyError::NoCertificate));
    }

    #[test]
    fn ciphers_have_one_name_everywhere() {
        for cipher in [DataCipher::ChaCha20Poly1305, DataCipher::Aes256Gcm] {
            assert_eq!(cipher.to_string().parse(), Ok(cipher));
            assert_eq!(serde_json::to_value(cipher).unwrap(), cipher.name());
        }
        let long = "x".repeat(1 << 20).parse::<DataCipher>().unwrap_err().to_string();
        assert!(long.len() < 200 && long.contains("aes-256-gcm"), "{long}");
    }
}
