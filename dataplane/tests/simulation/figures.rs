//! What was tried.

use std::fmt;

#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) probes: u64,
    pub(crate) arrived: u64,
    pub(crate) forged: u64,
    pub(crate) injected: u64,
    pub(crate) answered: u64,
    pub(crate) turns: u64,
    pub(crate) replaced_ports: u64,
    /// Packets that came together from pieces.
    pub(crate) assembled: u64,
    pub(crate) super_frames: u64,
    pub(crate) resets: u64,
    pub(crate) silences: u64,
    /// Frames that crossed a bridge.
    pub(crate) waited: u64,
    pub(crate) sealed: u64,
    pub(crate) handshakes: u64,
    pub(crate) replayed: u64,
    pub(crate) revisions: u64,
    pub(crate) restarts: u64,
    pub(crate) expelled: u64,
    pub(crate) matrix: u64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        for ((_, mine), (_, theirs)) in self.all().into_iter().zip(other.clone().all()) {
            *mine += *theirs;
        }
    }

    /// Whether there was some of everything: what never happens in a run of many seeds is not tried.
    pub(crate) fn has_everything(&self) -> bool {
        self.clone().all().iter().all(|(_, n)| **n > 0)
    }

    fn all(&mut self) -> [(&'static str, &mut u64); 19] {
        [
            ("packets", &mut self.probes),
            ("arrivals", &mut self.arrived),
            ("answers that found their client", &mut self.answered),
            ("turns of services", &mut self.turns),
            ("client ports replaced", &mut self.replaced_ports),
            ("packets in pieces put together", &mut self.assembled),
            ("super-frames", &mut self.super_frames),
            ("resets", &mut self.resets),
            ("silent peers", &mut self.silences),
            ("frames sealed", &mut self.sealed),
            ("frames that waited for a session", &mut self.waited),
            ("sessions agreed on", &mut self.handshakes),
            ("repeated datagrams refused", &mut self.replayed),
            ("forgeries heard by nobody", &mut self.forged),
            ("datagrams injected in vain", &mut self.injected),
            ("revisions", &mut self.revisions),
            ("engines begun anew", &mut self.restarts),
            ("nodes expelled", &mut self.expelled),
            ("conversations in the still world", &mut self.matrix),
        ]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.clone().all().map(|(what, n)| format!("{n} {what}"));
        f.write_str(&all.join(", "))
    }
}
