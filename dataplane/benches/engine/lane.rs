//! [`Lane`]: one engine and the packets that are handed to it again and again.

use crate::frames::Size;
use crate::world::Counted;
use skep_dataplane::ids::PortId;
use skep_dataplane::{DropReason, Engine, VnetHdr};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long a node has for a packet, on the engine's clock: a million a second.
const PACKET_TIME: Duration = Duration::from_micros(1);

/// Where packets come in.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    Port(PortId, VnetHdr),
    Vtep(Ipv4Addr),
}

/// Writes the buffers that make up one packet: one, or the datagrams a super-frame becomes on its way.
pub(crate) type Refill = Box<dyn FnMut(&mut Vec<Vec<u8>>)>;

/// The one buffer of a packet that comes from a port.
pub(crate) fn one(buffers: &mut Vec<Vec<u8>>) -> &mut Vec<u8> {
    buffers.resize_with(1, Vec::new);
    &mut buffers[0]
}

pub(crate) struct Lane {
    pub(crate) engine: Engine,
    pub(crate) entry: Entry,
    pub(crate) refill: Refill,
    pub(crate) now: Instant,
    /// How many packets make up a batch: as many as the packet thread reads from a TAP in one turn, or what stays in
    /// a processor's nearer caches.
    batch: Vec<Vec<Vec<u8>>>,
    out: Counted,
    /// Before the first packet: strangers that meet drop some of what they hear.
    drops: Vec<(DropReason, u64)>,
}

/// Of one batch.
pub(crate) struct Took {
    pub(crate) packets: usize,
    pub(crate) time: Duration,
    pub(crate) allocations: u64,
}

impl Lane {
    pub(crate) fn new(engine: Engine, now: Instant, size: Size, entry: Entry, refill: Refill) -> Self {
        let packets = match size {
            Size::Small => 64,
            Size::Large => 4,
        };
        let (batch, out) = (vec![Vec::new(); packets], Counted::default());
        let drops = engine.stats().drops;
        Self { engine, entry, refill, now, batch, out, drops }
    }

    /// Makes a batch of packets, then has the engine handle it; only that is timed.
    pub(crate) fn run_batch(&mut self) -> Took {
        for packet in &mut self.batch {
            (self.refill)(packet);
        }
        self.now += PACKET_TIME * self.batch.len() as u32;
        let mut time = Duration::ZERO;
        let Self { engine, entry, batch, out, now, .. } = self;
        let counted = allocation_counter::measure(|| {
            let start = Instant::now();
            for buffer in batch.iter_mut().flatten() {
                match *entry {
                    Entry::Port(port, vnet) => engine.handle_frame(port, vnet, buffer, *now, out),
                    Entry::Vtep(from) => engine.handle_datagram(from, buffer, *now, out),
                }
            }
            time = start.elapsed();
        });
        Took { packets: batch.len(), time, allocations: counted.count_total }
    }

    /// Panics unless every packet got through.
    pub(crate) fn assert_lossless(&self, packets: u64) {
        assert_eq!(self.engine.stats().drops, self.drops, "nothing is dropped");
        assert!(self.out.outputs >= packets, "{} came out of {packets}", self.out.outputs);
    }
}
