//! Who the nodes of tests are.

use skep_dataplane::seal::{Identity, PublicKey, SecretKey, Suite};
use zeroize::Zeroizing;

/// Node `n`, in its life of this number: each begins with other randomness.
pub(crate) fn identity(n: usize, life: u64) -> Identity {
    let mut entropy = [n as u8; 32];
    entropy[8..16].copy_from_slice(&life.to_be_bytes());
    Identity {
        key: secret(n),
        suite: Suite::default(),
        context: b"a cluster".to_vec(),
        entropy: Zeroizing::new(entropy),
    }
}

pub(crate) fn public(n: usize) -> PublicKey {
    secret(n).public()
}

fn secret(n: usize) -> SecretKey {
    SecretKey::from_bytes(Zeroizing::new([n as u8 + 1; 32]))
}
