//! Sessions with peers, and frames sealed in them. `docs/wire.md` is the specification.
//!
//! `Seals` holds all of it: it decides when to shake hands, seals what the switch sends, opens what comes, and hands
//! back what that was. It knows networks by their VNI alone; who may speak on which is the switch's business.
//!
//! What is sent where is decided by the peer's address, what is believed by its key: a datagram counts only if it
//! comes from the address of the peer that its session is with.

mod aead;
#[cfg(feature = "audit")]
mod audit;
mod bridge;
mod entropy;
mod freshness;
mod handshake;
mod keys;
mod load;
mod macs;
mod noise;
mod peer;
mod session;
mod stats;
#[cfg(test)]
mod tests;
mod window;

#[cfg(feature = "audit")]
pub use audit::Plaintext;
pub use keys::{Identity, KEY_LEN, PublicKey, SecretKey, Suite, UnknownSuite};
pub use stats::SessionStats;

use crate::engine::Output;
use crate::hash::{Map, Set};
use crate::ids::Vni;
use crate::snapshot;
use crate::tunnel::SealedVni;
use crate::verdict::DropReason;
use crate::wire::sealed::{
    self, FRAME_AT, HEADER_LEN, Header, Kind, Marks, OVERHEAD, SHIM_LEN, Shim, TAG_LEN,
};
use entropy::Entropy;
use load::Load;
use macs::{CookieJar, MacKeys};
use noise::Noise;
use peer::{Peer, Place};
use std::net::Ipv4Addr;

// Times in milliseconds. WireGuard's, from §6.1 of its paper, where they have its names.

/// `REKEY_AFTER_TIME`: the initiator of a session replaces it after this.
const REKEY_AFTER: u64 = 120_000;
/// The responder does so if the initiator did not.
const REKEY_AFTER_RESPONDER: u64 = 150_000;
/// `REJECT_AFTER_TIME`: nothing is sealed or opened after this.
const REJECT_AFTER: u64 = 180_000;
/// `KEEPALIVE_TIMEOUT`.
const KEEPALIVE_AFTER: u64 = 10_000;
/// Nothing came for this long in a session that is asked in four times a second: its other end may have forgotten it.
const DEAD_AFTER: u64 = 1_000;
/// A peer heard within this has a session: what it seems to say without one is a recording.
const HEARD_LATELY: u64 = 500;

/// An initiation without answer is sent again after this, then after twice as long each time, up to the usual.
const FIRST_RETRY: u64 = 250;
const USUAL_RETRY: u64 = 1_000;
/// `REKEY_TIMEOUT`, for a peer that has not answered for `REKEY_ATTEMPT_TIME`.
const SLOW_RETRY: u64 = 5_000;
const SLOW_RETRY_AFTER: u64 = 90_000;
/// WireGuard's: keeps nodes from trying in step.
const JITTER: u64 = 333;
/// Between tries at least, whatever is learned meanwhile.
const SHORTEST_RETRY: u64 = 50;

/// A peer that has just been listed is left to say hello first, for it may not have been told of this node yet.
const INTRODUCTION: u64 = 250;

/// Frames that wait for sessions, over all peers. Each is a datagram's size: 12 MiB at the usual one.
const BRIDGED: usize = 8_192;

/// The largest datagram: UDP's limit on IPv4.
const MAX_DATAGRAM: usize = 65_507;

/// What a sealed datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Of a network, whichever: its frame is in place from [`FRAME_AT`] on, up to here.
    Frame {
        vni: u32,
        marks: Marks,
        end: usize,
    },
    Question(u64),
    Answer(u64),
    /// All that was to be done about it is done.
    Settled,
}

/// Where a session index leads.
#[derive(Clone, Copy)]
struct Owner {
    peer: usize,
}

pub(crate) struct Seals {
    suite: Suite,
    noise: Noise,
    /// For messages to this node.
    macs: MacKeys,
    jar: CookieJar,
    load: Load,
    entropy: Entropy,
    peers: Vec<Peer>,
    by_vtep: Map<Ipv4Addr, usize>,
    by_index: Map<u32, Owner>,
    bridged: usize,
    /// The least of the peers' path MTUs.
    least_path_mtu: u16,
    /// When something is next to be done.
    due: Option<u64>,
    /// Dropped since they were last collected: what had waited for a session.
    lost: Lost,
}

/// What was dropped outside of anybody's call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) no_session: u64,
    pub(crate) bridge_full: u64,
}

