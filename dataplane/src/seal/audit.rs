//! For tests: what names a sealing key, so that they can see that no counter comes twice under it.

use super::keys::KEY_LEN;
use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac};

pub(super) fn name(key: &[u8; KEY_LEN]) -> [u8; 16] {
    let mac: Blake2sMac<U16> = KeyInit::new_from_slice(key).expect("BLAKE2s takes keys of 32 bytes");
    mac.chain_update(b"audit").finalize_fixed().into()
}
