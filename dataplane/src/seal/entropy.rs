//! [`Entropy`]: everything nobody may guess, from the bytes the engine was given.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

/// A stream that only its seed decides (ChaCha20). Zeroed when it is dropped.
pub(crate) struct Entropy(ChaCha20Rng);

impl Entropy {
    pub(crate) fn new(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self(ChaCha20Rng::from_seed(**seed))
    }

    /// A stream of its own, for somebody who keeps it.
    pub(crate) fn branch(&mut self) -> Self {
        Self::new(&self.bytes())
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    pub(crate) fn bytes<const LEN: usize>(&mut self) -> Zeroizing<[u8; LEN]> {
        let mut bytes = Zeroizing::new([0; LEN]);
        self.fill(&mut *bytes);
        bytes
    }

    /// Not zero, which stands for none.
    pub(crate) fn nonzero_u32(&mut self) -> u32 {
        self.0.next_u32().max(1)
    }

    /// Not zero, which stands for none.
    pub(crate) fn nonzero_u64(&mut self) -> u64 {
        self.0.next_u64().max(1)
    }

    /// Below `bound`, near enough evenly for what timers need.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }
}
