//! One multiplication per 64 bits: enough for keys of a few words.

use std::hash::{BuildHasherDefault, Hasher};

/// Lookup tables built from a snapshot. Their keys come from the control plane, so nobody who sends
/// packets can choose colliding ones and the hash needs no seed.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<FoldHasher>>;
pub(crate) type Set<K> = std::collections::HashSet<K, BuildHasherDefault<FoldHasher>>;

/// An odd number without pattern: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The halves of the 128-bit product, folded: every input bit reaches every output bit.
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[derive(Default)]
pub(crate) struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word ^ MIX, MIX);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// A stream of numbers that only the seed decides.
pub(crate) fn scramble(seed: u64, input: u64) -> u64 {
    fold(fold(seed ^ MIX, input.wrapping_add(MIX)) ^ input, MIX)
}
