//! A path probe: what two engines ask each other to know that the way between them is open.
//!
//! ```text
//! VXLAN header  8 B   08 00 00 00 | VNI 00 00 00 | mark 02
//! kind          1 B   01 a question, 02 its answer
//! nonce         8 B   chosen by the asker, repeated by the answerer
//! ```
//! It travels on the data path's own port, so that it meets the same firewalls, queues and losses as frames do. No
//! kernel VTEP takes it for a frame: the mark is a reserved byte that has to be zero (RFC 7348 §5). An answer is as long
//! as its question, so that nothing is amplified.

pub(crate) const LEN: usize = HEADER.len() + 1 + size_of::<u64>();

const HEADER: [u8; 8] = [0x08, 0, 0, 0, 0, 0, 0, 0x02];
const ASK: u8 = 1;
const ANSWER: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Ask(u64),
    Answer(u64),
}

impl Probe {
    /// Whether a datagram is a probe, well formed or not.
    pub(crate) fn is(datagram: &[u8]) -> bool {
        datagram.starts_with(&HEADER)
    }

    /// `None` for what no engine sends.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let [kind, nonce @ ..] = datagram.strip_prefix(&HEADER)? else { return None };
        let nonce = u64::from_be_bytes(nonce.try_into().ok()?);
        match *kind {
            ASK => Some(Self::Ask(nonce)),
            ANSWER => Some(Self::Answer(nonce)),
            _ => None,
        }
    }

    pub(crate) fn datagram(self) -> [u8; LEN] {
        let (kind, nonce) = match self {
            Self::Ask(nonce) => (ASK, nonce),
            Self::Answer(nonce) => (ANSWER, nonce),
        };
        let mut datagram = [0; LEN];
        let (header, body) = datagram.split_at_mut(HEADER.len());
        header.copy_from_slice(&HEADER);
        body[0] = kind;
        body[1..].copy_from_slice(&nonce.to_be_bytes());
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vxlan;

    #[test]
    fn is_read_as_it_was_written() {
        for probe in [Probe::Ask(7), Probe::Answer(u64::MAX)] {
            let datagram = probe.datagram();
            assert!(Probe::is(&datagram));
            assert_eq!(Probe::parse(&datagram), Some(probe));
        }
        let bytes = Probe::Ask(0x0102_0304_0506_0708).datagram();
        assert_eq!(bytes, [8, 0, 0, 0, 0, 0, 0, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn other_lengths_and_kinds_are_none() {
        let mut long = Probe::Ask(7).datagram().to_vec();
        long.push(0);
        assert_eq!(Probe::parse(&long), None);
        assert_eq!(Probe::parse(&long[..LEN - 1]), None);
        assert_eq!(Probe::parse(&HEADER), None);
        long.pop();
        long[8] = 3;
        assert_eq!(Probe::parse(&long), None);
    }

    #[test]
    fn is_no_frame_of_any_network() {
        assert!(vxlan::parse(&Probe::Ask(7).datagram()).is_err());
        assert!(!Probe::is(&[8, 0, 0, 0, 0, 0, 1, 2, 1]), "a VNI makes it something else");
    }
}
