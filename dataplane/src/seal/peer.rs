//! [`Peer`]: one peer's sessions, the handshake that is under way, and what waits for it.
//!
//! ```text
//! no session ──initiation──▶ pending ──response──▶ current ──next one's current──▶ previous ──180 s──▶ gone
//! an initiation of the peer's ──response──▶ next ──its first datagram──▶ current
//! ```
//! Only `current` seals; all three open. A node that answered a handshake uses it when the other has shown that the
//! answer came: so no datagram is sealed that its receiver has no key for.

use super::bridge::Bridge;
use super::entropy::Entropy;
use super::freshness::Freshness;
use super::keys::PublicKey;
use super::load::{Bucket, PEER_BURST, PEER_PARTS};
use super::macs::{COOKIE_LIFETIME, Cookie, MacKeys};
use super::noise::Initiated;
use super::session::Session;
use super::{DEAD_AFTER, FIRST_RETRY, JITTER, KEEPALIVE_AFTER, SLOW_RETRY, SLOW_RETRY_AFTER, USUAL_RETRY};
use crate::snapshot;
use crate::verdict::DropReason;
use crate::wire::sealed::handshake::MAC_LEN;
use std::net::Ipv4Addr;

/// An initiation of ours that was not answered yet.
pub(crate) struct Pending {
    pub(crate) our_index: u32,
    pub(crate) noise: Initiated,
    pub(crate) sent: u64,
    /// It repeats a token of the peer's, so that it may well be answered.
    pub(crate) is_promising: bool,
    /// Of the message: a cookie is sealed for who made it.
    pub(crate) mac1: [u8; MAC_LEN],
}

/// What has gone through.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) handshakes: u64,
    pub(crate) rekeys: u64,
    pub(crate) datagrams_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) datagrams_received: u64,
    pub(crate) bytes_received: u64,
}

pub(crate) struct Peer {
    pub(crate) vtep: Ipv4Addr,
    pub(crate) key: PublicKey,
    /// For messages to it.
    pub(crate) macs: MacKeys,
    pub(crate) current: Option<Box<Session>>,
    previous: Option<Box<Session>>,
    next: Option<Box<Session>>,
    pub(crate) pending: Option<Pending>,
    /// Which of our lives this is to it: drawn anew at each start, and where we had forgotten it in between.
    pub(crate) life: u64,
    pub(crate) fresh: Freshness,
    cookie: Option<(Cookie, u64)>,
    pub(crate) bridge: Bridge,
    /// Of handshakes whose address is proved.
    pub(crate) allowance: Bucket,
    /// Initiations since the last that led to a session, and when the first of them was sent.
    attempts: u32,
    first_attempt: u64,
    /// When the next may be sent.
    next_attempt: u64,
    last_attempt: u64,
    /// When the last authentic datagram came, and the last one was sent.
    pub(crate) heard: Option<u64>,
    sent: u64,
    /// Something came that nothing was sent after.
    owes_answer: bool,
    /// The peer may have forgotten the session.
    is_doubted: bool,
    pub(crate) since: Option<u64>,
    pub(crate) last_handshake: Option<u64>,
    pub(crate) tally: Tally,
    pub(crate) drops: Box<[u64]>,
    /// A datagram that not every path carries was sent.
    pub(crate) has_sent_large: bool,
    /// The largest outer packet, in bytes, that is known to arrive.
    pub(crate) path_mtu: u16,
}

/// Which of a peer's sessions, or its pending handshake, an index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Current,
    Previous,
    Next,
}

impl Peer {
    pub(crate) fn new(peer: &snapshot::Peer, entropy: &mut Entropy, not_before: u64) -> Self {
        Self {
            vtep: peer.vtep,
            key: peer.key,
            macs: MacKeys::of(&peer.key),
            current: None,
            previous: None,
            next: None,
            pending: None,
            life: entropy.nonzero_u64(),
            fresh: Freshness::new(entropy),
            cookie: None,
            bridge: Bridge::default(),
            allowance: Bucket::new(PEER_BURST, PEER_PARTS),
            attempts: 0,
            first_attempt: 0,
            next_attempt: not_before,
            last_attempt: 0,
            heard: None,
            sent: 0,
            owes_answer: false,
            is_doubted: false,
            since: None,
            last_handshake: None,
            tally: Tally::default(),
            drops: vec![0; DropReason::ALL.len()].into_boxed_slice(),
            has_sent_large: false,
            path_mtu: 0,
        }
    }

    pub(crate) fn place(&self, index: u32) -> Option<Place> {
        let is = |session: &Option<Box<Session>>| session.as_ref().is_some_and(|s| s.our_index == index);
        match () {
            () if is(&self.current) => Some(Place::Current),
            () if is(&self.previous) => Some(Place::Previous),
            () if is(&self.next) => Some(Place::Next),
            () => None,
        }
    }

    pub(crate) fn session(&mut self, place: Place) -> Option<&mut Session> {
        match place {
            Place::Current => self.current.as_deref_mut(),
            Place::Previous => self.previous.as_deref_mut(),
            Place::Next => self.next.as_deref_mut(),
        }
    }

