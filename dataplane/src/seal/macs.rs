//! What a handshake costs its sender before it costs us: MAC1, cookies and MAC2, as in WireGuard (§5.4.4 and §5.4.7 of
//! its paper), with BLAKE2s throughout.

use super::entropy::Entropy;
use super::keys::PublicKey;
use crate::wire::sealed::handshake::{self, MAC_LEN, NONCE_LEN, SEALED_COOKIE_LEN};
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use std::net::Ipv4Addr;
use zeroize::Zeroizing;

const MAC1_LABEL: &[u8] = b"skep mac1";
const COOKIE_LABEL: &[u8] = b"skep cookie";

/// How long a cookie is good for, in milliseconds, and how long the secret behind it is used.
pub(crate) const COOKIE_LIFETIME: u64 = 120_000;

pub(crate) type Cookie = [u8; MAC_LEN];

/// Keys that whoever knows a node's public key knows. They keep out who does not.
pub(crate) struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    /// For messages to the node with this key.
    pub(crate) fn of(receiver: &PublicKey) -> Self {
        Self { mac1: hash(MAC1_LABEL, receiver), cookie: hash(COOKIE_LABEL, receiver) }
    }

    /// Fills in the MACs of a message: the second one if the receiver gave a cookie.
    pub(crate) fn sign(&self, message: &mut [u8], cookie: Option<&Cookie>) -> [u8; MAC_LEN] {
        let mac1_at = message.len() - 2 * MAC_LEN;
        let mac2_at = message.len() - MAC_LEN;
        let mac1 = mac(&self.mac1, &message[..mac1_at]);
        message[mac1_at..mac2_at].copy_from_slice(&mac1);
        let mac2 = cookie.map_or([0; MAC_LEN], |cookie| mac(cookie, &message[..mac2_at]));
        message[mac2_at..].copy_from_slice(&mac2);
        mac1
    }

    /// Whether the sender of a message knows the receiver's key.
    pub(crate) fn is_signed(&self, message: &[u8]) -> bool {
        handshake::parts(message).is_some_and(|(covered, mac1, _)| is_mac(&self.mac1, covered, mac1))
    }

    /// A cookie for the sender of the message with `mac1`, which alone can read it.
    pub(crate) fn seal_cookie(
        &self,
        cookie: &Cookie,
        mac1: &[u8; MAC_LEN],
        entropy: &mut Entropy,
    ) -> ([u8; NONCE_LEN], [u8; SEALED_COOKIE_LEN]) {
        let nonce = *entropy.bytes::<NONCE_LEN>();
        let mut sealed = [0; SEALED_COOKIE_LEN];
        sealed[..MAC_LEN].copy_from_slice(cookie);
        let (text, place) = sealed.split_at_mut(MAC_LEN);
        let tag = self.cipher().encrypt_in_place_detached(XNonce::from_slice(&nonce), mac1, text);
        place.copy_from_slice(&tag.expect("a cookie is short"));
        (nonce, sealed)
    }

    pub(crate) fn open_cookie(
        &self,
        nonce: &[u8; NONCE_LEN],
        sealed: &[u8; SEALED_COOKIE_LEN],
        mac1: &[u8; MAC_LEN],
    ) -> Option<Cookie> {
        let (text, tag) = sealed.split_at(MAC_LEN);
        let mut cookie: Cookie = text.try_into().ok()?;
        let nonce = XNonce::from_slice(nonce);
        self.cipher().decrypt_in_place_detached(nonce, mac1, &mut cookie, Tag::from_slice(tag)).ok()?;
        Some(cookie)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.cookie.into())
    }
}

/// Gives cookies and knows them again.
pub(crate) struct CookieJar {
    secret: Zeroizing<[u8; 32]>,
    renewed_at: u64,
}

impl CookieJar {
    pub(crate) fn new(entropy: &mut Entropy) -> Self {
        Self { secret: entropy.bytes(), renewed_at: 0 }
    }

