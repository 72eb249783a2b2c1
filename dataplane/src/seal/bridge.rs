//! [`Bridge`]: frames that wait for a session.

use crate::tunnel::SealedVni;
use crate::wire::sealed::Marks;
use std::collections::VecDeque;

/// Frames that wait for one peer: a handshake's time of what a connection begins with, and two whole super-frames.
const FRAMES: usize = 128;

/// How long a frame waits, in milliseconds. Longer than any handshake that succeeds, shorter than anybody's patience.
const PATIENCE: u64 = 5_000;

pub(crate) struct Waiting {
    pub(crate) vni: SealedVni,
    pub(crate) marks: Marks,
    pub(crate) frame: Box<[u8]>,
    since: u64,
}

/// In the order they came. The oldest gives way: what is asked again is asked last.
#[derive(Default)]
pub(crate) struct Bridge(VecDeque<Waiting>);

impl Bridge {
    /// Returns how many had to give way.
    pub(crate) fn push(&mut self, vni: SealedVni, marks: Marks, frame: &[u8], now: u64) -> u64 {
        let given_way = u64::from(self.0.len() == FRAMES);
        if given_way > 0 {
            self.0.pop_front();
        }
        self.0.push_back(Waiting { vni, marks, frame: frame.into(), since: now });
        given_way
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        self.0.pop_front()
    }

    /// Drops those that waited too long, and returns how many.
    pub(crate) fn expire(&mut self, now: u64) -> u64 {
        let before = self.0.len();
        while self.0.front().is_some_and(|waiting| now >= waiting.since + PATIENCE) {
            self.0.pop_front();
        }
        (before - self.0.len()) as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the oldest has waited too long.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.0.front().map(|waiting| waiting.since + PATIENCE)
    }
}
