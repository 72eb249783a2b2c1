//! [`Prepared`]: a snapshot with its lookup tables, to be taken up in a moment.
//!
//! In a large cluster it takes milliseconds to build tables, to compare them with those before, and to take those down.
//! That is done here, on any thread but the one that packets wait for.

use crate::hash::{Map, Set};
use crate::index::Index;
use crate::snapshot::Snapshot;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Prepares snapshots for one engine, each as the successor of the one before.
pub struct Indexer(pub(crate) Arc<Index>);

/// For the engine that its [`Indexer`] is of.
pub struct Prepared {
    pub(crate) before: Arc<Index>,
    pub(crate) index: Arc<Index>,
    pub(crate) carried: Carried,
}

/// Tables that an engine needs no more. Best dropped where no packet waits.
pub struct Retired {
    _index: Arc<Index>,
}

/// What of one index goes on under the next.
pub(crate) struct Carried {
    /// For each service of the new index, over all networks: its round-robin pointer under the old one.
    pub(crate) services: Vec<Option<usize>>,
    /// For each port of the new index: its place among those of the old one.
    pub(crate) ports: Vec<Option<usize>>,
    /// Networks in which nothing changed.
    pub(crate) same_networks: Set<u32>,
    /// The peers are the same, and so is what the underlay carries.
    pub(crate) same_underlay: bool,
}

impl Indexer {
    pub fn prepare(&mut self, snapshot: Arc<Snapshot>) -> Prepared {
        let index = Arc::new(Index::new(snapshot));
        let before = std::mem::replace(&mut self.0, index.clone());
        let carried = Carried::between(&before, &index);
        Prepared { before, index, carried }
    }
}

impl Retired {
    pub(crate) fn new(index: Arc<Index>) -> Self {
        Self { _index: index }
    }
}

impl Carried {
    pub(crate) fn between(old: &Index, new: &Index) -> Self {
        let pointers: Map<(u32, Ipv4Addr), usize> =
            old.services().map(|(vni, service)| ((vni, service.vip), service.pointer)).collect();
        let place = |service| pointers.get(&service).copied();
        let is_same = |vni: &u32| old.specified(*vni) == new.specified(*vni);
        Self {
            services: new.services().map(|(vni, service)| place((vni, service.vip))).collect(),
            ports: new.ports().iter().map(|port| Some(old.seat(*port)?.at)).collect(),
            same_networks: new.vnis().filter(is_same).collect(),
            same_underlay: old.snapshot().peers == new.snapshot().peers
                && old.snapshot().underlay_mtu == new.snapshot().underlay_mtu,
        }
    }
}