    /// The indices this peer holds.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> {
        let sessions = [&self.current, &self.previous, &self.next];
        let pending = self.pending.as_ref().map(|pending| pending.our_index);
        sessions.into_iter().flatten().map(|session| session.our_index).chain(pending)
    }

    /// A session whose use the peer has agreed to by answering. Returns the index of the one that is forgotten for it.
    pub(crate) fn begin(&mut self, session: Session, now: u64) -> Option<u32> {
        self.note_handshake(now);
        self.attempts = 0;
        self.use_next(Box::new(session), now)
    }

    /// Whether an initiation of ours is on its way that the peer is about to answer.
    pub(crate) fn awaits_response(&self, now: u64) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.is_promising && now < pending.sent + FIRST_RETRY)
    }

    /// A session that the peer has to use first. Returns the index of one that it never did.
    pub(crate) fn offer(&mut self, session: Session) -> Option<u32> {
        self.next.replace(Box::new(session)).map(|unused| unused.our_index)
    }

    /// The peer uses what it was offered.
    pub(crate) fn take_up_offer(&mut self, now: u64) -> Option<u32> {
        let next = self.next.take()?;
        self.note_handshake(now);
        self.attempts = 0;
        self.use_next(next, now)
    }

    fn use_next(&mut self, session: Box<Session>, now: u64) -> Option<u32> {
        self.since.get_or_insert(now);
        let before = self.current.replace(session)?;
        self.previous.replace(before).map(|oldest| oldest.our_index)
    }

    fn note_handshake(&mut self, now: u64) {
        let renews = self.current.as_ref().is_some_and(|session| session.can_send(now));
        self.tally.handshakes += 1;
        self.tally.rekeys += u64::from(renews);
        self.last_handshake = Some(now);
    }

    /// Forgets sessions that are past their time, and returns their indices.
    pub(crate) fn expire(&mut self, now: u64) -> impl Iterator<Item = u32> + use<> {
        let over = |place: &mut Option<Box<Session>>| place.take_if(|session| session.is_over(now));
        let gone = [over(&mut self.current), over(&mut self.previous), over(&mut self.next)];
        if self.current.is_none() {
            self.since = None;
            self.fresh.doubt();
        }
        gone.into_iter().flatten().map(|session| session.our_index)
    }

    /// When the oldest session is past its time.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        let sessions = [&self.current, &self.previous, &self.next];
        sessions.into_iter().flatten().map(|session| session.ends_at()).min()
    }

    pub(crate) fn can_send(&self, now: u64) -> bool {
        self.current.as_ref().is_some_and(|session| session.can_send(now))
    }

    /// When an initiation is due. `None`: there is no need for one while nothing changes.
    pub(crate) fn handshake_due(&self) -> u64 {
        let wanted = match &self.current {
            None => 0,
            Some(_) if self.is_doubted => 0,
            Some(session) => session.rekey_at().min(self.dead_at().unwrap_or(u64::MAX)),
        };
        wanted.max(self.next_attempt)
    }

    /// When a session that brings nothing counts as one that the other end has forgotten. Something is sent in each
    /// four times a second.
    fn dead_at(&self) -> Option<u64> {
        let began = self.current.as_ref()?.began;
        Some(self.heard.unwrap_or(began).max(began) + DEAD_AFTER)
    }

    pub(crate) fn is_heard(&self, now: u64, within: u64) -> bool {
        self.heard.is_some_and(|heard| now < heard + within)
    }

    /// An initiation that was not fresh came while the session brings nothing: it is replaced as if it were dead.
    pub(crate) fn doubt_session(&mut self, now: u64, spacing: u64) {
        self.is_doubted = true;
        self.hasten(now, spacing);
    }

    /// Something was learned that makes another try worthwhile, unless one was made just now.
    pub(crate) fn hasten(&mut self, now: u64, spacing: u64) {
        self.next_attempt = self.next_attempt.min(now.max(self.last_attempt + spacing));
    }

    pub(crate) fn note_attempt(&mut self, now: u64, entropy: &mut Entropy) {
        if self.attempts == 0 {
            self.first_attempt = now;
        }
        let wait = match now - self.first_attempt {
            age if age >= SLOW_RETRY_AFTER => SLOW_RETRY,
            _ => USUAL_RETRY.min(FIRST_RETRY << self.attempts.min(8)),
        };
        self.attempts += 1;
        self.last_attempt = now;
        self.next_attempt = now + wait + entropy.below(JITTER.min(wait));
    }

    pub(crate) fn cookie(&self, now: u64) -> Option<&Cookie> {
        self.cookie.as_ref().filter(|(_, until)| now < *until).map(|(cookie, _)| cookie)
    }

    pub(crate) fn keep_cookie(&mut self, cookie: Cookie, now: u64) {
        // A little less than it is good for: it has been on its way.
        self.cookie = Some((cookie, now + COOKIE_LIFETIME - USUAL_RETRY));
    }

    pub(crate) fn note_sent(&mut self, bytes: usize, now: u64) {
        self.sent = now;
        self.owes_answer = false;
        self.tally.datagrams_sent += 1;
        self.tally.bytes_sent += bytes as u64;
    }

    pub(crate) fn note_received(&mut self, bytes: usize, now: u64) {
        self.heard = Some(now);
        self.is_doubted = false;
        self.owes_answer = true;
        self.tally.datagrams_received += 1;
        self.tally.bytes_received += bytes as u64;
    }

    /// When a sign of life is due, so that the sender of what came knows that it did.
    pub(crate) fn keepalive_due(&self) -> Option<u64> {
        (self.owes_answer && self.current.is_some()).then_some(self.sent + KEEPALIVE_AFTER)
    }
}
