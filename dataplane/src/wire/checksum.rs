//! The Internet checksum: whole (RFC 1071) and incremental (RFC 1624).
//!
//! A field is *full* when it holds the complemented sum over everything it covers. It is *partial*
//! when someone later adds the payload: then it holds the folded pseudo-header sum, not complemented.

use std::net::Ipv4Addr;

/// Folded one's complement sum of `bytes` as big-endian words; an odd last byte is padded with zero.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    // RFC 1071 §2(B): summing in any byte order gives the same sum in that order, so whole native
    // words are added and the result is swapped once. A u64 cannot overflow below 16 GiB of input.
    let mut total: u64 = 0;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut tail = [0; 4];
    let rest = words.remainder();
    tail[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(tail));
    let folded = (total & 0xffff_ffff) + (total >> 32);
    let folded = (folded & 0xffff_ffff) + (folded >> 32);
    u16::from_be(fold(folded as u32))
}

/// Adds the carries back in (RFC 1071 §1).
pub(crate) fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum of `bytes` whose own field is zero.
pub(crate) fn of(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// Folded sum of the pseudo-header of TCP and UDP (RFC 9293 §3.1, RFC 768).
pub(crate) fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> u16 {
    let halves = |ip: Ipv4Addr| (ip.to_bits() >> 16) + (ip.to_bits() & 0xffff);
    // The length field has 16 bits: an IPv4 packet is no longer.
    fold(halves(src) + halves(dst) + u32::from(protocol) + (len as u32 & 0xffff))
}

/// The full checksum of a TCP segment or UDP datagram whose own field is zero.
pub(crate) fn transport(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, segment: &[u8]) -> u16 {
    !fold(u32::from(pseudo_header(src, dst, protocol, segment.len())) + u32::from(sum(segment)))
}

/// What a change of some words does to a checksum over them: the sum of `~old + new` (RFC 1624 §3, equation 3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delta(u32);

impl Delta {
    pub(crate) fn word(mut self, old: u16, new: u16) -> Self {
        if old != new {
            self.0 += u32::from(!old) + u32::from(new);
        }
        self
    }

    pub(crate) fn ip(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        let (old, new) = (old.to_bits(), new.to_bits());
        self.word((old >> 16) as u16, (new >> 16) as u16).word(old as u16, new as u16)
    }

    pub(crate) fn full(self, checksum: u16) -> u16 {
        if self.0 == 0 { checksum } else { !fold(u32::from(!checksum) + self.0) }
    }

    pub(crate) fn partial(self, sum: u16) -> u16 {
        if self.0 == 0 { sum } else { fold(u32::from(sum) + self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{put_u16, u16_at};
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §3.
    #[test]
    fn sums_the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    /// RFC 1624 §4: the case that equation 2 of RFC 1141 gets wrong.
    #[test]
    fn updates_the_example_of_rfc_1624() {
        assert_eq!(Delta::default().word(0x5555, 0x3285).full(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn sum_is_the_sum_of_big_endian_words(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut slow = 0u32;
            for pair in bytes.chunks(2) {
                slow += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
                slow = (slow & 0xffff) + (slow >> 16);
            }
            prop_assert_eq!(u32::from(sum(&bytes)), slow);
        }

        #[test]
        fn an_update_equals_a_full_recomputation(
            mut bytes in prop::collection::vec(any::<u8>(), 4..100),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            bytes[0] |= 1; // an all-zero input has two checksums
            let at = 2 + at.index((bytes.len() - 2) / 2) * 2;
            let before = of(&bytes);
            let old = u16_at(&bytes, at);
            put_u16(&mut bytes, at, new);
            prop_assert_eq!(Delta::default().word(old, new).full(before), of(&bytes));
            prop_assert_eq!(Delta::default().word(old, new).partial(!before), !of(&bytes));
        }

        /// A translation changes two addresses and two ports at once; all of it, or nothing, or back again.
        #[test]
        fn updates_add_up(
            mut bytes in prop::collection::vec(any::<u8>(), 20..100),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>()), 0..8),
        ) {
            bytes[0] |= 1;
            let (sent, before) = (bytes.clone(), of(&bytes));
            let (mut there, mut back) = (Delta::default(), Delta::default());
            for (at, new) in changes {
                let at = 2 + at.index((bytes.len() - 2) / 2) * 2;
                let old = u16_at(&bytes, at);
                put_u16(&mut bytes, at, new);
                there = there.word(old, new);
                back = back.word(new, old);
            }
            prop_assert_eq!(there.full(before), of(&bytes));
            prop_assert_eq!(there.partial(!before), !of(&bytes));
            prop_assert_eq!(back.full(there.full(before)), of(&sent));
        }

        #[test]
        fn an_address_is_two_words(old in any::<u32>(), new in any::<u32>(), checksum in 1u16..0xffff) {
            let words = Delta::default().word((old >> 16) as u16, (new >> 16) as u16).word(old as u16, new as u16);
            prop_assert_eq!(Delta::default().ip(old.into(), new.into()).full(checksum), words.full(checksum));
        }
    }
}