impl Seals {
    pub(crate) fn new(identity: &Identity) -> Self {
        let mut entropy = Entropy::new(&identity.entropy);
        let noise = Noise::new(identity);
        let macs = MacKeys::of(&noise.public());
        Self {
            suite: identity.suite,
            noise,
            macs,
            jar: CookieJar::new(&mut entropy),
            load: Load::new(),
            entropy,
            peers: Vec::new(),
            by_vtep: Map::default(),
            by_index: Map::default(),
            bridged: 0,
            least_path_mtu: u16::MAX,
            due: None,
            lost: Lost::default(),
        }
    }

    /// Follows a new list of peers. Sessions with those that are not in it, or have another key or address, end.
    pub(crate) fn follow(&mut self, peers: &[snapshot::Peer], now: u64) {
        let is_first = self.peers.is_empty();
        let mut known: Vec<Option<Peer>> = std::mem::take(&mut self.peers).into_iter().map(Some).collect();
        let own = self.noise.public();
        let mut keys = Set::default();
        let old = std::mem::take(&mut self.by_vtep);
        self.peers.reserve_exact(peers.len());
        self.by_vtep.reserve(peers.len());
        for peer in peers.iter().filter(|peer| peer.key != own) {
            if self.by_vtep.contains_key(&peer.vtep) || !keys.insert(peer.key) {
                continue;
            }
            let kept = old.get(&peer.vtep).and_then(|at| known[*at].take_if(|known| known.key == peer.key));
            // Who is there when this node starts has been told of it, or will be before long.
            let not_before = if is_first { now } else { now + INTRODUCTION };
            self.by_vtep.insert(peer.vtep, self.peers.len());
            self.peers.push(kept.unwrap_or_else(|| Peer::new(peer, &mut self.entropy, not_before)));
        }
        let removed = known.iter().flatten().map(|peer| peer.bridge.len());
        self.lost.no_session += removed.sum::<usize>() as u64;
        self.bridged = self.peers.iter().map(|peer| peer.bridge.len()).sum();
        let indices = self.peers.iter().enumerate();
        self.by_index =
            indices.flat_map(|(peer, p)| p.indices().map(move |index| (index, Owner { peer }))).collect();
        self.least_path_mtu = self.find_least_path_mtu();
        self.due = self.next_due();
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.due
    }

