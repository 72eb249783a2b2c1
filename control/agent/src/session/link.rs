//! What the session and the rest of the agent share. It outlives every connection.

use super::reports::Reports;
use ipnet::Ipv4Net;
use skep_model::TaskId;
use skep_model::assign::Desired;
use skep_model::node::PortConflict;
use skep_model::session::{AttachRequest, Attached};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Requests waiting for the session. Beyond it the caller waits, which takes as long as one send.
const REQUEST_CAPACITY: usize = 64;
/// The manager answers an attachment after one disk sync.
const ATTACH_LIMIT: Duration = Duration::from_secs(15);

pub(crate) struct Link {
    /// What the manager wants. None until the first complete set of this process's life.
    pub(crate) desired: watch::Sender<Option<Arc<Desired>>>,
    /// The newest of these sets that is in place, all of it.
    pub(crate) in_place: watch::Sender<Option<Arc<Desired>>>,
    pub(crate) reports: Reports,
    pub(crate) conflicts: watch::Sender<Vec<PortConflict>>,
    /// Subnets the host routes itself, as of the last look.
    pub(crate) routed: watch::Sender<Vec<Ipv4Net>>,
    pub(crate) state: watch::Sender<LinkState>,
    holdings: Mutex<Holdings>,
    requests: mpsc::Sender<Request>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) connected: Option<SocketAddr>,
    /// Why the last connection failed or ended; what is wrong beside it while one stands.
    pub(crate) error: Option<String>,
}

/// What this node holds of what the manager gave it; every session begins by saying so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) attachments: BTreeSet<TaskId>,
    pub(crate) running: BTreeSet<TaskId>,
}

#[derive(Debug)]
pub(super) enum Request {
    Attach(AttachRequest, oneshot::Sender<Result<Attached, String>>),
    Detach(TaskId),
    Leave(oneshot::Sender<()>),
}

impl Link {
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(REQUEST_CAPACITY);
        let (desired, in_place, reports, conflicts, routed, state, holdings) = Default::default();
        let link = Self { desired, in_place, reports, conflicts, routed, state, holdings, requests };
        (Arc::new(link), receiver)
    }

    /// An address on a network, or why not, in one sentence.
    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<Attached, String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "this node is leaving the swarm".to_owned();
        self.requests.send(Request::Attach(request, answer)).await.map_err(|_| gone())?;
        match tokio::time::timeout(ATTACH_LIMIT, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("the connection to the manager was lost meanwhile: try again".to_owned()),
            Err(_elapsed) => Err(format!("the manager did not answer within {} s", ATTACH_LIMIT.as_secs())),
        }
    }

    /// Gives an attachment back. Without a connection the next session's beginning does it.
    pub(crate) async fn detach(&self, task: TaskId) {
        self.holdings().attachments.remove(&task);
        // Fails when the session is over for good, and then the manager forgets the node's attachments.
        let _ = self.requests.send(Request::Detach(task)).await;
    }

    /// Tells the manager that this node leaves; returns when it knows, or can't be told.
    pub(crate) async fn leave(&self) {
        let (told, done) = oneshot::channel();
        if self.requests.send(Request::Leave(told)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// No statement that changes the holdings can panic half-way.
    pub(crate) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
