//! Draining as the manager runs it: the clock, and who is told.

use super::ManagerCore;
use crate::dispatch::drain::Drains;
use crate::state::State;
use skep_model::NodeId;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

impl ManagerCore {
    pub(super) fn drains(&self) -> MutexGuard<'_, Drains> {
        // A panic cannot leave the table half changed.
        self.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when tasks were drained.
    pub(super) fn drained_receiver(&self) -> watch::Receiver<u64> {
        self.drained.subscribe()
    }

    /// The drains as of `state`, or a newer one.
    pub(super) fn observe(&self, state: &State) -> MutexGuard<'_, Drains> {
        let mut drains = self.drains();
        self.tell_if(drains.observe(state, Instant::now()));
        drains
    }

    /// The node has `revision` in place.
    pub(super) fn covers(&self, node: &NodeId, revision: u64) {
        self.tell_if(self.drains().covers(node, revision, Instant::now()));
    }

    fn tell_if(&self, changed: bool) {
        if changed {
            self.drained.send_modify(|times| *times += 1);
        }
    }
}

/// Ends the wait for nodes that do not answer, until the manager stops.
pub(crate) async fn watch_drains(core: Arc<ManagerCore>) {
    let mut revision = core.db.watch();
    loop {
        revision.borrow_and_update();
        let deadline = core.observe(&core.db.state()).next_deadline();
        let sleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => core.tell_if(core.drains().judge(Instant::now())),
            changed = revision.changed() => if changed.is_err() { return },
            () = core.stopped() => return,
        }
    }
}
