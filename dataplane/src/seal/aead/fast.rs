//! By `ring`, whose assembly picks the processor's best instructions at run time.

use super::{Aead, Broken, nonce};
use crate::seal::keys::{KEY_LEN, Suite};
use crate::wire::sealed::TAG_LEN;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;

pub(crate) struct RingKey(LessSafeKey);

fn expand(suite: Suite, key: &[u8; KEY_LEN]) -> LessSafeKey {
    let algorithm = match suite {
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Suite::Aes256Gcm => &AES_256_GCM,
    };
    let key = UnboundKey::new(algorithm, key).expect("both suites have keys of 32 bytes");
    LessSafeKey::new(key)
}

impl Aead for RingKey {
    fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Self {
        Self(expand(suite, key))
    }

    fn seal(&self, counter: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), text);
        let tag = tag.expect("a datagram is shorter than 64 GiB");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    fn open(&self, counter: u64, associated: &[u8], text_and_tag: &mut [u8]) -> Result<(), Broken> {
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        self.0.open_in_place(nonce, Aad::from(associated), text_and_tag).map(|_| ()).map_err(|_| Broken)
    }
}

/// `ring` leaves a key in memory when it is dropped: another one takes its place first.
impl Drop for RingKey {
    fn drop(&mut self) {
        let suite =
            if *self.0.algorithm() == AES_256_GCM { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        self.0 = expand(suite, &[0; KEY_LEN]);
        black_box(&self.0);
    }
}
