//! By the crates `chacha20poly1305` and `aes-gcm`: pure Rust, and what the fast ones are checked against.

use super::{Aead, Broken, nonce};
use crate::seal::keys::{KEY_LEN, Suite};
use crate::wire::sealed::TAG_LEN;
use aes_gcm::Aes256Gcm;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};

/// Both zero their key when they are dropped.
#[cfg_attr(feature = "ring", allow(dead_code, reason = "with `ring` only tests seal with it"))]
pub(crate) enum PortableKey {
    ChaCha(ChaCha20Poly1305),
    Aes(Box<Aes256Gcm>),
}

impl Aead for PortableKey {
    fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Self {
        match suite {
            Suite::ChaCha20Poly1305 => Self::ChaCha(ChaCha20Poly1305::new(key.into())),
            Suite::Aes256Gcm => Self::Aes(Box::new(Aes256Gcm::new(key.into()))),
        }
    }

    fn seal(&self, counter: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::from(nonce(counter));
        let tag = match self {
            Self::ChaCha(key) => key.encrypt_in_place_detached(&nonce, associated, text),
            Self::Aes(key) => key.encrypt_in_place_detached(&nonce, associated, text),
        };
        tag.expect("a datagram is shorter than 64 GiB").into()
    }

    fn open(&self, counter: u64, associated: &[u8], text_and_tag: &mut [u8]) -> Result<(), Broken> {
        let nonce = Nonce::from(nonce(counter));
        let (text, tag) = text_and_tag.split_last_chunk_mut::<TAG_LEN>().ok_or(Broken)?;
        let tag = Tag::from_slice(&*tag);
        match self {
            Self::ChaCha(key) => key.decrypt_in_place_detached(&nonce, associated, text, tag),
            Self::Aes(key) => key.decrypt_in_place_detached(&nonce, associated, text, tag),
        }
        .map_err(|_| Broken)
    }
}