    /// Shakes hands where it is time to, and forgets what is past its time. Too early a call does nothing.
    pub(crate) fn handle_timeout(&mut self, now: u64, out: &mut impl Output) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            for index in peer.expire(now) {
                self.by_index.remove(&index);
            }
            let given_up = peer.bridge.expire(now);
            self.lost.no_session += given_up;
            self.bridged -= given_up as usize;
            if peer.handshake_due() <= now {
                self.initiate(at, now, out);
            }
            if self.peers[at].keepalive_due().is_some_and(|due| due <= now) {
                self.say(at, Shim::Keepalive, &[], 0, now, out);
            }
        }
        self.due = self.next_due().map(|due| due.max(now + 1));
    }

    fn next_due(&self) -> Option<u64> {
        let of_peer = |peer: &Peer| {
            let others = [peer.keepalive_due(), peer.bridge.next_expiry(), peer.next_expiry()];
            others.into_iter().flatten().fold(peer.handshake_due(), u64::min)
        };
        self.peers.iter().map(of_peer).min()
    }

    fn wants_turn_at(&mut self, at: u64) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub(crate) fn has_session(&self, vtep: Ipv4Addr, now: u64) -> bool {
        self.by_vtep.get(&vtep).is_some_and(|at| self.peers[*at].can_send(now))
    }

    /// Seals a frame of a network for a peer, or keeps it until there is a session.
    pub(crate) fn seal(
        &mut self,
        to: Ipv4Addr,
        vni: SealedVni,
        marks: Marks,
        frame: &[u8],
        now: u64,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let at = *self.by_vtep.get(&to).ok_or(DropReason::PeerUnknown)?;
        if OVERHEAD + frame.len() > MAX_DATAGRAM {
            return Err(DropReason::Truncated);
        }
        if self.peers[at].can_send(now) {
            let padding = self.padding(at, OVERHEAD + frame.len(), out);
            self.send(at, Some(vni.vni()), Shim::Frame(marks), frame, padding, now, out);
            return Ok(());
        }
        let peer = &mut self.peers[at];
        if self.bridged == BRIDGED {
            return Err(DropReason::BridgeFull);
        }
        #[cfg(feature = "audit")]
        out.waits(to, Plaintext::new(Some(vni.vni()), Shim::Frame(marks), frame));
        let given_way = peer.bridge.push(vni, marks, frame, now);
        self.bridged += 1;
        self.bridged -= given_way as usize;
        self.lost.bridge_full += given_way;
        // Somebody waits: whoever was left to say hello first has had its time.
        peer.hasten(now, FIRST_RETRY);
        let due = peer.handshake_due();
        if due <= now {
            self.initiate(at, now, out);
        }
        self.wants_turn_at(self.peers[at].handshake_due());
        Ok(())
    }

    /// Bytes to put behind a frame so that it leaves together with others: never more than the path carries, while what
    /// it would leave with may be a probe of whether it carries more.
    fn padding(&self, at: usize, len: usize, out: &impl Output) -> usize {
        let peer = &self.peers[at];
        let padded = out.padded(peer.vtep, len);
        let fits = OUTER_HEADERS + padded <= usize::from(peer.path_mtu);
        if fits { padded.saturating_sub(len) } else { 0 }
    }

    /// Asks a peer, in a datagram that makes an outer packet of `size` bytes; 0: as short as it can be. Whether there
    /// was a session to ask in.
    pub(crate) fn ask(
        &mut self,
        to: Ipv4Addr,
        nonce: u64,
        size: u16,
        now: u64,
        out: &mut impl Output,
    ) -> bool {
        let Some(at) = self.by_vtep.get(&to).copied() else { return false };
        let padding = usize::from(size).saturating_sub(OUTER_HEADERS + OVERHEAD + size_of::<u64>());
        self.say(at, Shim::Question, &nonce.to_be_bytes(), padding, now, out)
    }

    /// An answer is never longer than its question.
    pub(crate) fn answer(&mut self, to: Ipv4Addr, nonce: u64, now: u64, out: &mut impl Output) {
        if let Some(at) = self.by_vtep.get(&to).copied() {
            self.say(at, Shim::Answer, &nonce.to_be_bytes(), 0, now, out);
        }
    }

    fn say(
        &mut self,
        at: usize,
        shim: Shim,
        text: &[u8],
        padding: usize,
        now: u64,
        out: &mut impl Output,
    ) -> bool {
        let can = self.peers[at].can_send(now);
        if can {
            self.send(at, None, shim, text, padding, now, out);
        }
        can
    }

    /// Seals and sends. The peer must have a session that can send.
    #[allow(clippy::too_many_arguments, reason = "what is sealed, and where it goes")]
    fn send(
        &mut self,
        at: usize,
        vni: Option<Vni>,
        shim: Shim,
        text: &[u8],
        padding: usize,
        now: u64,
        out: &mut impl Output,
    ) {
        let peer = &mut self.peers[at];
        let Some(session) = peer.current.as_deref_mut() else { return };
        let end = FRAME_AT + text.len();
        let len = end + padding + TAG_LEN;
        #[cfg(feature = "audit")]
        out.sealed(session.audit, session.counter(), Plaintext::new(vni, shim, text));
        out.datagram_in_place(peer.vtep, len, |datagram| {
            datagram[HEADER_LEN..FRAME_AT].copy_from_slice(&shim.to_bytes());
            datagram[FRAME_AT..end].copy_from_slice(text);
            datagram[end..end + padding].fill(0);
            session.seal(vni, datagram);
        });
        peer.has_sent_large |= matches!(shim, Shim::Frame(_)) && len > LARGE;
        peer.note_sent(len, now);
    }

    /// A datagram with the mark, from the VTEP `from`.
    pub(crate) fn handle_datagram(
        &mut self,
        from: Ipv4Addr,
        datagram: &mut [u8],
        now: u64,
        out: &mut impl Output,
    ) -> Result<Opened, DropReason> {
        match sealed::parse(datagram)? {
            Kind::Session(header) => self.open(from, header, datagram, now, out),
            Kind::Handshake => self.shake_hands(from, datagram, now, out).map(|()| Opened::Settled),
        }
    }

    fn open(
        &mut self,
        from: Ipv4Addr,
        header: Header,
        datagram: &mut [u8],
        now: u64,
        out: &mut impl Output,
    ) -> Result<Opened, DropReason> {
        let at = *self.by_vtep.get(&from).ok_or(DropReason::SealStranger)?;
        let owner = self.by_index.get(&header.index).filter(|owner| owner.peer == at);
        owner.ok_or(DropReason::SessionUnknown)?;
        let peer = &mut self.peers[at];
        let place = peer.place(header.index).ok_or(DropReason::SessionUnknown)?;
        peer.session(place).ok_or(DropReason::SessionUnknown)?.open(header, datagram, now)?;
        peer.note_received(datagram.len(), now);
        if place == Place::Next {
            self.take_up_offer(at, now, out);
        }
        if let Some(due) = self.peers[at].keepalive_due() {
            self.wants_turn_at(due);
        }
        read(header.vni, datagram).ok_or(DropReason::SealMalformed)
    }

    fn take_up_offer(&mut self, at: usize, now: u64, out: &mut impl Output) {
        if let Some(forgotten) = self.peers[at].take_up_offer(now) {
            self.by_index.remove(&forgotten);
        }
        self.cross_bridge(at, now, out);
    }

    /// Sends what waited for a session.
    fn cross_bridge(&mut self, at: usize, now: u64, out: &mut impl Output) {
        while let Some(waiting) = self.peers[at].bridge.pop() {
            self.bridged -= 1;
            self.send(at, Some(waiting.vni.vni()), Shim::Frame(waiting.marks), &waiting.frame, 0, now, out);
        }
        self.due = self.next_due();
    }

    /// Counts a datagram of a peer that went no further.
    pub(crate) fn blame(&mut self, from: Ipv4Addr, reason: DropReason) {
        if let Some(at) = self.by_vtep.get(&from) {
            self.peers[*at].drops[reason as usize] += 1;
        }
    }

    pub(crate) fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// A datagram of this many bytes went to a VTEP, sealed or plain.
    pub(crate) fn note_size(&mut self, to: Ipv4Addr, datagram: usize) {
        if datagram > LARGE
            && let Some(at) = self.by_vtep.get(&to)
        {
            self.peers[*at].has_sent_large = true;
        }
    }

    /// Whether one that not every path carries went to a peer since this was asked last.
    pub(crate) fn take_large(&mut self, vtep: Ipv4Addr) -> bool {
        let at = self.by_vtep.get(&vtep).copied();
        at.is_some_and(|at| std::mem::take(&mut self.peers[at].has_sent_large))
    }

    pub(crate) fn set_path_mtu(&mut self, vtep: Ipv4Addr, mtu: u16) {
        if let Some(at) = self.by_vtep.get(&vtep).copied()
            && self.peers[at].path_mtu != mtu
        {
            self.peers[at].path_mtu = mtu;
            self.least_path_mtu = self.find_least_path_mtu();
        }
    }

    /// Of all peers, in bytes.
    pub(crate) fn least_path_mtu(&self) -> u16 {
        self.least_path_mtu
    }

    fn find_least_path_mtu(&self) -> u16 {
        self.peers.iter().map(|peer| peer.path_mtu).filter(|mtu| *mtu > 0).min().unwrap_or(u16::MAX)
    }

    /// The largest outer packet to a peer, in bytes. `None`: it is no peer, and nobody knows.
    pub(crate) fn path_mtu(&self, vtep: Ipv4Addr) -> Option<u16> {
        self.by_vtep.get(&vtep).map(|at| self.peers[*at].path_mtu).filter(|mtu| *mtu > 0)
    }
}

/// A larger datagram, in bytes, may be too large for a path: half of what is used before anything is known.
const LARGE: usize = 572;

/// IPv4 without options (20) and UDP (8).
pub(crate) const OUTER_HEADERS: usize = 28;

/// What an opened datagram says. `None`: nothing that an engine seals.
fn read(vni: u32, datagram: &[u8]) -> Option<Opened> {
    let end = datagram.len() - TAG_LEN;
    let shim = datagram[HEADER_LEN..HEADER_LEN + SHIM_LEN].try_into().ok().and_then(Shim::parse)?;
    let text = &datagram[FRAME_AT..end];
    let nonce = || text.first_chunk().copied().map(u64::from_be_bytes);
    match shim {
        Shim::Frame(marks) => Some(Opened::Frame { vni, marks, end }),
        _ if vni != 0 => None,
        Shim::Question => nonce().map(Opened::Question),
        Shim::Answer if text.len() == size_of::<u64>() => nonce().map(Opened::Answer),
        Shim::Keepalive if text.is_empty() => Some(Opened::Settled),
        Shim::Answer | Shim::Keepalive => None,
    }
}
