//! [`Coverage`]: which bytes of a packet its fragments have brought.

use std::ops::Range;

/// Stretches with holes between them. A packet of 64 KiB at the usual MTU comes in 46 pieces, so it has fewer in any
/// order; only one that is cut to crumbs and shuffled has more.
const STRETCHES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// Brings nothing new: the network delivered it twice.
    Repeated,
    /// Brings new bytes and others again, which no sender does (RFC 5722 §3 for IPv6; Linux does the same for IPv4), or
    /// there are too many holes to tell.
    Partial,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Coverage {
    /// In order, neither overlapping nor touching; the first `len` count.
    stretches: [(u16, u16); STRETCHES],
    len: u8,
    /// Where the packet ends, once its last fragment has come.
    end: Option<u16>,
}

impl Coverage {
    pub(super) const NOTHING: Self = Self { stretches: [(0, 0); STRETCHES], len: 0, end: None };

    /// Whether every byte of the packet has come.
    pub(super) fn is_whole(&self) -> bool {
        self.len == 1 && self.stretches[0].0 == 0 && Some(self.stretches[0].1) == self.end
    }

    /// Takes note of a fragment. Nothing changes if it overlaps.
    pub(super) fn add(&mut self, bytes: Range<u16>, is_last: bool) -> Result<(), Overlap> {
        let known = &self.stretches[..usize::from(self.len)];
        if known.iter().any(|(start, end)| *start <= bytes.start && bytes.end <= *end) {
            return Err(Overlap::Repeated);
        }
        let is_past_the_end = self.end.is_some_and(|end| bytes.end > end);
        let ends_too_early = is_last && known.last().is_some_and(|(_, end)| *end > bytes.end);
        if is_past_the_end
            || ends_too_early
            || known.iter().any(|(start, end)| *start < bytes.end && bytes.start < *end)
        {
            return Err(Overlap::Partial);
        }
        let at = known.partition_point(|(start, _)| *start < bytes.start);
        let joins_before = at > 0 && self.stretches[at - 1].1 == bytes.start;
        let joins_after = at < known.len() && self.stretches[at].0 == bytes.end;
        match (joins_before, joins_after) {
            (true, true) => {
                self.stretches[at - 1].1 = self.stretches[at].1;
                self.stretches.copy_within(at + 1.., at);
                self.len -= 1;
            }
            (true, false) => self.stretches[at - 1].1 = bytes.end,
            (false, true) => self.stretches[at].0 = bytes.start,
            (false, false) if known.len() == STRETCHES => return Err(Overlap::Partial),
            (false, false) => {
                self.stretches.copy_within(at..STRETCHES - 1, at + 1);
                self.stretches[at] = (bytes.start, bytes.end);
                self.len += 1;
            }
        }
        if is_last {
            self.end = Some(bytes.end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_in_any_order_make_a_whole() {
        for order in [[0u16, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let mut coverage = Coverage::NOTHING;
            for (nth, piece) in order.into_iter().enumerate() {
                assert!(!coverage.is_whole(), "{nth}");
                assert_eq!(coverage.add(piece * 8..piece * 8 + 8, piece == 3), Ok(()));
                assert_eq!(coverage.add(piece * 8..piece * 8 + 8, piece == 3), Err(Overlap::Repeated));
            }
            assert!(coverage.is_whole());
        }
    }

    #[test]
    fn what_reaches_past_the_end_overlaps() {
        let mut coverage = Coverage::NOTHING;
        coverage.add(16..20, true).unwrap();
        assert_eq!(coverage.add(24..32, false), Err(Overlap::Partial));
        let mut coverage = Coverage::NOTHING;
        coverage.add(16..24, false).unwrap();
        assert_eq!(coverage.add(0..8, true), Err(Overlap::Partial), "a second end before what has come");
    }

    proptest! {
        /// The model: a flag for each byte.
        #[test]
        fn knows_each_byte(pieces in prop::collection::vec((0u16..30, 1u16..6), 1..60)) {
            let mut coverage = Coverage::NOTHING;
            let mut bytes = [false; 40];
            for (start, len) in pieces {
                let range = usize::from(start)..usize::from(start + len);
                let known = bytes[range.clone()].iter().filter(|known| **known).count();
                let expected = match known {
                    0 => Ok(()),
                    n if n == range.len() => Err(Overlap::Repeated),
                    _ => Err(Overlap::Partial),
                };
                prop_assert_eq!(coverage.add(start..start + len, false), expected);
                if expected.is_ok() {
                    bytes[range].fill(true);
                }
            }
        }
    }
}
