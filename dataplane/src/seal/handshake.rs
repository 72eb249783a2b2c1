//! Steps towards a session: initiations, responses and cookies, out and in.

use super::freshness::{Claim, Verdict};
use super::noise::Received;
use super::peer::Pending;
use super::session::Session;
use super::{HEARD_LATELY, Owner, SHORTEST_RETRY, Seals, Shim, USUAL_RETRY};
use crate::engine::Output;
use crate::verdict::DropReason;
use crate::wire::sealed::handshake::{self, Message, NOISE_1_LEN, NOISE_2_LEN};
use std::net::Ipv4Addr;

impl Seals {
    /// Sends an initiation; one before it that was not answered is forgotten.
    pub(super) fn initiate(&mut self, at: usize, now: u64, out: &mut impl Output) {
        let our_index = self.free_index();
        let peer = &mut self.peers[at];
        peer.note_attempt(now, &mut self.entropy);
        let claim = peer.fresh.claim(peer.life, now);
        let is_promising = claim.repeated != 0;
        // Fails for a key that nobody can have a session with: every try comes to nothing.
        let Ok((noise, first)) = self.noise.initiate(&peer.key, &claim.to_bytes(), &mut self.entropy) else {
            return;
        };
        let mut message = handshake::initiation(our_index, &first);
        let mac1 = peer.macs.sign(&mut message, peer.cookie(now));
        let pending = Pending { our_index, noise, sent: now, is_promising, mac1 };
        if let Some(before) = peer.pending.replace(pending) {
            self.by_index.remove(&before.our_index);
        }
        self.by_index.insert(our_index, Owner { peer: at });
        out.datagram(peer.vtep, &message);
    }

    pub(super) fn shake_hands(
        &mut self,
        from: Ipv4Addr,
        datagram: &[u8],
        now: u64,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let at = *self.by_vtep.get(&from).ok_or(DropReason::HandshakeStranger)?;
        let message = handshake::parse(datagram)?;
        match message {
            Message::Initiation { sender, noise } => {
                self.admit(at, sender, datagram, now, out)?;
                self.take_initiation(at, sender, noise, now, out)
            }
            Message::Response { sender, receiver, noise } => {
                if self.peers[at].pending.as_ref().is_none_or(|pending| pending.our_index != receiver) {
                    return Err(DropReason::HandshakeUnasked);
                }
                self.admit(at, sender, datagram, now, out)?;
                self.take_response(at, sender, noise, now, out)
            }
            Message::Cookie { receiver, nonce, cookie } => {
                let peer = &mut self.peers[at];
                let pending = peer.pending.as_ref().filter(|pending| pending.our_index == receiver);
                let pending = pending.ok_or(DropReason::HandshakeUnasked)?;
                let cookie = peer.macs.open_cookie(nonce, cookie, &pending.mac1);
                peer.keep_cookie(cookie.ok_or(DropReason::HandshakeForged)?, now);
                peer.hasten(now, SHORTEST_RETRY);
                let due = peer.handshake_due();
                self.wants_turn_at(due);
                Ok(())
            }
        }
    }

    /// Whether a message is worth the work: from somebody who knows this node's key, and when there is much to do, who
    /// receives at the address it comes from and is not too busy.
    fn admit(
        &mut self,
        at: usize,
        sender: u32,
        datagram: &[u8],
        now: u64,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        if !self.macs.is_signed(datagram) {
            return Err(DropReason::HandshakeMac);
        }
        if !self.load.is_heavy(now) {
            return Ok(());
        }
        let peer = &mut self.peers[at];
        if self.jar.is_signed(datagram, peer.vtep, now, &mut self.entropy) {
            return if peer.allowance.take(now) { Ok(()) } else { Err(DropReason::HandshakeLimited) };
        }
        if let Some((_, mac1, _)) = handshake::parts(datagram)
            && self.load.may_give_cookie(now)
        {
            let cookie = self.jar.cookie(peer.vtep, now, &mut self.entropy);
            let (nonce, sealed) = self.macs.seal_cookie(&cookie, mac1, &mut self.entropy);
            out.datagram(peer.vtep, &handshake::cookie(sender, &nonce, &sealed));
        }
        Err(DropReason::HandshakeLimited)
    }

