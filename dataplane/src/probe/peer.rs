//! [`Peer`]: one peer's questions and answers.

use super::mtu::PathMtu;
use super::{INTRODUCTION, PathStats, RETRY};
use crate::hash::scramble;
use crate::seal::SessionStats;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Questions that may still be answered: 1.6 s of the closest there are. An older one's answer says nothing of now.
const OPEN: usize = 32;

/// Answers to consecutive questions that end a silence.
const ANSWERS_TO_RETURN: u64 = 2;

#[derive(Clone)]
pub(super) struct Peer {
    pub(super) vtep: Ipv4Addr,
    pub(super) mtu: PathMtu,
    /// Nonces by the number of their question modulo [`OPEN`], until answered.
    open: [Option<NonZeroU64>; OPEN],
    asked: u64,
    answered: u64,
    asked_at: u64,
    last_heard: Option<u64>,
    /// When its silence began, if it is not heard: its last answer, or when it was introduced, set forward by the
    /// time this node could not have heard it. It is not asked before.
    quiet_since: u64,
    /// Nothing was heard since the round's question.
    is_missing: bool,
    is_silent: bool,
    /// The last answered question's number, and how many in a row end with it.
    last_answered: u64,
    in_a_row: u64,
}

impl Peer {
    pub(super) fn new(vtep: Ipv4Addr, underlay_mtu: u16, now: u64) -> Self {
        Self {
            vtep,
            mtu: PathMtu::new(underlay_mtu, now).in_phase(scramble(0, vtep.to_bits().into())),
            open: [None; OPEN],
            asked: 0,
            answered: 0,
            asked_at: now,
            last_heard: None,
            quiet_since: now + INTRODUCTION,
            is_missing: false,
            is_silent: false,
            last_answered: 0,
            in_a_row: 0,
        }
    }

    pub(super) fn last_heard(&self) -> Option<u64> {
        self.last_heard
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// It has asked this node, so it knows it.
    pub(super) fn introduce(&mut self, now: u64) {
        self.quiet_since = self.quiet_since.min(now);
    }

    pub(super) fn is_introduced(&self, now: u64) -> bool {
        self.quiet_since <= now
    }

    /// Judges it: whether it has just been found silent.
    pub(super) fn falls_silent(&mut self, now: u64, limit: u64) -> bool {
        let falls = !self.is_silent && now.saturating_sub(self.quiet_since) >= limit;
        if falls {
            self.is_silent = true;
            self.in_a_row = 0;
        }
        falls
    }

    /// When it wants a turn before the next round: to be asked again, or judged.
    pub(super) fn next_turn(&self, limit: u64) -> Option<u64> {
        self.is_awaited().then(|| (self.asked_at + RETRY).min(self.quiet_since + limit))
    }

    pub(super) fn wants_retry(&self, now: u64) -> bool {
        self.is_awaited() && now >= self.asked_at + RETRY
    }

    /// A silent peer is only asked with the round.
    fn is_awaited(&self) -> bool {
        self.is_missing && !self.is_silent
    }

    pub(super) fn ask(&mut self, nonce: u64, now: u64) {
        self.asked += 1;
        self.open[(self.asked % OPEN as u64) as usize] = NonZeroU64::new(nonce);
        self.asked_at = now;
        self.is_missing = true;
    }

    /// `None`: it was not asked this, or has answered it already. `Some`: whether that ends its silence.
    pub(super) fn answer(&mut self, nonce: u64, now: u64) -> Option<bool> {
        let nonce = NonZeroU64::new(nonce)?;
        let place = self.open.iter().position(|open| *open == Some(nonce))?;
        self.open[place] = None;
        let age = (self.asked + OPEN as u64 - place as u64) % OPEN as u64;
        let question = self.asked - age;
        self.answered += 1;
        self.last_heard = Some(now);
        self.quiet_since = self.quiet_since.max(now);
        self.is_missing = false;
        self.in_a_row = if question == self.last_answered + 1 { self.in_a_row + 1 } else { 1 };
        self.last_answered = question;
        let returns = self.is_silent && self.in_a_row >= ANSWERS_TO_RETURN;
        self.is_silent &= !returns;
        Some(returns)
    }

    /// Takes back time, in milliseconds, in which this node could neither ask nor hear.
    pub(super) fn excuse(&mut self, late: u64, now: u64) {
        self.quiet_since = self.quiet_since.max((self.quiet_since + late).min(now));
    }

    pub(super) fn stats(&self, session: SessionStats, epoch: Option<Instant>) -> PathStats {
        let last_heard = epoch.zip(self.last_heard);
        PathStats {
            peer: self.vtep,
            asked: self.asked,
            answered: self.answered,
            last_heard: last_heard.map(|(epoch, heard)| epoch + Duration::from_millis(heard)),
            silent: self.is_silent,
            mtu: self.mtu.limit(),
            is_measured: self.mtu.is_measured(),
            session,
        }
    }
}
