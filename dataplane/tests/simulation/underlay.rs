//! The hosts' own network: it loses, repeats, delays, reorders and parts.

use crate::rng::Rng;
use crate::world::Node;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default)]
pub(crate) struct Underlay {
    /// Out of a hundred.
    pub(crate) loss: u64,
    pub(crate) repeats: u64,
    pub(crate) reorders: u64,
    /// From whom nothing reaches whom.
    pub(crate) parted: BTreeSet<(Node, Node)>,
}

/// The quickest way between two nodes, in microseconds.
const LATENCY: u64 = 200;

impl Underlay {
    pub(crate) fn of(rng: &mut Rng) -> Self {
        Self {
            loss: *rng.pick(&[0, 0, 2, 10]),
            repeats: *rng.pick(&[0, 2, 10]),
            reorders: *rng.pick(&[0, 5, 30]),
            parted: BTreeSet::new(),
        }
    }

    /// After how many microseconds each copy of a datagram arrives: none, one or two.
    pub(crate) fn copies(&self, from: Node, to: Node, rng: &mut Rng) -> Vec<u64> {
        if self.parted.contains(&(from, to)) || rng.percent(self.loss) {
            return vec![];
        }
        let count = if rng.percent(self.repeats) { 2 } else { 1 };
        (0..count)
            .map(|_| {
                LATENCY + rng.below(100) + if rng.percent(self.reorders) { rng.below(30_000) } else { 0 }
            })
            .collect()
    }

    /// Cuts some nodes off from the others, sometimes in one direction only.
    pub(crate) fn part(&mut self, nodes: usize, rng: &mut Rng) {
        let one = rng.between(1, nodes as u64 + 1) as Node;
        let others: Vec<Node> = match rng.percent(50) {
            true => (1..=nodes).filter(|n| *n != one).collect(),
            false => vec![one % nodes + 1],
        };
        let both_ways = rng.percent(70);
        for other in others {
            self.parted.insert((one, other));
            if both_ways {
                self.parted.insert((other, one));
            }
        }
    }
}
