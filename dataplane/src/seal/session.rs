//! [`Session`]: keys that two nodes agreed on, one for each direction, and what has gone through under them.

use super::aead::{Aead, Key};
use super::keys::Suite;
use super::noise::Agreed;
use super::window::Window;
use super::{REJECT_AFTER, REKEY_AFTER, REKEY_AFTER_RESPONDER};
use crate::ids::Vni;
use crate::verdict::DropReason;
use crate::wire::sealed::{self, HEADER_LEN, Header, OVERHEAD, TAG_LEN};

/// WireGuard's limits of what is sealed under one key, in datagrams (its paper, §6.1).
const REKEY_AFTER_DATAGRAMS: u64 = 1 << 60;
const REJECT_AFTER_DATAGRAMS: u64 = u64::MAX - (1 << 13);

pub(crate) struct Session {
    /// Which of our sessions it is for whoever sends to us.
    pub(crate) our_index: u32,
    their_index: u32,
    seal: Key,
    open: Key,
    /// Of the next datagram to send.
    counter: u64,
    window: Window,
    pub(crate) began: u64,
    is_initiator: bool,
    /// What names the sealing key in a log of a test.
    #[cfg(feature = "audit")]
    pub(crate) audit: [u8; 16],
}

impl Session {
    pub(crate) fn new(
        suite: Suite,
        agreed: &Agreed,
        (our_index, their_index): (u32, u32),
        is_initiator: bool,
        now: u64,
    ) -> Self {
        Self {
            our_index,
            their_index,
            seal: Key::new(suite, &agreed.send),
            open: Key::new(suite, &agreed.receive),
            counter: 0,
            window: Window::new(),
            began: now,
            is_initiator,
            #[cfg(feature = "audit")]
            audit: super::audit::name(&agreed.send),
        }
    }

    pub(crate) fn ends_at(&self) -> u64 {
        self.began + REJECT_AFTER
    }

    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.ends_at()
    }

    pub(crate) fn can_send(&self, now: u64) -> bool {
        !self.is_over(now) && self.counter < REJECT_AFTER_DATAGRAMS
    }

    /// When it wants to be replaced. The responder leaves that to the initiator for as long as it can.
    pub(crate) fn rekey_at(&self) -> u64 {
        match self.is_initiator {
            _ if self.counter >= REKEY_AFTER_DATAGRAMS => 0,
            true => self.began + REKEY_AFTER,
            false => self.began + REKEY_AFTER_RESPONDER,
        }
    }

    /// Seals a datagram whose shim and what follows it are in place between the header's place and the tag's.
    ///
    /// May be asked only while it [can send](Self::can_send). Each call takes a counter of its own, so that none can
    /// come twice.
    pub(crate) fn seal(&mut self, vni: Option<Vni>, datagram: &mut [u8]) {
        sealed::write_header(datagram, vni, self.their_index, self.counter);
        let (header, rest) = datagram.split_at_mut(HEADER_LEN);
        let text_len = rest.len() - TAG_LEN;
        let (text, tag) = rest.split_at_mut(text_len);
        tag.copy_from_slice(&self.seal.seal(self.counter, header, text));
        self.counter += 1;
    }

    /// Of what is sealed next.
    #[cfg(feature = "audit")]
    pub(crate) fn counter(&self) -> u64 {
        self.counter
    }

    /// Opens a datagram in place: what was sealed is between its header and its tag then.
    pub(crate) fn open(&mut self, header: Header, datagram: &mut [u8], now: u64) -> Result<(), DropReason> {
        debug_assert!(datagram.len() >= OVERHEAD);
        if self.is_over(now) || header.counter >= REJECT_AFTER_DATAGRAMS {
            return Err(DropReason::SessionExpired);
        }
        self.window.check(header.counter).map_err(|_| DropReason::Replayed)?;
        let (associated, text) = datagram.split_at_mut(HEADER_LEN);
        self.open.open(header.counter, associated, text).map_err(|_| DropReason::SealBroken)?;
        self.window.mark(header.counter);
        Ok(())
    }

    /// As if as many datagrams had been sent.
    #[cfg(test)]
    pub(crate) fn wear_out(&mut self, counter: u64) {
        self.counter = counter;
    }
}
