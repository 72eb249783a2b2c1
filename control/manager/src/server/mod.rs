//! The manager's port: joining, and one session per node.

mod connection;
mod draining;
pub(crate) mod join;
mod join_rate;
mod renew;
pub(crate) mod reports;
mod session;
pub(crate) mod sessions;
#[cfg(test)]
mod tests;

pub(crate) use self::draining::watch_drains;

use crate::ca::Authority;
use crate::db::{Db, UpdateError};
use crate::dispatch::drain::Drains;
use crate::liveness::Liveness;
use crate::state::{Change, State};
use join_rate::JoinRate;
use rustls::ServerConfig;
use sessions::Sessions;
use skep_model::NodeId;
use skep_model::node::NodeState;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

/// Connections that have not become a session. Each ends by itself within seconds, so that this many
/// strangers keep others waiting no longer than that. Sessions are bounded by the number of members.
const MAX_STRANGERS: usize = 256;
/// Wait after a failed accept: most often too many open files, which time cures.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the parts of a running manager share.
pub(crate) struct ManagerCore {
    pub(crate) db: Db,
    pub(crate) authority: Authority,
    /// The node this manager runs on.
    pub(crate) node: NodeId,
    pub(crate) heartbeat: Duration,
    pub(crate) sessions: Sessions,
    liveness: Mutex<Liveness>,
    join_rate: Mutex<JoinRate>,
    drains: Mutex<Drains>,
    /// Rises when tasks were drained.
    drained: watch::Sender<u64>,
    /// A deadline came that may be closer than the one the liveness task sleeps to.
    liveness_changed: Notify,
    /// True from the moment the manager is told to stop.
    stop: watch::Sender<bool>,
    open_sessions: watch::Sender<usize>,
}

impl ManagerCore {
    pub(crate) fn new(db: Db, authority: Authority, node: NodeId, heartbeat: Duration) -> Self {
        let liveness = Mutex::new(Liveness::new(heartbeat, [], Instant::now()));
        let liveness_changed = Notify::new();
        let sessions = Sessions::default();
        let (stop, open_sessions) = (watch::Sender::new(false), watch::Sender::new(0));
        let (join_rate, drains, drained) = Default::default();
        Self {
            db,
            authority,
            node,
            heartbeat,
            sessions,
            liveness,
            join_rate,
            drains,
            drained,
            liveness_changed,
            stop,
            open_sessions,
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Turns true when the manager is told to stop.
    pub(crate) fn stop_receiver(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Ends when the manager is told to stop, at once if it was already.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move { drop(stop.wait_for(|stop| *stop).await) }
    }

    /// Counts a session as open until the returned guard is dropped.
    fn count_session(self: &Arc<Self>) -> SessionGuard {
        self.open_sessions.send_modify(|open| *open += 1);
        SessionGuard(self.clone())
    }

    pub(crate) async fn sessions_ended(&self) {
        // The sender is a field of `self`, so that waiting cannot fail.
        let _ = self.open_sessions.subscribe().wait_for(|open| *open == 0).await;
    }

    /// The node's session begins: its grace is counted from this moment.
    fn connected(&self, node: &NodeId) {
        self.liveness().connected(node, Instant::now());
        self.liveness_changed.notify_one();
    }

    pub(crate) fn liveness(&self) -> MutexGuard<'_, Liveness> {
        // A panic cannot leave the table half changed.
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `from` may try to join once more at present.
    fn admits_join(&self, from: IpAddr) -> bool {
        // A panic cannot leave the table half changed.
        self.join_rate.lock().unwrap_or_else(PoisonError::into_inner).admits(from, Instant::now())
    }

    /// Writes on a thread that may block. A failing store is logged: the node repeats what matters.
    async fn write(
        self: &Arc<Self>,
        mut change: impl FnMut(&State) -> Vec<Change> + Send + 'static,
    ) -> Result<u64, WriteFailed> {
        self.try_write(move |state| Ok::<_, Infallible>(change(state))).await.map_err(|_failed| WriteFailed)
    }

    /// Like [`Self::write`], with a change that may refuse; None: the store failed.
    async fn try_write<E: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnMut(&State) -> Result<Vec<Change>, E> + Send + 'static,
    ) -> Result<u64, Option<E>> {
        let core = self.clone();
        let written = tokio::task::spawn_blocking(move || core.db.update(change)).await;
        match written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Ok(revision) => Ok(revision),
            Err(UpdateError::Refused(refused)) => Err(Some(refused)),
            Err(UpdateError::Store(error)) => Err(log_failure(&error)),
            Err(UpdateError::Reload(error)) => Err(log_failure(&error)),
            Err(UpdateError::Contended) => Err(log_failure(&"other managers keep changing the state")),
        }
    }
}

/// Already logged.
#[derive(Debug)]
struct WriteFailed;

fn log_failure<E>(error: &dyn std::fmt::Display) -> Option<E> {
    // Whoever looks after the store says it once, and loudly.
    tracing::debug!(%error, "a node's report could not be written");
    None
}

struct SessionGuard(Arc<ManagerCore>);

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.0.open_sessions.send_modify(|open| *open -= 1);
    }
}

/// Accepts connections until the manager stops.
pub(crate) async fn serve(core: Arc<ManagerCore>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = core.stopped() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(permit) = strangers.clone().try_acquire_owned() else {
                    tracing::warn!(%peer, "connection refused: {MAX_STRANGERS} others are trying to join");
                    continue;
                };
                connections.spawn(connection::serve(core.clone(), stream, peer, tls.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Sets nodes to down that were not heard for their grace, until the manager stops.
pub(crate) async fn watch_liveness(core: Arc<ManagerCore>) {
    let state = core.db.state();
    let expected = state.nodes.values().filter(|node| node.status.state != NodeState::Down);
    *core.liveness() = Liveness::new(core.heartbeat, expected.map(|node| node.id.clone()), Instant::now());
    loop {
        let planned = core.liveness().next_look(Instant::now());
        tokio::select! {
            // First, so that a standstill is noticed whatever else came meanwhile.
            biased;
            () = tokio::time::sleep_until(planned.into()) => {
                core.liveness().woke(planned, Instant::now());
                set_unheard_down(&core).await;
            }
            () = core.liveness_changed.notified() => {}
            () = core.stopped() => return,
        }
    }
}

async fn set_unheard_down(core: &Arc<ManagerCore>) {
    let expired = core.liveness().expired(Instant::now());
    for node in expired {
        // Whatever still holds the connection open has to introduce itself again.
        core.sessions.close(&node);
        tracing::warn!(%node, "node is down: heartbeat failure");
        let (liveness, unheard) = (core.clone(), node.clone());
        let change = move |state: &State| match liveness.liveness().is_awaited(&unheard) {
            // It has come back meanwhile, and its Hello must not be undone.
            true => Vec::new(),
            false => reports::unheard(state, &unheard, jiff::Timestamp::now()),
        };
        let written = core.write(change).await;
        if written.is_err() {
            core.liveness().heard(&node, Instant::now());
        }
    }
}