    /// Proof of the address, which only who receives there gets. `now` in milliseconds.
    pub(crate) fn cookie(&mut self, address: Ipv4Addr, now: u64, entropy: &mut Entropy) -> Cookie {
        if now.saturating_sub(self.renewed_at) >= COOKIE_LIFETIME {
            (self.secret, self.renewed_at) = (entropy.bytes(), now);
        }
        mac(&*self.secret, &address.octets())
    }

    /// Whether the sender of a message has the cookie of its address.
    pub(crate) fn is_signed(
        &mut self,
        message: &[u8],
        address: Ipv4Addr,
        now: u64,
        entropy: &mut Entropy,
    ) -> bool {
        let cookie = self.cookie(address, now, entropy);
        let Some((_, _, mac2)) = handshake::parts(message) else { return false };
        is_mac(&cookie, &message[..message.len() - MAC_LEN], mac2)
    }
}

fn hash(label: &[u8], key: &PublicKey) -> [u8; 32] {
    Blake2s256::new().chain_update(label).chain_update(key.0).finalize().into()
}

fn keyed(key: &[u8]) -> Blake2sMac<U16> {
    KeyInit::new_from_slice(key).expect("BLAKE2s takes keys of up to 32 bytes")
}

fn mac(key: &[u8], covered: &[u8]) -> [u8; MAC_LEN] {
    keyed(key).chain_update(covered).finalize_fixed().into()
}

/// In a time that says nothing of how much was right.
fn is_mac(key: &[u8], covered: &[u8], shown: &[u8; MAC_LEN]) -> bool {
    keyed(key).chain_update(covered).verify(shown.into()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn entropy() -> Entropy {
        Entropy::new(&Zeroizing::new([7; 32]))
    }

    fn message() -> [u8; handshake::INITIATION_LEN] {
        handshake::initiation(1, &[2; handshake::NOISE_1_LEN])
    }

    #[test]
    fn a_signed_message_is_known_again_and_no_changed_one() {
        let keys = MacKeys::of(&PublicKey([3; 32]));
        let mut message = message();
        assert!(!keys.is_signed(&message));
        keys.sign(&mut message, None);
        assert!(keys.is_signed(&message));
        assert!(!MacKeys::of(&PublicKey([4; 32])).is_signed(&message), "it is for another node");
        for at in 0..message.len() - MAC_LEN {
            let mut changed = message;
            changed[at] ^= 1;
            assert!(!keys.is_signed(&changed), "byte {at}");
        }
    }

    #[test]
    fn a_cookie_reaches_who_asked_and_proves_its_address_for_two_minutes() {
        let (mut entropy, keys) = (entropy(), MacKeys::of(&PublicKey([3; 32])));
        let mut jar = CookieJar::new(&mut entropy);
        let mut first = message();
        let mac1 = keys.sign(&mut first, None);
        assert!(!jar.is_signed(&first, ADDRESS, 10, &mut entropy));
        let cookie = jar.cookie(ADDRESS, 10, &mut entropy);
        let (nonce, sealed) = keys.seal_cookie(&cookie, &mac1, &mut entropy);
        assert_eq!(keys.open_cookie(&nonce, &sealed, &[0; 16]), None, "it is the answer to another message");
        assert_eq!(keys.open_cookie(&nonce, &sealed, &mac1), Some(cookie));

        let mut second = message();
        keys.sign(&mut second, Some(&cookie));
        assert!(jar.is_signed(&second, ADDRESS, 119_999, &mut entropy));
        assert!(!jar.is_signed(&second, Ipv4Addr::new(192, 0, 2, 2), 119_999, &mut entropy));
        let mut changed = second;
        changed[30] ^= 1;
        assert!(!jar.is_signed(&changed, ADDRESS, 119_999, &mut entropy));
        assert!(!jar.is_signed(&second, ADDRESS, 120_000, &mut entropy), "its secret is another one now");
    }
}
