//! [`Eavesdropper`]: reads everything on the underlay. Of sealed networks it must learn nothing, and no nonce may ever be
//! used twice, whichever engines begin anew.

use crate::probe::{ID_LEN, MIN_LEN, STRETCH, is_stretch};
use crate::wire::{Datagram, Nonce};
use std::collections::{BTreeMap, HashSet};

/// Where it looks for stretches of payloads: it finds any that is as much longer than one.
const STRIDE: usize = 8;

/// Numbers of probes are small: so many of their first bytes are zeroes.
const ZEROES: usize = 4;

#[derive(Default)]
pub(crate) struct Eavesdropper {
    nonces: HashSet<Nonce>,
    /// How the payloads of sealed probes begin: by the number, what follows it.
    beginnings: BTreeMap<u64, [u8; MIN_LEN - ID_LEN]>,
}

impl Eavesdropper {
    /// What it must never read.
    pub(crate) fn keep_from(&mut self, id: u64, payload: &[u8]) {
        self.beginnings.insert(id, payload[ID_LEN..MIN_LEN].try_into().unwrap());
    }

    /// Reads a datagram that an engine sent.
    pub(crate) fn hear(&mut self, datagram: &Datagram) -> Result<(), &'static str> {
        let bytes = &datagram.bytes;
        if let Some((nonce, _)) = &datagram.sealed {
            if !self.nonces.insert(*nonce) {
                return Err("a nonce comes twice");
            }
            if bytes.windows(STRETCH).step_by(STRIDE).any(is_stretch) {
                return Err("legible on the underlay");
            }
        }
        let mut zeroes = 0;
        for (at, byte) in bytes.iter().enumerate() {
            zeroes = if *byte == 0 { zeroes + 1 } else { 0 };
            if zeroes >= ZEROES && self.is_beginning(&bytes[at + 1 - ZEROES..]) {
                return Err("a sealed probe begins on the underlay");
            }
        }
        Ok(())
    }

    /// Whether a sealed probe's payload begins so.
    fn is_beginning(&self, bytes: &[u8]) -> bool {
        let Some((number, rest)) = bytes.split_first_chunk::<ID_LEN>() else { return false };
        let follows = self.beginnings.get(&u64::from_be_bytes(*number));
        follows.is_some_and(|follows| rest.starts_with(follows))
    }
}

#[test]
fn hears_what_is_legible() {
    let mut eavesdropper = Eavesdropper::default();
    let payload = crate::probe::payload(77, 200);
    eavesdropper.keep_from(77, &payload);
    let sealed = Some((([0; 16], 0), crate::wire::Text::default()));
    let datagram = |bytes: &[u8], sealed| Datagram { to: 1, bytes: bytes.to_vec(), sealed, probes: vec![] };
    let hears = |datagram: Datagram| {
        let beginnings = eavesdropper.beginnings.clone();
        Eavesdropper { nonces: HashSet::new(), beginnings }.hear(&datagram).is_err()
    };
    let noise: Vec<u8> = (0..60u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    assert!(!hears(datagram(&noise, sealed.clone())));
    for from in 0..noise.len() {
        let first = [&noise[..from], &payload[..MIN_LEN], &noise].concat();
        assert!(hears(datagram(&first, None)), "a beginning at {from}");
        let later = &payload[100 + from..100 + from + STRETCH + STRIDE];
        assert!(hears(datagram(&[&noise[..from], later, &noise].concat(), sealed.clone())), "more at {from}");
    }
    let again = datagram(&noise, sealed);
    eavesdropper.hear(&again).unwrap();
    eavesdropper.hear(&again).expect_err("a nonce twice");
}