    fn take_initiation(
        &mut self,
        at: usize,
        sender: u32,
        noise: &[u8; NOISE_1_LEN],
        now: u64,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let received = self.noise.receive(noise, &mut self.entropy);
        let received = received.map_err(|_| DropReason::HandshakeForged)?;
        let peer = &mut self.peers[at];
        if received.from != peer.key {
            return Err(DropReason::HandshakeForged);
        }
        match peer.fresh.judge(&Claim::parse(&received.payload), &mut self.entropy) {
            // Both began at once: the one with the lesser key goes on, so that there is one session and one who renews it.
            Verdict::Fresh { is_restarted: false }
                if peer.awaits_response(now) && self.noise.public() < peer.key =>
            {
                Ok(())
            }
            Verdict::Fresh { .. } => self.respond(at, sender, received, now, out),
            Verdict::Introduced => {
                peer.hasten(now, SHORTEST_RETRY);
                if peer.handshake_due() <= now {
                    self.initiate(at, now, out);
                }
                self.wants_turn_at(self.peers[at].handshake_due());
                Err(DropReason::HandshakeStale)
            }
            Verdict::Stale(reason) => {
                // The session may be one that the peer has forgotten: that it brings nothing says so.
                if !peer.is_heard(now, HEARD_LATELY) && reason == DropReason::HandshakeStale {
                    peer.doubt_session(now, USUAL_RETRY);
                    let due = peer.handshake_due();
                    self.wants_turn_at(due);
                }
                Err(reason)
            }
        }
    }

    fn respond(
        &mut self,
        at: usize,
        their_index: u32,
        received: Received,
        now: u64,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let our_index = self.free_index();
        let own = self.noise.public();
        let peer = &mut self.peers[at];
        let responded = received.respond(&peer.fresh.response(peer.life));
        let (agreed, second) = responded.map_err(|_| DropReason::HandshakeForged)?;
        let session = Session::new(self.suite, &agreed, (our_index, their_index), false, now);
        // On a long way both may answer what the other asked. If both gave up what they had asked, neither answer would
        // find it.
        let yielded = peer.pending.take_if(|_| own > peer.key).map(|pending| pending.our_index);
        for unused in peer.offer(session).into_iter().chain(yielded) {
            self.by_index.remove(&unused);
        }
        self.by_index.insert(our_index, Owner { peer: at });
        let mut message = handshake::response(our_index, their_index, &second);
        peer.macs.sign(&mut message, peer.cookie(now));
        out.datagram(peer.vtep, &message);
        Ok(())
    }

    fn take_response(
        &mut self,
        at: usize,
        their_index: u32,
        noise: &[u8; NOISE_2_LEN],
        now: u64,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let peer = &mut self.peers[at];
        let pending = peer.pending.as_mut().ok_or(DropReason::HandshakeUnasked)?;
        // Garbage ends nothing: the true response may still come.
        let (agreed, token) = pending.noise.finish(noise).map_err(|_| DropReason::HandshakeForged)?;
        let our_index = pending.our_index;
        peer.pending = None;
        peer.fresh.answered(token);
        let session = Session::new(self.suite, &agreed, (our_index, their_index), true, now);
        if let Some(forgotten) = peer.begin(session, now) {
            self.by_index.remove(&forgotten);
        }
        // The responder uses the session once something came in it.
        if peer.bridge.len() == 0 {
            self.say(at, Shim::Keepalive, &[], 0, now, out);
        }
        self.cross_bridge(at, now, out);
        Ok(())
    }

    /// That no session of ours has, nor handshake.
    fn free_index(&mut self) -> u32 {
        loop {
            let index = self.entropy.nonzero_u32();
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }
}
