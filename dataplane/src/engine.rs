//! [`Engine`]: the entry points.

use crate::answers::Answers;
use crate::counters::{Counters, Stats};
use crate::ids::PortId;
use crate::index::Index;
use crate::nat::fragments::Ready;
use crate::nat::{FLOW_CAPACITY, Nat};
use crate::prepared::{Carried, Indexer, Prepared, Retired};
use crate::probe::Probes;
#[cfg(feature = "audit")]
use crate::seal::Plaintext;
use crate::seal::{Identity, Opened, Seals};
use crate::snapshot::Snapshot;
use crate::switch::{Origin, Pass};
use crate::verdict::DropReason;
use crate::wire::vnet::VnetHdr;
use crate::wire::vxlan::{self, Mark};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Free bytes a caller leaves before every frame it hands in, so that a header can be written in
/// front of the frame without moving it.
pub const HEADROOM: usize = 64;

/// Instructions of the engine, to be carried out at once: the bytes are borrowed.
pub trait Output {
    /// Write a frame to a port's TAP.
    fn frame(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]);
    /// Send a UDP payload to a VTEP.
    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]);
    /// As [`Self::datagram`], for a payload of `len` bytes that `write` writes where it is sent from: every byte.
    fn datagram_in_place(&mut self, to: Ipv4Addr, len: usize, write: impl FnOnce(&mut [u8])) {
        let mut datagram = vec![0; len];
        write(&mut datagram);
        self.datagram(to, &datagram);
    }
    /// How long to make a datagram of `len` bytes that may be padded: longer where it leaves together with others then.
    fn padded(&self, _to: Ipv4Addr, len: usize) -> usize {
        len
    }
    /// The peers of the snapshot that do not answer on the data path, by address: all of them, each time the set
    /// changes. Their backends are best taken out of use until they answer again.
    fn reachability(&mut self, silent: &[Ipv4Addr]);
    /// The next datagram is sealed with the key of this name, and this counter: for tests that see that none comes
    /// twice, and what is in it.
    #[cfg(feature = "audit")]
    fn sealed(&mut self, _key: [u8; 16], _counter: u64, _says: Plaintext<'_>) {}
    /// A frame waits for a session with a VTEP.
    #[cfg(feature = "audit")]
    fn waits(&mut self, _to: Ipv4Addr, _says: Plaintext<'_>) {}
}

/// One node's switch, tunnel end and load balancer. Owned by one thread.
pub struct Engine {
    index: Arc<Index>,
    nat: Nat,
    probes: Probes,
    seals: Seals,
    counters: Counters,
    answers: Answers,
    /// When time began: the first `now` that was handed in.
    epoch: Option<Instant>,
    /// Of the snapshot before, once it is needed no more.
    retired: Option<Retired>,
}

impl Engine {
    /// `seed` decides everything that would otherwise be random: hash buckets, the backend a new
    /// service starts with, replacement ports, the nonces of path probes; `identity` whom its sessions are with, and
    /// everything nobody may guess.
    pub fn new(seed: u64, identity: Identity) -> Self {
        Self::with_flow_capacity(seed, identity, FLOW_CAPACITY)
    }

    /// As [`Self::new`], for `flows` flows at once; their memory is taken here.
    pub fn with_flow_capacity(seed: u64, identity: Identity, flows: usize) -> Self {
        Self {
            index: Arc::default(),
            nat: Nat::new(seed, flows),
            probes: Probes::new(seed),
            seals: Seals::new(&identity),
            counters: Counters::new(),
            answers: Answers::new(),
            epoch: None,
            retired: None,
        }
    }

    /// Makes `snapshot` the truth, and is not done before everything follows it: for callers whose packets can wait.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>, now: Instant, out: &mut impl Output) {
        let prepared = self.indexer().prepare(snapshot);
        self.take_up(prepared, now, out);
        self.finish_sweep(now, out);
    }

    /// For the snapshots that are applied from here on.
    pub fn indexer(&self) -> Indexer {
        Indexer(self.index.clone())
    }

    /// Makes a snapshot the truth: the next packet goes by it. TCP connections whose backend it no longer has, or has
    /// elsewhere, are reset on both sides; other flows of a vanished backend begin anew with their next packet.
    /// There are too many flows to look at all of them at once: [`Self::catch_up`] does.
    pub fn take_up(&mut self, prepared: Prepared, now: Instant, out: &mut impl Output) {
        self.finish_sweep(now, out);
        let Prepared { before, index, mut carried } = prepared;
        if !Arc::ptr_eq(&before, &self.index) {
            carried = Carried::between(&self.index, &index);
        }
        let old = std::mem::replace(&mut self.index, index);
        self.counters.follow(&carried);
        self.answers.follow(&carried);
        let millis = self.millis(now);
        if !carried.same_underlay {
            self.meet_peers(millis, out);
        }
        self.nat.follow(old, self.index.clone(), carried, millis);
        self.count_lost();
    }

    fn meet_peers(&mut self, now: u64, out: &mut impl Output) {
        let Snapshot { peers, underlay_mtu, .. } = self.index.snapshot();
        self.seals.follow(peers, now);
        let vteps: Vec<_> = peers.iter().map(|peer| peer.vtep).collect();
        self.probes.follow(&vteps, *underlay_mtu, &mut self.seals, now, out);
    }

    /// Whether there is work that waits for [`Self::catch_up`].
    pub fn is_behind(&self) -> bool {
        self.nat.is_behind()
    }

    /// Does some of what a snapshot, or time, left to do with flows: no more than a batch of packets takes.
    pub fn catch_up(&mut self, now: Instant, out: &mut impl Output) {
        let millis = self.millis(now);
        if let Some(retired) = self.nat.catch_up(millis) {
            self.retired = Some(retired);
        }
        self.end_connections(now, out);
    }

    /// What a snapshot was taken up in place of, once everything follows the new one.
    pub fn take_retired(&mut self) -> Option<Retired> {
        self.retired.take()
    }

    fn finish_sweep(&mut self, now: Instant, out: &mut impl Output) {
        while self.nat.is_sweeping() {
            self.catch_up(now, out);
        }
    }

    fn end_connections(&mut self, now: Instant, out: &mut impl Output) {
        while let Some((flow, old)) = self.nat.take_ended() {
            self.pass(now, out).reset_both(&flow, &old);
        }
    }

    /// A frame a port sent, in `buf[HEADROOM..]`. The buffer's contents are used up.
    pub fn handle_frame(
        &mut self,
        port: PortId,
        vnet: VnetHdr,
        buf: &mut [u8],
        now: Instant,
        out: &mut impl Output,
    ) {
        self.pass(now, out).frame(port, vnet, buf);
        self.release_held(now, out);
        self.end_connections(now, out);
        self.count_lost();
    }

    /// A UDP payload from the VTEP `from`; its first byte is the VXLAN header's. The buffer's contents
    /// are used up.
    pub fn handle_datagram(&mut self, from: Ipv4Addr, buf: &mut [u8], now: Instant, out: &mut impl Output) {
        match vxlan::parse(buf) {
            Ok(Mark::Plain(vni)) => self.pass(now, out).plain(from, vni, buf),
            Ok(Mark::Sealed) => self.handle_sealed(from, buf, now, out),
            Err(reason) => self.drop_of(from, reason),
        }
        self.release_held(now, out);
        self.end_connections(now, out);
        self.count_lost();
    }

    fn handle_sealed(&mut self, from: Ipv4Addr, buf: &mut [u8], now: Instant, out: &mut impl Output) {
        let millis = self.millis(now);
        let done = match self.seals.handle_datagram(from, buf, millis, out) {
            Ok(Opened::Frame { vni, marks, end }) => {
                return self.pass(now, out).opened(from, vni, marks, &mut buf[..end]);
            }
            Ok(Opened::Question(nonce)) => {
                self.probes.asked(from, nonce, &mut self.seals, millis, out);
                Ok(())
            }
            Ok(Opened::Answer(nonce)) => self.probes.answered(from, nonce, &mut self.seals, millis, out),
            Ok(Opened::Settled) => Ok(()),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = done {
            self.drop_of(from, reason);
        }
    }

    fn drop_of(&mut self, from: Ipv4Addr, reason: DropReason) {
        self.counters.dropped(reason);
        self.seals.blame(from, reason);
    }

    /// What had waited for a session.
    fn count_lost(&mut self) {
        let lost = self.seals.take_lost();
        self.counters.dropped_many(DropReason::NoSession, lost.no_session);
        self.counters.dropped_many(DropReason::BridgeFull, lost.bridge_full);
    }

    /// Forgets what was silent for too long, and probes the paths to the peers. The datagrams that have arrived are to
    /// be handed in first: an answer among them is what a peer is judged by.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Output) {
        let millis = self.millis(now);
        self.seals.handle_timeout(millis, out);
        self.probes.handle_timeout(&mut self.seals, millis, out);
        self.count_lost();
        self.catch_up(now, out);
        for _ in 0..self.nat.fragments.expire(millis) {
            self.counters.dropped(DropReason::FragmentOrphaned);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [self.nat.next_expiry(), self.probes.next_timeout(), self.seals.next_timeout()];
        Some(self.epoch? + Duration::from_millis(timeouts.into_iter().flatten().min()?))
    }

    pub fn stats(&self) -> Stats {
        Stats {
            flows: self.nat.flow_count(),
            flow_capacity: self.nat.flow_capacity(),
            flows_displaced: self.nat.flows_displaced(),
            paths: self.probes.stats(&self.seals, self.epoch),
            ..self.counters.stats(&self.index)
        }
    }

    /// Fragments whose first one has just come follow it.
    fn release_held(&mut self, now: Instant, out: &mut impl Output) {
        while let Some(Ready { origin, vni, mut bytes, len }) = self.nat.fragments.take_ready() {
            let mut pass = self.pass(now, out);
            match origin {
                Origin::Port(port) => pass.held_frame(port, &mut bytes[..len]),
                Origin::Vtep(from) => pass.held_datagram(from, vni, &mut bytes[..len]),
            }
            self.nat.fragments.give_back(bytes);
        }
    }

    fn pass<'a, O: Output>(&'a mut self, now: Instant, out: &'a mut O) -> Pass<'a, O> {
        let now = self.millis(now);
        Pass {
            index: &self.index,
            nat: &mut self.nat,
            counters: &mut self.counters,
            answers: &mut self.answers,
            seals: &mut self.seals,
            now,
            out,
        }
    }

    fn millis(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        now.saturating_duration_since(epoch).as_millis() as u64
    }
}
