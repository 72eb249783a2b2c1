//! Words that nobody else says, and the search for them in what is on a wire.

use anyhow::Result;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;

const LEN: usize = 16;
/// So many of its bytes in a row are found.
const FOUND: usize = 8;

/// Sixteen random bytes. What is sent repeats them, so that every piece of it shows them, wherever it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker([u8; LEN]);

impl Marker {
    pub fn random() -> Result<Self> {
        let mut bytes = [0; LEN];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The marker over and over.
    pub fn payload(&self, len: usize) -> Vec<u8> {
        self.0.iter().copied().cycle().take(len).collect()
    }

    /// Whether these bytes are a piece of such a payload.
    pub fn is_all_of(&self, bytes: &[u8]) -> bool {
        let from = |turn: usize| self.0.iter().cycle().skip(turn).take(bytes.len());
        (0..LEN).any(|turn| from(turn).eq(bytes))
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Finds any of many markers.
#[derive(Debug)]
pub struct Search {
    /// Which pairs of bytes a piece can begin with: nearly all of what is searched is told apart by them.
    begins: Vec<bool>,
    pieces: HashMap<[u8; FOUND], usize>,
}

impl Default for Search {
    fn default() -> Self {
        Self { begins: vec![false; 1 << 16], pieces: HashMap::new() }
    }
}

impl Search {
    /// Finds this one too, and calls it `number`.
    pub fn add(&mut self, marker: &Marker, number: usize) {
        let twice = marker.payload(2 * LEN);
        for piece in twice.windows(FOUND).take(LEN) {
            self.begins[pair(piece)] = true;
            let mut key = [0; FOUND];
            key.copy_from_slice(piece);
            self.pieces.insert(key, number);
        }
    }

    /// The number of the first marker of which eight bytes in a row are in here.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        let last = bytes.len().checked_sub(FOUND)?;
        let mut at = 0;
        // Loops over iterators take ten times as long in a debug build, and this is what limits the listener.
        while at <= last {
            if self.begins[usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])]
                && let Some(number) = self.pieces.get(&bytes[at..at + FOUND])
            {
                return Some(*number);
            }
            at += 1;
        }
        None
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_of_a_marker_are_found_wherever_it_was_cut_and_seven_are_not() {
        let (one, other) = (Marker([7; LEN]), Marker(std::array::from_fn(|i| i as u8)));
        let mut search = Search::default();
        search.add(&one, 1);
        search.add(&other, 2);
        let said = other.payload(3 * LEN);
        for piece in said.windows(FOUND) {
            assert_eq!(search.find(&[&[0xff; 5], piece, &[0xff; 3]].concat()), Some(2));
            assert!(other.is_all_of(piece) && !one.is_all_of(piece));
        }
        for piece in said.windows(FOUND - 1) {
            assert_eq!(search.find(&[&[0xff; 9], piece, &[0xff; 9]].concat()), None);
        }
        assert_eq!(search.find(&[7; 9]), Some(1));
        assert_eq!(search.find(&[]), None);
    }
}
