//! Where fragments go that carry no ports: the way their first one went.

use super::coverage::{Coverage, Overlap};
use crate::hash::scramble;
use crate::switch::Origin;
use crate::verdict::DropReason;
use std::net::Ipv4Addr;
use std::ops::Range;

/// Sources share sets of places, one place for each fragmented packet on its way. A new one takes the place of the
/// oldest: of its own source where that has half of the set, so that no source takes all of another's.
const SETS: usize = 128;
const WAYS: usize = 16;

/// RFC 1122 §3.3.2 lets a receiver wait 60 s or more for the rest of a packet; identifications come
/// around sooner than that on a fast link, so half of it, in milliseconds.
const ROUTE_LIFETIME: u64 = 30_000;

/// A first fragment this long after the last piece of a packet with the same identification begins another packet, in
/// milliseconds. A source that uses one again sooner sends more packets than it can tell apart (RFC 6864 §5.2).
const REUSE: u64 = 1_000;

/// A fragment that overtakes its first one is at most a few packets early, in milliseconds.
const HOLD: u64 = 100;

/// Early fragments held at once, over all packets. A source may have as many of them as it leaves free.
const HELD: usize = 192;

/// Early fragments held for one packet: all of 64 KiB at the usual MTU.
const HELD_PER_PACKET: usize = 48;

/// Bytes kept of an early fragment: a frame for the usual jumbo underlay of 9,000 and its headroom.
const HELD_LEN: usize = 9_216;

/// Which packet a fragment is part of (RFC 791 §3.2), and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentKey {
    pub(crate) vni: u32,
    /// The VTEP it came from; unspecified from a port of this node.
    pub(crate) from: Ipv4Addr,
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) id: u16,
    pub(crate) protocol: u8,
}

/// What the first fragment's translation made of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentRoute {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) via: Option<Ipv4Addr>,
}

/// The bytes of a packet that a fragment brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: u16,
    pub(crate) end: u16,
    pub(crate) is_last: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    key: FragmentKey,
    route: FragmentRoute,
    coverage: Coverage,
    /// Its pieces overlapped: nothing of it goes on.
    is_spoilt: bool,
    seen: u64,
}

struct Held {
    key: FragmentKey,
    origin: Origin,
    arrived: u64,
    len: usize,
    /// Its first fragment came.
    is_ready: bool,
    bytes: Box<[u8]>,
}

/// A fragment whose first one has come. Its bytes are [given back](Fragments::give_back).
pub(crate) struct Ready {
    pub(crate) origin: Origin,
    pub(crate) vni: u32,
    pub(crate) bytes: Box<[u8]>,
    pub(crate) len: usize,
}

pub(crate) struct Fragments {
    seed: u64,
    entries: Box<[Option<Entry>]>,
    /// In the order of arrival.
    held: Vec<Held>,
    /// How many of them have their first fragment.
    ready: usize,
    spare: Vec<Box<[u8]>>,
}

