//! A new snapshot at the size of a large cluster, with a full flow table: how long until everything follows it, and how
//! long packets wait meanwhile.
//!
//! The engine is driven as the packet thread does it: the snapshot is prepared elsewhere, taken up between two batches,
//! and caught up with in turns, with a batch between each two. What is told of a pause is the longest of it.

use crate::clock::{median, micros, timed, undisturbed};
use crate::estate::{Estate, Place};
use crate::frames::Ends;
use crate::tell;
use crate::world::*;
use skep_dataplane::seal::Suite;
use skep_dataplane::snapshot::*;
use skep_dataplane::{Engine, VnetHdr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// 20,000 endpoints and 5,000 services, 100 endpoints of them here.
const ESTATE: Estate = Estate { networks: 20, endpoints: 1_000, services: 250 };
/// Packets of the batches in between.
const BATCH: usize = 64;
/// Swaps to a figure.
const TIMES: usize = 5;

type Change = fn(&mut Snapshot);

const CHANGES: [(&str, Change); 3] =
    [("a task goes", a_task_goes), ("a node comes", a_node_comes), ("a node goes", a_node_goes)];

/// Behind a service, so that flows end.
fn a_task_goes(snapshot: &mut Snapshot) {
    snapshot.networks[0].endpoints.remove(1);
}

fn a_node_comes(snapshot: &mut Snapshot) {
    snapshot.peers.push(peer(10_000));
}

/// With all of its endpoints: every network changes.
fn a_node_goes(snapshot: &mut Snapshot) {
    let gone = snapshot.peers.remove(1).vtep;
    for network in &mut snapshot.networks {
        network.endpoints.retain(|endpoint| endpoint.location != Location::Remote(gone));
    }
}

pub(crate) fn tell_all() {
    for (name, change) in CHANGES {
        let (mut prepared, mut turns, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let swap = Node::new().swap(change);
            prepared.push(micros(swap.prepared));
            turns.push(swap.turns);
            batches.push(swap.batches);
        }
        let (turns, batches) = (undisturbed(turns), undisturbed(batches));
        let longest = turns.iter().max().copied().unwrap_or_default();
        tell(name, "µs to prepare the snapshot, elsewhere", median(prepared));
        tell(name, "µs until everything follows it", micros(turns.iter().sum()));
        tell(name, "µs of the longest pause", micros(longest));
        tell(name, "µs to take it up", micros(turns[0]));
        tell(name, "µs of a batch of 64 meanwhile", median(batches.into_iter().map(micros).collect()));
    }
}

struct Swap {
    prepared: Duration,
    /// On the engine's thread: first it is taken up, then come turns.
    turns: Vec<Duration>,
    /// Between each two.
    batches: Vec<Duration>,
}

struct Node {
    engine: Engine,
    snapshot: Snapshot,
    now: Instant,
    out: Counted,
}

impl Node {
    fn new() -> Self {
        let (snapshot, now) = (ESTATE.snapshot(), Instant::now());
        let mut engine = Engine::new(1, identity(HERE, Suite::default()));
        let mut out = Counted::default();
        engine.apply(Arc::new(snapshot.clone()), now, &mut out);
        let mut node = Self { engine, snapshot, now, out };
        node.fill_flows();
        node
    }

    /// Every local endpoint asks services of its network until the table takes no more from it.
    fn fill_flows(&mut self) {
        let capacity = self.engine.stats().flow_capacity;
        let locals: Vec<Place> = ESTATE.locals().collect();
        let mut nth = 0;
        while self.engine.stats().flows < capacity / 10 * 9 {
            for _ in 0..1_000 {
                let (place, round) = (locals[nth % locals.len()], nth / locals.len());
                self.ask(place, round);
                nth += 1;
            }
        }
    }

    fn ask(&mut self, place: Place, round: usize) {
        let service = Place { nth: round % ESTATE.services, ..place };
        let src_port = 1024 + (round / ESTATE.services) as u16;
        let mut buffer = Vec::new();
        Ends::new(place.endpoint(), src_port, service.vip(), 80).opening(false, &mut buffer);
        self.engine.handle_frame(
            ESTATE.port(place),
            VnetHdr::default(),
            &mut buffer,
            self.now,
            &mut self.out,
        );
    }

    fn swap(mut self, change: Change) -> Swap {
        let mut next = self.snapshot.clone();
        change(&mut next);
        let (next, mut indexer) = (Arc::new(next), self.engine.indexer());
        let mut ready = None;
        let prepared = timed(|| ready = Some(indexer.prepare(next.clone())));
        let mut turns = vec![timed(|| self.engine.take_up(ready.unwrap(), self.now, &mut self.out))];
        let mut batches = Vec::new();
        while self.engine.is_behind() {
            batches.push(self.batch());
            turns.push(timed(|| self.engine.catch_up(self.now, &mut self.out)));
        }
        assert!(self.engine.take_retired().is_some());
        Swap { prepared, turns, batches }
    }

    /// Packets of flows there are.
    fn batch(&mut self) -> Duration {
        let mut buffers: Vec<_> = ESTATE.locals().take(BATCH).map(|place| (place, Vec::new())).collect();
        for (nth, (place, buffer)) in buffers.iter_mut().enumerate() {
            let service = Place { nth: ESTATE.services - 1 - nth, ..*place };
            Ends::new(place.endpoint(), 1024, service.vip(), 80).opening(false, buffer);
        }
        timed(|| {
            for (place, buffer) in &mut buffers {
                let port = ESTATE.port(*place);
                self.engine.handle_frame(port, VnetHdr::default(), buffer, self.now, &mut self.out);
            }
        })
    }
}
