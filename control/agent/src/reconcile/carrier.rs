//! How tasks, containers and attachments hand their finished namespaces over to forwarding and names, and
//! take them back.

use super::plan::{ResolverId, SandboxId};
use skep_dataplane::ids::PortId;
use skep_dataplane::io::Tap;
use skep_model::{NetworkId, TaskId};
use std::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};

/// Hand-overs waiting for the reconciler. Beyond it the next waits, which takes milliseconds.
const COMMAND_CAPACITY: usize = 64;

/// A sandbox as forwarding and names see it.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) ports: Vec<(NetworkId, TaskId, PortId)>,
    pub(crate) taps: Vec<(PortId, Tap)>,
    /// Whose resolver asks on its networks; its sockets, where it is new.
    pub(crate) resolver: ResolverId,
    pub(crate) sockets: Option<(UdpSocket, TcpListener)>,
}

#[derive(Debug)]
pub(super) enum Command {
    Carry(SandboxId, Carried, oneshot::Sender<Result<(), String>>),
    Release(SandboxId, oneshot::Sender<()>),
    TaskEnded(TaskId),
    /// End every task; answered when the last has ended. None is started any more.
    StopAll(oneshot::Sender<()>),
}

/// Why a sandbox is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CarryError {
    #[error("cannot be connected to its networks: {0}")]
    Refused(String),
    #[error("this node is leaving the swarm")]
    Leaving,
}

/// Clones reach the same reconciler.
#[derive(Clone, Debug)]
pub(crate) struct Carrier(mpsc::Sender<Command>);

/// The reconciler's end.
#[derive(Debug)]
pub(crate) struct Commands(pub(super) mpsc::Receiver<Command>);

impl Carrier {
    pub(crate) fn new() -> (Self, Commands) {
        let (commands, receiver) = mpsc::channel(COMMAND_CAPACITY);
        (Self(commands), Commands(receiver))
    }

    /// Returns when the sandbox can be reached by its addresses and asks names of its networks.
    pub(crate) async fn carry(&self, id: SandboxId, sandbox: Carried) -> Result<(), CarryError> {
        let (ready, answer) = oneshot::channel();
        self.send(Command::Carry(id, sandbox, ready)).await?;
        answer.await.map_err(|_| CarryError::Leaving)?.map_err(CarryError::Refused)
    }

    /// Returns when nothing leads to the sandbox any more and its TAPs are closed.
    pub(crate) async fn release(&self, id: SandboxId) {
        let (released, answer) = oneshot::channel();
        if self.send(Command::Release(id, released)).await.is_ok() {
            // Fails when the reconciler has ended, and then the TAPs are closed as well.
            let _ = answer.await;
        }
    }

    pub(crate) async fn task_ended(&self, task: TaskId) {
        // Fails when the reconciler has ended: it starts nothing any more.
        let _ = self.send(Command::TaskEnded(task)).await;
    }

    pub(crate) async fn stop_all(&self) {
        let (stopped, answer) = oneshot::channel();
        if self.send(Command::StopAll(stopped)).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), CarryError> {
        self.0.send(command).await.map_err(|_| CarryError::Leaving)
    }
}
