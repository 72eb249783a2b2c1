//! [`Forgery`]: what is injected, and why it has to be dropped.

use super::Recorded;
use crate::hostile::STRANGER;
use crate::identity::public;
use crate::run::Run;
use crate::wire::{Kind, Step, kind};
use crate::world::{Node, node_of, vtep};
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use skep_dataplane::DropReason;
use std::net::Ipv4Addr;

/// Of a handshake message: its index, its MACs, and the lengths of the three.
const INDEX: usize = 16;
const MACS: usize = 32;
const LENGTHS: [usize; 3] = [180, 120, 76];

/// Where a datagram's mark is, and what is sealed or authenticated begins.
const MARK: usize = 7;
const BODY: usize = 8;

pub(super) struct Forgery {
    pub(super) what: &'static str,
    pub(super) from: Ipv4Addr,
    pub(super) to: Node,
    pub(super) bytes: Vec<u8>,
    /// One of these; none: whichever.
    pub(super) reasons: Vec<DropReason>,
    /// It is an initiation of the peer's, word for word.
    pub(super) may_introduce: bool,
}

impl Run {
    pub(super) fn forgery_of(&mut self, recorded: &Recorded) -> Option<Forgery> {
        match self.rng.below(11) {
            0 | 1 => self.repeated(recorded),
            2 => Some(self.elsewhere_from(recorded)),
            3 => Some(self.elsewhere_to(recorded)),
            4 | 5 => self.flipped(recorded),
            6 => Some(self.cut_or_grown(recorded)),
            7 => Some(self.of_another_network(recorded)),
            8 => self.laid_bare(recorded),
            9 => Some(self.unmarked(recorded)),
            _ => Some(self.made_up(recorded)),
        }
    }

    fn forgery(&self, what: &'static str, recorded: &Recorded) -> Forgery {
        let Recorded { from, datagram, .. } = recorded;
        let (from, to, bytes) = (vtep(*from), datagram.to, datagram.bytes.clone());
        Forgery { what, from, to, bytes, reasons: vec![], may_introduce: false }
    }

    /// Word for word, by whom and to whom it was sent. That of another life as well.
    pub(super) fn repeated(&mut self, recorded: &Recorded) -> Option<Forgery> {
        let forgery = self.forgery("a recording", recorded);
        let (reasons, may_introduce) = match kind(&forgery.bytes) {
            Kind::Session { index, counter } => {
                (vec![self.reason_for(forgery.from, forgery.to, index, counter)], false)
            }
            _ if self.is_stranger(&forgery) => (vec![DropReason::HandshakeStranger], false),
            Kind::Handshake(Step::Initiation { .. }) => {
                (vec![DropReason::HandshakeReplayed, DropReason::HandshakeStale], true)
            }
            _ => (vec![DropReason::HandshakeUnasked], false),
        };
        // Who brings what is only late is no forger.
        let is_late = !recorded.has_arrived && !is_of_nobody(&reasons);
        (!is_late).then_some(Forgery { reasons, may_introduce, ..forgery })
    }

    fn elsewhere_from(&mut self, recorded: &Recorded) -> Forgery {
        let forgery = self.forgery("a recording from another address", recorded);
        let others = (1..=self.nodes()).filter(|node| *node != recorded.from).map(vtep).chain([STRANGER]);
        let from = *self.rng.pick(&others.collect::<Vec<_>>());
        let forgery = Forgery { from, ..forgery };
        let reason = match kind(&forgery.bytes) {
            Kind::Session { index, counter } => self.reason_for(from, forgery.to, index, counter),
            _ if self.is_stranger(&forgery) => DropReason::HandshakeStranger,
            Kind::Handshake(Step::Initiation { .. }) => DropReason::HandshakeForged,
            _ => DropReason::HandshakeUnasked,
        };
        Forgery { reasons: vec![reason], ..forgery }
    }

    fn elsewhere_to(&mut self, recorded: &Recorded) -> Forgery {
        let forgery = self.forgery("a recording to another node", recorded);
        let others = (1..=self.nodes()).filter(|node| *node != forgery.to && *node != recorded.from);
        let to = *self.rng.pick(&others.collect::<Vec<_>>());
        let forgery = Forgery { to, ..forgery };
        let reason = match kind(&forgery.bytes) {
            Kind::Session { index, counter } => self.reason_for(forgery.from, to, index, counter),
            _ if self.is_stranger(&forgery) => DropReason::HandshakeStranger,
            Kind::Handshake(Step::Initiation { .. }) => DropReason::HandshakeMac,
            _ => DropReason::HandshakeUnasked,
        };
        Forgery { reasons: vec![reason], ..forgery }
    }

    /// One bit is another.
    fn flipped(&mut self, recorded: &Recorded) -> Option<Forgery> {
        let mut forgery = self.forgery("a flipped bit", recorded);
        let len = forgery.bytes.len();
        let is_handshake = matches!(kind(&forgery.bytes), Kind::Handshake(_));
        // The MAC that proves an address is looked at under load only; without it the message is a true one.
        let end = if is_handshake { len - MACS / 2 } else { len };
        let at = self.rng.below(end as u64) as usize;
        forgery.bytes[at] ^= 1 << self.rng.below(8);
        if at >= BODY && !is_handshake {
            forgery.reasons = self.reasons_of_body(&forgery);
        }
        Some(forgery)
    }

