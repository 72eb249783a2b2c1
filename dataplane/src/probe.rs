//! [`Probes`]: which peers answer on the data path, both ways.
//!
//! The questions travel in the peers' sessions: nobody else can ask or answer. Every peer is asked once a round; one that has not answered is asked again at shorter intervals, so
//! that random loss takes many losses in a row to look like silence. A peer is *silent* when nothing it was asked came
//! back for [`LIMIT`], and *answers* again after two answers to consecutive questions.
//!
//! A node that gets no CPU hears nobody, which says nothing about its peers. What gives it away is its own timer: time
//! by which that comes late does not count as a peer's silence, and each that is very late raises the limit for the time being
//! (the local health multiplier of Lifeguard, arXiv:1707.00788). Whoever drives the engine hands in what waits in the
//! socket before it calls the timer, so that no answer that has arrived is overlooked.

mod mtu;
mod peer;

use crate::engine::Output;
use crate::seal::{Seals, SessionStats};
use crate::verdict::DropReason;
use peer::Peer;
use std::hash::{DefaultHasher, Hasher};
use std::net::Ipv4Addr;
use std::time::Instant;

/// Every peer is asked this often, in milliseconds.
const ROUND: u64 = 250;

/// A peer whose answer is missing is asked again this often, in milliseconds: 14 questions until it is silent.
const RETRY: u64 = 50;

/// A peer that was not heard for this long is silent, in milliseconds. Names and balancing follow within a second of the
/// fault, and this leaves them the rest.
const LIMIT: u64 = 950;

/// A peer that has just been listed is asked this much later, in milliseconds, unless it asks first: it may not have been
/// told of this node yet, and would count it as a stranger.
const INTRODUCTION: u64 = 1_000;

/// Later than this, in milliseconds, the timer was kept from running; below is a busy kernel's usual latency.
const LATE: u64 = 20;

/// Later than this, in milliseconds, the node is starved: two questions' time.
const STARVED: u64 = 2 * RETRY;

/// As many times the usual limit a starved node waits longer at most (Lifeguard's S).
const MAX_STARVED: u64 = 8;

/// What is known of the path to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStats {
    /// Its VTEP.
    pub peer: Ipv4Addr,
    /// Questions for it, and how many of them it answered in time to be recognised.
    pub asked: u64,
    pub answered: u64,
    /// When its last answer came, if ever one did.
    pub last_heard: Option<Instant>,
    /// It is out of use until it answers again.
    pub silent: bool,
    /// The largest outer IP packet, in bytes, that is sent to it.
    pub mtu: u16,
    /// That is what the path carries, as far as was found out; else what is used until it is.
    pub is_measured: bool,
    pub session: SessionStats,
}

pub(crate) struct Probes {
    seed: u64,
    /// Questions so far: no two have the same nonce.
    nonces: u64,
    /// By address.
    peers: Vec<Peer>,
    /// By address.
    silent: Vec<Ipv4Addr>,
    next_round: u64,
    /// When the timer is wanted; `None` while there are no peers.
    due: Option<u64>,
    /// How starved this node is: 0 is well.
    starved: u64,
    /// The MTU of the interface, in bytes.
    underlay_mtu: u16,
}

/// Where nobody says, in bytes: Ethernet's.
const USUAL_MTU: u16 = 1_500;

