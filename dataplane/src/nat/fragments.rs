//! Where fragments go that carry no ports: the way their first one went.

use crate::hash::scramble;
use crate::switch::Origin;
use crate::verdict::DropReason;
use std::net::Ipv4Addr;

/// Fragmented packets on their way at once. A new one takes the place of the oldest of its set.
const SETS: usize = 256;
const WAYS: usize = 4;

/// RFC 1122 §3.3.2 lets a receiver wait 60 s or more for the rest of a packet; identifications come
/// around sooner than that on a fast link, so half of it, in milliseconds.
const ROUTE_LIFETIME: u64 = 30_000;

/// A fragment that overtakes its first one is at most a few packets early, in milliseconds.
const HOLD: u64 = 100;

/// Early fragments held at once, over all packets.
const HELD: usize = 32;

/// Early fragments held for one packet.
const HELD_PER_PACKET: usize = 8;

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

#[derive(Clone, Copy)]
struct Entry {
    key: FragmentKey,
    route: FragmentRoute,
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

pub(crate) struct Fragments {
    seed: u64,
    entries: Box<[Option<Entry>]>,
    /// In the order of arrival.
    held: Vec<Held>,
    spare: Vec<Box<[u8]>>,
}

impl Fragments {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            entries: vec![None; SETS * WAYS].into_boxed_slice(),
            held: Vec::with_capacity(HELD),
            spare: (0..HELD).map(|_| vec![0; HELD_LEN].into_boxed_slice()).collect(),
        }
    }

    /// Notes where a first fragment went.
    pub(crate) fn record(&mut self, key: FragmentKey, route: FragmentRoute, now: u64) {
        let set = self.set(&key);
        let age = |entry: &Option<Entry>| match entry {
            Some(entry) if entry.key == key => 0,
            Some(entry) => entry.seen + 1,
            None => 0,
        };
        if let Some(place) = self.entries[set].iter_mut().min_by_key(|entry| age(entry)) {
            *place = Some(Entry { key, route, seen: now });
        }
        for held in self.held.iter_mut().filter(|held| held.key == key) {
            held.is_ready = true;
        }
    }

    pub(crate) fn route(&self, key: &FragmentKey, now: u64) -> Option<FragmentRoute> {
        let entry = self.entries[self.set(key)].iter().flatten().find(|entry| entry.key == *key)?;
        (now.saturating_sub(entry.seen) < ROUTE_LIFETIME).then_some(entry.route)
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
        if of_packet >= HELD_PER_PACKET || buf.len() > HELD_LEN {
            return Err(DropReason::FragmentHoldFull);
        }
        let mut bytes = self.spare.pop().ok_or(DropReason::FragmentHoldFull)?;
        bytes[..buf.len()].copy_from_slice(buf);
        self.held.push(Held { key, origin, arrived: now, len: buf.len(), is_ready: false, bytes });
        Ok(())
    }

    /// A held buffer whose first fragment came, and its length; to be given back.
    pub(crate) fn take_ready(&mut self) -> Option<(Origin, Box<[u8]>, usize)> {
        let at = self.held.iter().position(|held| held.is_ready)?;
        let held = self.held.remove(at);
        Some((held.origin, held.bytes, held.len))
    }

    pub(crate) fn give_back(&mut self, bytes: Box<[u8]>) {
        self.spare.push(bytes);
    }

    /// Lets go of what waited too long; how many those were.
    pub(crate) fn expire(&mut self, now: u64) -> u64 {
        let mut expired = 0;
        while self.held.first().is_some_and(|held| held.arrived + HOLD <= now) {
            let held = self.held.remove(0);
            self.spare.push(held.bytes);
            expired += 1;
        }
        expired
    }

    /// In milliseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.held.first().map(|held| held.arrived + HOLD)
    }

    fn set(&self, key: &FragmentKey) -> std::ops::Range<usize> {
        let addresses = u64::from(key.src.to_bits()) << 32 | u64::from(key.dst.to_bits());
        let rest = u64::from(key.vni) << 24 | u64::from(key.id) << 8 | u64::from(key.protocol);
        let first = scramble(scramble(self.seed, addresses), rest) as usize % SETS * WAYS;
        first..first + WAYS
    }
}
