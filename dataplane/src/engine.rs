//! [`Engine`]: the entry points.

use crate::counters::Stats;
use crate::ids::PortId;
use crate::snapshot::Snapshot;
use crate::verdict::DropReason;
use crate::wire::vnet::VnetHdr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

/// Free bytes a caller leaves before every frame it hands in, so that a header can be written in
/// front of the frame without moving it.
pub const HEADROOM: usize = 64;

/// Instructions of the engine, to be carried out at once: the bytes are borrowed.
pub trait Output {
    /// Write a frame to a port's TAP.
    fn frame(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]);
    /// Send a UDP payload to a VTEP.
    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]);
}

pub struct Engine {
    snapshot: Arc<Snapshot>,
}

impl Engine {
    /// `seed` decides everything that would otherwise be random.
    pub fn new(_seed: u64) -> Self {
        Self { snapshot: Arc::default() }
    }

    /// Makes `snapshot` the truth. Flows whose backend is gone end with a RST to both sides.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>, _now: Instant, _out: &mut impl Output) {
        self.snapshot = snapshot;
    }

    /// A frame a port sent: `buf[HEADROOM..]`.
    pub fn handle_frame(
        &mut self,
        _port: PortId,
        _vnet: VnetHdr,
        _buf: &mut [u8],
        _now: Instant,
        _out: &mut impl Output,
    ) {
    }

    /// A UDP payload from a VTEP; its first byte is the VXLAN header's.
    pub fn handle_datagram(
        &mut self,
        _from: Ipv4Addr,
        _buf: &mut [u8],
        _now: Instant,
        _out: &mut impl Output,
    ) {
    }

    pub fn handle_timeout(&mut self, _now: Instant, _out: &mut impl Output) {}

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn stats(&self) -> Stats {
        Stats { drops: DropReason::ALL.iter().map(|reason| (*reason, 0)).collect(), ..Stats::default() }
    }
}