impl Probes {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            nonces: 0,
            peers: Vec::new(),
            silent: Vec::new(),
            next_round: 0,
            due: None,
            starved: 0,
            underlay_mtu: USUAL_MTU,
        }
    }

    /// Follows a new list of peers. What is known of those that stay is kept; a new one answers until it does not.
    ///
    /// `underlay_mtu` is the interface's, in bytes; 0: unknown.
    pub(crate) fn follow(
        &mut self,
        vteps: &[Ipv4Addr],
        underlay_mtu: u16,
        seals: &mut Seals,
        now: u64,
        out: &mut impl Output,
    ) {
        let mut vteps = vteps.to_vec();
        vteps.sort_unstable();
        vteps.dedup();
        self.underlay_mtu = if underlay_mtu == 0 { USUAL_MTU } else { underlay_mtu };
        let kept = |vtep: &Ipv4Addr| self.find(*vtep).map(|at| self.peers[at].clone());
        let new = |vtep: &Ipv4Addr| Peer::new(*vtep, self.underlay_mtu, now);
        self.peers = vteps.iter().map(|vtep| kept(vtep).unwrap_or_else(|| new(vtep))).collect();
        for peer in &mut self.peers {
            peer.mtu.set_most(self.underlay_mtu, now);
            seals.set_path_mtu(peer.vtep, peer.mtu.limit());
        }
        self.due = match self.due {
            _ if self.peers.is_empty() => None,
            Some(due) => Some(due),
            None => {
                self.next_round = now;
                Some(now)
            }
        };
        self.silent.reserve(self.peers.len());
        let before = self.silent.len();
        self.silent.retain(|vtep| vteps.binary_search(vtep).is_ok());
        if self.silent.len() != before {
            out.reachability(&self.silent);
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.due
    }

    /// Asks those whose turn it is and judges those that were not heard. Too early a call does nothing.
    pub(crate) fn handle_timeout(&mut self, seals: &mut Seals, now: u64, out: &mut impl Output) {
        let Some(due) = self.due.filter(|due| *due <= now) else { return };
        let is_round = self.next_round <= now;
        self.take_lateness(now, now - due, is_round);
        if is_round {
            self.next_round = now + ROUND;
        }
        let limit = LIMIT * (1 + self.starved);
        let mut has_news = false;
        for peer in &mut self.peers {
            has_news |= peer.falls_silent(now, limit);
            if is_round && peer.is_introduced(now) || peer.wants_retry(now) {
                self.nonces += 1;
                let nonce = nonce(self.seed, self.nonces);
                peer.ask(nonce, now);
                // Without a session nobody is asked, and nobody answers.
                seals.ask(peer.vtep, nonce, 0, now, out);
            }
            if peer.mtu.due() <= now {
                ask_sizes(peer, (self.seed, &mut self.nonces), seals, now, out);
            }
        }
        let wanted = self.peers.iter().filter_map(|peer| peer.next_turn(limit));
        let sizes = self.peers.iter().map(|peer| peer.mtu.due());
        self.due = wanted.chain(sizes).chain([self.next_round]).min().map(|due| due.max(now + 1));
        if has_news {
            self.tell(out);
        }
    }

    /// A peer asked, and is answered.
    pub(crate) fn asked(
        &mut self,
        by: Ipv4Addr,
        nonce: u64,
        seals: &mut Seals,
        now: u64,
        out: &mut impl Output,
    ) {
        if let Some(at) = self.find(by) {
            self.peers[at].introduce(now);
        }
        seals.answer(by, nonce, now, out);
    }

    /// A peer answered.
    pub(crate) fn answered(
        &mut self,
        by: Ipv4Addr,
        nonce: u64,
        seals: &mut Seals,
        now: u64,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let at = self.find(by).ok_or(DropReason::ProbeUnasked)?;
        let peer = &mut self.peers[at];
        if let Some(returns) = peer.answer(nonce, now) {
            if returns {
                self.tell(out);
            }
            return Ok(());
        }
        if !peer.mtu.answer(nonce, now) {
            return Err(DropReason::ProbeUnasked);
        }
        seals.set_path_mtu(by, peer.mtu.limit());
        let due = peer.mtu.due();
        self.due = self.due.map(|earliest| earliest.min(due.max(now + 1)));
        Ok(())
    }

    /// In the order of the peers' addresses; `epoch` is when the engine's time began.
    pub(crate) fn stats(&self, seals: &Seals, epoch: Option<Instant>) -> Vec<PathStats> {
        self.peers.iter().map(|peer| peer.stats(seals.stats(peer.vtep, epoch), epoch)).collect()
    }

    fn take_lateness(&mut self, now: u64, late: u64, is_round: bool) {
        if late > LATE {
            self.peers.iter_mut().for_each(|peer| peer.excuse(late, now));
        }
        if late > STARVED {
            self.starved = (self.starved + 1).min(MAX_STARVED);
        } else if is_round {
            self.starved = self.starved.saturating_sub(1);
        }
    }

    fn tell(&mut self, out: &mut impl Output) {
        self.silent.clear();
        self.silent.extend(self.peers.iter().filter(|peer| peer.is_silent()).map(|peer| peer.vtep));
        out.reachability(&self.silent);
    }

    fn find(&self, vtep: Ipv4Addr) -> Option<usize> {
        self.peers.binary_search_by_key(&vtep, |peer| peer.vtep).ok()
    }
}

/// Asks for sizes, in as many questions as there are of them.
fn ask_sizes(
    peer: &mut Peer,
    (seed, nonces): (u64, &mut u64),
    seals: &mut Seals,
    now: u64,
    out: &mut impl Output,
) {
    if !seals.has_session(peer.vtep, now) {
        return peer.mtu.postpone(now);
    }
    let is_large = seals.take_large(peer.vtep);
    for size in peer.mtu.turn(now, is_large, peer.last_heard()) {
        *nonces += 1;
        let nonce = nonce(seed, *nonces);
        peer.mtu.note_asked(nonce, size, now);
        seals.ask(peer.vtep, nonce, size, now, out);
    }
    seals.set_path_mtu(peer.vtep, peer.mtu.limit());
}

/// SipHash: a peer that sees its own nonces learns neither another's nor the seed.
fn nonce(seed: u64, nth: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write_u64(nth);
    hasher.finish()
}