    fn cut_or_grown(&mut self, recorded: &Recorded) -> Forgery {
        let forgery = self.forgery("another length", recorded);
        let mut bytes = forgery.bytes.clone();
        if self.rng.percent(50) {
            bytes.truncate(self.rng.below(forgery.bytes.len() as u64) as usize);
            return Forgery { bytes, ..forgery };
        }
        bytes.extend(self.noise(1, 40));
        let reasons = match kind(&forgery.bytes) {
            Kind::Handshake(_) if self.is_stranger(&forgery) => vec![DropReason::HandshakeStranger],
            Kind::Handshake(_) => vec![DropReason::HandshakeMalformed],
            _ => self.reasons_of_body(&forgery),
        };
        Forgery { bytes, reasons, ..forgery }
    }

    /// Whether it comes from nobody its receiver knows.
    fn is_stranger(&self, forgery: &Forgery) -> bool {
        forgery.from == STRANGER || !self.sessions.is_peer(forgery.to, node_of(forgery.from))
    }

    /// What a receiver says to bytes that carry the mark and an index, and that nobody sealed.
    fn reasons_of_body(&self, forgery: &Forgery) -> Vec<DropReason> {
        let word = |at: usize| u32::from_be_bytes(forgery.bytes[at..at + 4].try_into().unwrap());
        let (index, counter) = (word(8), u64::from(word(12)) << 32 | u64::from(word(16)));
        match index {
            0 => vec![],
            // A counter far behind the newest is refused like one that came.
            _ => match self.reason_for(forgery.from, forgery.to, index, counter) {
                DropReason::SealBroken => vec![DropReason::SealBroken, DropReason::SessionExpired],
                reason => vec![reason],
            },
        }
    }

    fn of_another_network(&mut self, recorded: &Recorded) -> Forgery {
        let mut forgery = self.forgery("another VNI", recorded);
        let own = crate::wire::vni(&forgery.bytes);
        let vnis = self.nets.iter().map(|net| net.vni).chain([0, 1, 0xff_ffff]).filter(|vni| *vni != own);
        let vni = *self.rng.pick(&vnis.collect::<Vec<_>>());
        forgery.bytes[4..7].copy_from_slice(&vni.to_be_bytes()[1..]);
        forgery.reasons = match kind(&recorded.datagram.bytes) {
            Kind::Handshake(_) => vec![DropReason::HandshakeMalformed],
            _ => self.reasons_of_body(&forgery),
        };
        forgery
    }

    /// What was sealed, as plain as on a plain network: an insider's doing, or a node's that has lost its mind.
    fn laid_bare(&mut self, recorded: &Recorded) -> Option<Forgery> {
        let forgery = self.forgery("the plain frame", recorded);
        let (_, text) = recorded.datagram.sealed.as_ref().filter(|(_, text)| text.is_frame())?;
        let mut bytes = vec![8, 0, 0, 0];
        bytes.extend((text.vni << 8).to_be_bytes());
        bytes.extend(&text.bytes);
        Some(Forgery { bytes, reasons: vec![DropReason::Unsealed, DropReason::UnknownVni], ..forgery })
    }

    /// Sealed bytes as the frame of whichever network, or that of no network.
    fn unmarked(&mut self, recorded: &Recorded) -> Forgery {
        let mut forgery = self.forgery("sealed bytes without the mark", recorded);
        let vnis: Vec<u32> = self.nets.iter().map(|net| net.vni).collect();
        if self.rng.percent(70) {
            let vni = *self.rng.pick(&vnis);
            forgery.bytes[4..7].copy_from_slice(&vni.to_be_bytes()[1..]);
        }
        forgery.bytes[0] = 8;
        forgery.bytes[MARK] = 0;
        forgery
    }

    /// A message of a handshake, of noise, but for an index that its receiver waits for, and the MAC that everybody can
    /// make who knows its key.
    fn made_up(&mut self, recorded: &Recorded) -> Forgery {
        let forgery = self.forgery("a made-up handshake", recorded);
        let (from, to) = (recorded.from, forgery.to);
        let kind = self.rng.below(3) as usize;
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, kind as u8 + 1, 0, 0, 0];
        let len = LENGTHS[kind];
        bytes.extend(self.noise(len, len + 1));
        bytes.truncate(len);
        let at = if kind == 1 { INDEX + 4 } else { INDEX };
        let asked = self.sessions.asked(to, from).filter(|_| self.rng.percent(70));
        if let Some(index) = asked {
            bytes[at..at + 4].copy_from_slice(&index.to_be_bytes());
        }
        let is_signed = self.rng.percent(50);
        if is_signed && kind < 2 {
            let mac = mac1(to, &bytes[..len - MACS]);
            bytes[len - MACS..len - MACS / 2].copy_from_slice(&mac);
        }
        let reason = match kind {
            _ if self.is_stranger(&forgery) => DropReason::HandshakeStranger,
            1 | 2 if asked.is_none() => DropReason::HandshakeUnasked,
            0 | 1 if !is_signed => DropReason::HandshakeMac,
            _ => DropReason::HandshakeForged,
        };
        Forgery { bytes, reasons: vec![reason], ..forgery }
    }

    fn noise(&mut self, least: usize, most: usize) -> Vec<u8> {
        let len = self.rng.between(least as u64, most as u64) as usize;
        (0..len).map(|_| self.rng.next() as u8).collect()
    }
}

/// Whether a datagram is dropped by a node that cannot read it, however new it is.
fn is_of_nobody(reasons: &[DropReason]) -> bool {
    matches!(reasons, [DropReason::SessionUnknown | DropReason::SealStranger | DropReason::HandshakeStranger])
}

/// As `docs/wire.md` has it, for messages to a node.
fn mac1(to: Node, covered: &[u8]) -> [u8; 16] {
    let key = Blake2s256::new().chain_update(b"skep mac1").chain_update(public(to).0).finalize();
    let mac: Blake2sMac<U16> = KeyInit::new_from_slice(&key).unwrap();
    mac.chain_update(covered).finalize_fixed().into()
}
