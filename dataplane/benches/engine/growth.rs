//! What a packet costs among many flows, and among many endpoints.
//!
//! Each packet is of another flow or to another endpoint, by a generator that no cache foresees.

use crate::crowd::{Crowd, asking};
use crate::estate::{Estate, Place};
use crate::frames::{Ends, Size};
use crate::lane::{Entry, Lane, Refill, one};
use crate::world::*;
use crate::{clock, tell};
use skep_dataplane::seal::Suite;
use skep_dataplane::{Engine, VnetHdr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FLOWS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Room for the most of them, in every engine. A production engine has room for 65,536: what lasts keeps its place
/// there, and what is new is dropped and counted.
const CAPACITY: usize = 1 << 20;
/// Long enough for every flow to have its turn, on the engine's clock too: packets move flows in their queues.
const FLOWS_TIME: Duration = Duration::from_millis(500);

const ENDPOINTS: [usize; 3] = [10, 1_000, 20_000];

pub(crate) fn tell_all() {
    for flows in FLOWS {
        let cost = clock::measure_for(&mut among_flows(flows), FLOWS_TIME);
        tell(&format!("{flows} flows"), "64 B of a random flow: ns per packet", cost.nanoseconds);
    }
    for endpoints in ENDPOINTS {
        let cost = clock::measure(&mut among_endpoints(endpoints));
        tell(&format!("{endpoints} endpoints"), "64 B to a random endpoint: ns per packet", cost.nanoseconds);
    }
}

fn among_flows(flows: u32) -> Lane {
    let Crowd { engine, now } = Crowd::new(CAPACITY, flows);
    let mut random = Random(1);
    let refill: Refill = Box::new(move |buffers| _ = asking(random.below(flows)).datagram(one(buffers)));
    Lane::new(engine, now, Size::Small, Entry::Port(HOST_PORT, VnetHdr::default()), refill)
}

fn among_endpoints(endpoints: usize) -> Lane {
    let estate = Estate { networks: 1, endpoints, services: 0 };
    let now = Instant::now();
    let mut engine = Engine::new(1, identity(HERE, Suite::default()));
    engine.apply(Arc::new(estate.snapshot()), now, &mut Counted::default());
    let place = |nth| Place { network: 0, nth };
    let mut random = Random(1);
    let refill: Refill = Box::new(move |buffers| {
        let other = place(1 + random.below(endpoints as u32 - 1) as usize);
        Ends::new(place(0).endpoint(), 40_000, other.endpoint(), 80).datagram(one(buffers));
    });
    Lane::new(engine, now, Size::Small, Entry::Port(estate.port(place(0)), VnetHdr::default()), refill)
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(end)) >> 32) as u32
    }
}
