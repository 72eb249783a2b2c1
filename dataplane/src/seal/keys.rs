//! Who a node is on the data path: its static key, and what it agrees on with its peers beforehand.

use std::fmt;
use std::str::FromStr;
use x25519_dalek::{PublicKey as Point, StaticSecret};
use zeroize::Zeroizing;

/// Bytes of either half of a key.
pub const KEY_LEN: usize = 32;

/// The public half of a node's static X25519 key (RFC 7748 §5). Its [`Debug`](fmt::Debug) shows the first bytes only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY_LEN]);

/// The private half. Zeroed when it is dropped, and never shown.
#[derive(Clone)]
pub struct SecretKey(StaticSecret);

/// The AEAD of frames, the same in the whole cluster: two nodes that differ in it agree on no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// RFC 8439: as fast on every processor.
    #[default]
    ChaCha20Poly1305,
    /// NIST SP 800-38D: faster where the processor has instructions for it.
    Aes256Gcm,
}

/// What an engine needs to hold sessions.
#[derive(Clone)]
pub struct Identity {
    pub key: SecretKey,
    pub suite: Suite,
    /// What else both ends have to agree on, such as the cluster's id. At most 64 bytes count.
    pub context: Vec<u8>,
    /// From the system's source of randomness: ephemeral keys and everything else nobody may guess comes from it. An
    /// engine that was given the same before has sent under keys that would come again.
    pub entropy: Zeroizing<[u8; 32]>,
}

impl SecretKey {
    /// Of 32 random bytes, or of [`Self::to_bytes`]'s.
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    pub fn to_bytes(&self) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(Point::from(&self.0).to_bytes())
    }
}

impl Suite {
    /// Its name, as users choose it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a [`Suite`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown cipher: choose chacha20-poly1305 or aes-256-gcm")]
pub struct UnknownSuite;

impl FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(name: &str) -> Result<Self, UnknownSuite> {
        [Self::ChaCha20Poly1305, Self::Aes256Gcm].into_iter().find(|s| s.name() == name).ok_or(UnknownSuite)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, {})", self.key.public(), self.suite)
    }
}