impl Fragments {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            entries: vec![None; SETS * WAYS].into_boxed_slice(),
            held: Vec::with_capacity(HELD),
            ready: 0,
            spare: (0..HELD).map(|_| vec![0; HELD_LEN].into_boxed_slice()).collect(),
        }
    }

    /// Notes where a first fragment goes, or says why it must not.
    pub(crate) fn record(
        &mut self,
        key: FragmentKey,
        route: FragmentRoute,
        piece: Piece,
        now: u64,
    ) -> Result<(), DropReason> {
        let continues =
            |entry: &&mut Entry| now.saturating_sub(entry.seen) < REUSE && !entry.coverage.is_whole();
        if let Some(entry) = self.entry(&key).filter(continues) {
            return entry.take(piece, now);
        }
        let mut coverage = Coverage::NOTHING;
        // The first piece of nothing overlaps nothing.
        let _ = coverage.add(piece.start..piece.end, piece.is_last);
        let entry = Entry { key, route, coverage, is_spoilt: false, seen: now };
        let place = self.place(&key);
        self.entries[place] = Some(entry);
        for held in self.held.iter_mut().filter(|held| held.key == key && !held.is_ready) {
            held.is_ready = true;
            self.ready += 1;
        }
        Ok(())
    }

    /// Where a later fragment goes; `None` if its first one has not come.
    pub(crate) fn route(
        &mut self,
        key: &FragmentKey,
        piece: Piece,
        now: u64,
    ) -> Result<Option<FragmentRoute>, DropReason> {
        let lives = |entry: &&mut Entry| now.saturating_sub(entry.seen) < ROUTE_LIFETIME;
        let Some(entry) = self.entry(key).filter(lives) else { return Ok(None) };
        entry.take(piece, now)?;
        Ok(Some(entry.route))
    }

    /// Keeps the buffer a fragment came in until its first one is there.
    pub(crate) fn hold(
        &mut self,
        key: FragmentKey,
        origin: Origin,
        buf: &[u8],
        now: u64,
    ) -> Result<(), DropReason> {
        let of_packet = self.held.iter().filter(|held| held.key == key).count();
        let of_source = self.held.iter().filter(|held| held.key.source() == key.source()).count();
        if of_packet >= HELD_PER_PACKET || of_source >= self.spare.len() || buf.len() > HELD_LEN {
            return Err(DropReason::FragmentHoldFull);
        }
        let mut bytes = self.spare.pop().ok_or(DropReason::FragmentHoldFull)?;
        bytes[..buf.len()].copy_from_slice(buf);
        self.held.push(Held { key, origin, arrived: now, len: buf.len(), is_ready: false, bytes });
        Ok(())
    }

    /// A held buffer whose first fragment came, and its length; to be given back.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        if self.ready == 0 {
            return None;
        }
        let at = self.held.iter().position(|held| held.is_ready)?;
        self.ready -= 1;
        let held = self.held.remove(at);
        Some(Ready { origin: held.origin, vni: held.key.vni, bytes: held.bytes, len: held.len })
    }

    pub(crate) fn give_back(&mut self, bytes: Box<[u8]>) {
        self.spare.push(bytes);
    }

    /// Lets go of what waited too long; how many those were.
    pub(crate) fn expire(&mut self, now: u64) -> u64 {
        let mut expired = 0;
        while self.held.first().is_some_and(|held| held.arrived + HOLD <= now) {
            let held = self.held.remove(0);
            self.ready -= usize::from(held.is_ready);
            self.spare.push(held.bytes);
            expired += 1;
        }
        expired
    }

    /// In milliseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.held.first().map(|held| held.arrived + HOLD)
    }

    fn entry(&mut self, key: &FragmentKey) -> Option<&mut Entry> {
        let set = self.set(key);
        self.entries[set].iter_mut().flatten().find(|entry| entry.key == *key)
    }

    /// The place a new packet gets in its source's set.
    fn place(&self, key: &FragmentKey) -> usize {
        let set = self.set(key);
        let is_own = |at: &usize| self.entries[*at].is_some_and(|entry| entry.key.source() == key.source());
        let same = |at: &usize| self.entries[*at].is_some_and(|entry| entry.key == *key);
        let age = |at: &usize| self.entries[*at].map_or(0, |entry| entry.seen + 1);
        let crowds = set.clone().filter(is_own).count() >= WAYS / 2;
        let first = set.start;
        let oldest_own = || set.clone().filter(is_own).min_by_key(age).filter(|_| crowds);
        let place = set.clone().find(same).or_else(oldest_own).or_else(|| set.clone().min_by_key(age));
        place.unwrap_or(first)
    }

    fn set(&self, key: &FragmentKey) -> Range<usize> {
        let (vni, from, src) = key.source();
        let addresses = u64::from(src.to_bits()) << 32 | u64::from(from.to_bits());
        let first = scramble(scramble(self.seed, addresses), u64::from(vni)) as usize % SETS * WAYS;
        first..first + WAYS
    }
}

impl FragmentKey {
    fn source(&self) -> (u32, Ipv4Addr, Ipv4Addr) {
        (self.vni, self.from, self.src)
    }
}

impl Entry {
    /// Takes note of a piece, or says why it goes no further.
    fn take(&mut self, piece: Piece, now: u64) -> Result<(), DropReason> {
        if self.is_spoilt {
            return Err(DropReason::FragmentOverlap);
        }
        match self.coverage.add(piece.start..piece.end, piece.is_last) {
            Ok(()) => {
                self.seen = now;
                Ok(())
            }
            Err(Overlap::Repeated) => Err(DropReason::FragmentRepeated),
            Err(Overlap::Partial) => {
                self.is_spoilt = true;
                Err(DropReason::FragmentOverlap)
            }
        }
    }
}
