//! For tests: what is sealed, before nobody can read it any more, and with which key.

use super::keys::KEY_LEN;
use crate::ids::Vni;
use crate::wire::sealed::{Marks, Shim};
use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac};

/// What a sealed datagram says. The words are those of `docs/wire.md`.
#[derive(Clone, Copy, Debug)]
pub struct Plaintext<'a> {
    /// `None`: it is of no network.
    pub vni: Option<Vni>,
    /// 1 a frame, 2 a question, 3 an answer, 4 a keepalive.
    pub kind: u8,
    /// Where a frame's transport header begins, if its checksum is partial.
    pub partial: Option<u16>,
    pub ingress: bool,
    /// The frame, or the nonce.
    pub text: &'a [u8],
}

impl<'a> Plaintext<'a> {
    pub(super) fn new(vni: Option<Vni>, shim: Shim, text: &'a [u8]) -> Self {
        let marks = if let Shim::Frame(marks) = shim { marks } else { Marks::default() };
        Self { vni, kind: shim.to_bytes()[0], partial: marks.partial, ingress: marks.ingress, text }
    }
}

/// Names a sealing key, so that a test can see that no counter comes twice under it.
pub(super) fn name(key: &[u8; KEY_LEN]) -> [u8; 16] {
    let mac: Blake2sMac<U16> = KeyInit::new_from_slice(key).expect("BLAKE2s takes keys of 32 bytes");
    mac.chain_update(b"audit").finalize_fixed().into()
}
