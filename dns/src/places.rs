//! How many questions may wait for the upstreams at a time: each holds sockets of the daemon.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of all containers together, beyond the ones every container has for sure.
#[derive(Clone, Debug)]
pub(crate) struct NodePlaces(Arc<Semaphore>);

/// One container's places.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    sure: usize,
    own: Arc<Semaphore>,
    node: NodePlaces,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _own: OwnedSemaphorePermit,
    _node: Option<OwnedSemaphorePermit>,
}

impl NodePlaces {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit)))
    }
}

impl Places {
    /// `limit` at most, of which `sure` don't depend on what other containers do.
    pub(crate) fn new(limit: usize, sure: usize, node: NodePlaces) -> Self {
        Self { limit, sure, own: Arc::new(Semaphore::new(limit)), node }
    }

    pub(crate) fn take(&self) -> Option<Place> {
        let own = Arc::clone(&self.own).try_acquire_owned().ok()?;
        let taken = self.limit - self.own.available_permits();
        let node = match taken > self.sure {
            true => Some(Arc::clone(&self.node.0).try_acquire_owned().ok()?),
            false => None,
        };
        Some(Place { _own: own, _node: node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greedy_share_what_is_left_and_everybody_has_a_few_for_sure() {
        let node = NodePlaces::new(5);
        let [first, second, third] = [(); 3].map(|()| Places::new(6, 2, node.clone()));
        let held: Vec<_> = std::iter::from_fn(|| first.take()).collect();
        assert_eq!(held.len(), 6, "its own limit");
        let others: Vec<_> = std::iter::from_fn(|| second.take()).collect();
        assert_eq!(others.len(), 3, "two for sure, one of the node's");
        let late: Vec<_> = std::iter::from_fn(|| third.take()).collect();
        assert_eq!(late.len(), 2, "what every container has for sure");
        drop(held);
        assert!(second.take().is_some() && third.take().is_some());
        drop((others, late));
    }
}
