//! The AEAD that frames are sealed with: one small trait, two makers of it that open what the other sealed.
//!
//! Nonce: four zero bytes and the counter, big-endian.

#[cfg(feature = "ring")]
mod fast;
mod portable;

use super::keys::{KEY_LEN, Suite};
use crate::wire::sealed::TAG_LEN;

/// What the engine seals with.
#[cfg(feature = "ring")]
pub(crate) type Key = fast::RingKey;
#[cfg(not(feature = "ring"))]
pub(crate) type Key = portable::PortableKey;

const NONCE_LEN: usize = 12;

/// What was opened is not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// One direction of one session. Its key is gone from memory when it is dropped.
pub(crate) trait Aead {
    fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Self;

    /// Encrypts `text` in place. No counter may come twice.
    fn seal(&self, counter: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts, in place, a text that its tag follows. If it is broken, what is left in its place means nothing.
    fn open(&self, counter: u64, associated: &[u8], text_and_tag: &mut [u8]) -> Result<(), Broken>;
}

fn nonce(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - size_of::<u64>()..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::portable::PortableKey;
    use super::*;
    use proptest::prelude::*;

    fn suites() -> impl Strategy<Value = Suite> {
        prop_oneof![Just(Suite::ChaCha20Poly1305), Just(Suite::Aes256Gcm)]
    }

    fn there_and_back<A: Aead, B: Aead>(suite: Suite, key: &[u8; 32], counter: u64, ad: &[u8], text: &[u8]) {
        let (one, other) = (A::new(suite, key), B::new(suite, key));
        let mut sealed = text.to_vec();
        let tag = one.seal(counter, ad, &mut sealed);
        sealed.extend(tag);
        let mut opened = sealed.clone();
        assert_eq!(other.open(counter, ad, &mut opened), Ok(()));
        assert_eq!(&opened[..text.len()], text);
        for at in [0, sealed.len() / 2, sealed.len() - 1] {
            let mut spoilt = sealed.clone();
            spoilt[at] ^= 0x10;
            assert_eq!(other.open(counter, ad, &mut spoilt), Err(Broken), "byte {at}");
        }
        assert_eq!(other.open(counter ^ 1, ad, &mut sealed.clone()), Err(Broken), "another counter");
        assert_eq!(other.open(counter, &[ad, b"x"].concat(), &mut sealed.clone()), Err(Broken));
        assert_eq!(other.open(counter, ad, &mut sealed[..TAG_LEN - 1].to_vec()), Err(Broken), "too short");
    }

    proptest! {
        #[test]
        fn each_opens_what_the_other_sealed(
            suite in suites(),
            key in any::<[u8; 32]>(),
            counter in any::<u64>(),
            ad in prop::collection::vec(any::<u8>(), 0..40),
            text in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            there_and_back::<Key, PortableKey>(suite, &key, counter, &ad, &text);
            there_and_back::<PortableKey, Key>(suite, &key, counter, &ad, &text);
        }
    }

    /// RFC 8439 §2.8.2, whose nonce our counters do not reach: the bytes that follow from the key alone must fit. The
    /// vector of `docs/wire.md` covers the rest.
    #[test]
    fn the_nonce_is_the_counter() {
        assert_eq!(nonce(0x0102_0304_0506_0708), [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
