//! One node's session: its messages in, its assignments and the answers to it out.
//!
//! The order is Hello, Welcome, the COMPLETE set of assignments, and then whatever happens. A session
//! ends with its connection, with a newer session of the same node, when the node leaves or is removed,
//! and at the first message that breaks the protocol.

mod assigning;
mod attach;
mod inbound;
mod logs;
mod unwritten;

use self::inbound::Inbound;
use self::logs::LogReaders;
use self::unwritten::{Report, Unwritten};
use super::connection::Body;
use super::reports::{HelloRefused, Origin};
use super::sessions::{Command, Registered};
use super::{ManagerCore, reports};
use crate::dispatch::coverage::Coverage;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use jiff::Timestamp;
use skep_model::NodeId;
use skep_model::assign::Desired;
use skep_model::session::{AttachRequest, Hello, ToAgent, ToManager};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// A node says Hello as soon as it is connected.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Messages waiting for the connection. Beyond it the session waits, so that a slow node slows itself only.
const OUTBOUND_CAPACITY: usize = 16;
/// A node that takes no message for this long is stuck; it finds a new session when it can.
const SEND_LIMIT: Duration = Duration::from_secs(15);
/// Assignments are sent at most this often, so that a burst of writes becomes one message. Swarm's
/// dispatcher gathers changes for 100 ms; half of it keeps `service create` snappy.
const ASSIGNMENT_INTERVAL: Duration = Duration::from_millis(50);

/// A member that has shown its certificate.
pub(super) struct Admission {
    pub(super) node: NodeId,
    pub(super) origin: Origin,
}

#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("the node closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("{0}")]
    Protocol(String),
    #[error("a newer session replaced it, or the node was not heard for too long")]
    Replaced,
    #[error("the node takes no messages")]
    Stuck,
    #[error("the node left the cluster")]
    Left,
    #[error(transparent)]
    Removed(#[from] reports::NodeRemoved),
    #[error(transparent)]
    KeyTaken(reports::KeyTaken),
    #[error("the store failed")]
    Store,
    #[error("the manager stops")]
    Stopping,
}

impl From<HelloRefused> for SessionEnd {
    fn from(refused: HelloRefused) -> Self {
        match refused {
            HelloRefused::Removed(removed) => Self::Removed(removed),
            HelloRefused::KeyTaken(taken) => Self::KeyTaken(taken),
        }
    }
}

/// The session as a future to run, and the body of the response.
pub(super) fn open(
    core: Arc<ManagerCore>,
    admission: Admission,
    inbound: Incoming,
) -> (impl Future<Output = ()> + Send, Body) {
    let (outbound, messages) = mpsc::channel::<Bytes>(OUTBOUND_CAPACITY);
    let frames = stream::unfold(messages, |mut messages| async move {
        let message = messages.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(message)), messages))
    });
    (run(core, admission, Inbound::new(inbound), outbound), StreamBody::new(frames).boxed_unsync())
}

async fn run(
    core: Arc<ManagerCore>,
    admission: Admission,
    mut inbound: Inbound,
    outbound: mpsc::Sender<Bytes>,
) {
    let _open = core.count_session();
    let node = admission.node.clone();
    let end = tokio::select! {
        hello = tokio::time::timeout(HELLO_LIMIT, expect_hello(&mut inbound)) => match hello {
            Ok(Ok(hello)) => serve(&core, admission, hello, inbound, outbound).await,
            Ok(Err(end)) => end,
            Err(_elapsed) => SessionEnd::Protocol("no Hello came".to_owned()),
        },
        () = core.stopped() => SessionEnd::Stopping,
    };
    tracing::info!(%node, %end, "session ended");
}

async fn expect_hello(inbound: &mut Inbound) -> Result<Hello, SessionEnd> {
    match inbound.next().await? {
        ToManager::Hello(hello) => Ok(hello),
        other => Err(SessionEnd::Protocol(format!("the first message has to be Hello, not {other:?}"))),
    }
}

/// Everything after Hello. Returns why it ended, having noted the end in the state.
async fn serve(
    core: &Arc<ManagerCore>,
    admission: Admission,
    hello: Hello,
    inbound: Inbound,
    outbound: mpsc::Sender<Bytes>,
) -> SessionEnd {
    let Admission { node, origin } = admission;
    // Registered before Hello is written, so that the end of an older session cannot undo it.
    let Registered { generation, commands } = core.sessions.register(&node);
    let (revision, drained) = (core.db.watch(), core.drained_receiver());
    let (sent, coverage, logs, unwritten) = Default::default();
    let mut session = Session {
        core,
        node: node.clone(),
        generation,
        inbound,
        outbound,
        commands,
        revision,
        drained,
        sent,
        coverage,
        logs,
        unwritten,
    };
    let end = match session.begin(hello, origin).await {
        Ok(()) => session.turn_until_end().await,
        Err(end) => end,
    };
    let was_current = core.sessions.unregister(&node, generation);
    let gone = matches!(end, SessionEnd::Left | SessionEnd::Removed(_));
    // A connection that a stopping manager cuts is no news of the node.
    if was_current && !gone && !core.is_stopping() {
        note_disconnected(core, node).await;
    }
    end
}

async fn note_disconnected(core: &Arc<ManagerCore>, node: NodeId) {
    let sessions = core.clone();
    let change = move |state: &_| match sessions.sessions.is_connected(&node) {
        true => Vec::new(),
        false => reports::disconnected(state, &node, Timestamp::now()),
    };
    // A failed write is logged; the heartbeats that stay away say the same a little later.
    let _ = core.write(change).await;
}

struct Session<'a> {
    core: &'a Arc<ManagerCore>,
    node: NodeId,
    generation: u64,
    inbound: Inbound,
    outbound: mpsc::Sender<Bytes>,
    commands: mpsc::Receiver<Command>,
    revision: watch::Receiver<u64>,
    drained: watch::Receiver<u64>,
    /// What the node has, as far as was sent.
    sent: Option<Desired>,
    coverage: Coverage,
    logs: LogReaders,
    unwritten: Unwritten,
}

enum Turn {
    Message(ToManager),
    Command(Command),
    Assign,
    ReportAgain,
}

impl Session<'_> {
    async fn begin(&mut self, hello: Hello, origin: Origin) -> Result<(), SessionEnd> {
        tracing::info!(node = %self.node, addr = %origin.addr, "session begins");
        self.core.connected(&self.node);
        self.core.drains().begins(&self.node);
        self.report(Report::Hello(Box::new(hello), origin)).await?;
        let heartbeat_ms = self.core.heartbeat.as_millis() as u64;
        self.send(&ToAgent::Welcome { heartbeat_ms, now: Some(Timestamp::now()) }).await?;
        self.assign().await
    }

    async fn turn_until_end(&mut self) -> SessionEnd {
        let mut assigned_at = tokio::time::Instant::now();
        let mut due = false;
        loop {
            let turn = tokio::select! {
                message = self.inbound.next() => message.map(Turn::Message),
                command = self.commands.recv() => command.map(Turn::Command).ok_or(SessionEnd::Replaced),
                _ = self.revision.changed(), if !due => {
                    due = true;
                    continue;
                }
                // Somebody waits for a task to stop: at once.
                _ = self.drained.changed() => match self.has_drained() {
                    true => Ok(Turn::Assign),
                    false => continue,
                },
                () = tokio::time::sleep_until(assigned_at + ASSIGNMENT_INTERVAL), if due => Ok(Turn::Assign),
                () = self.unwritten.due() => Ok(Turn::ReportAgain),
                () = self.core.stopped() => Err(SessionEnd::Stopping),
            };
            let done = match turn {
                Ok(Turn::Message(message)) => self.take(message).await,
                Ok(Turn::Command(command)) => self.command(command).await,
                Ok(Turn::Assign) => {
                    due = false;
                    let done = self.assign().await;
                    assigned_at = tokio::time::Instant::now();
                    done
                }
                Ok(Turn::ReportAgain) => self.report_again().await,
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// One message of the node.
    async fn take(&mut self, message: ToManager) -> Result<(), SessionEnd> {
        self.core.liveness().heard(&self.node, Instant::now());
        match message {
            ToManager::Hello(_) => return Err(SessionEnd::Protocol("Hello came twice".to_owned())),
            ToManager::Heartbeat => {}
            ToManager::Resync => {
                self.sent = None;
                self.assign().await?;
            }
            ToManager::Applied { revision } => self.applied(revision),
            ToManager::TaskStatuses { sequence, statuses } => {
                self.report(Report::Statuses { sequence, statuses }).await?;
            }
            ToManager::PortConflicts(conflicts) => self.report(Report::Conflicts(conflicts)).await?,
            ToManager::Attach(request) => self.attach(request).await?,
            ToManager::Detach { task } => self.report(Report::Detach(task)).await?,
            ToManager::Log { request, lines } => {
                if !self.logs.lines(request, lines) {
                    self.send(&ToAgent::StopLogs { request }).await?;
                }
            }
            ToManager::LogEnd { request, error } => self.logs.end(request, error),
            ToManager::Leave => return Err(self.leave().await),
        }
        Ok(())
    }

    async fn attach(&mut self, request: AttachRequest) -> Result<(), SessionEnd> {
        let (core, node, number) = (self.core.clone(), self.node.clone(), request.request);
        let generation = self.generation;
        let planned =
            tokio::task::spawn_blocking(move || attach::attach(&core, &node, generation, &request)).await;
        let result = planned.unwrap_or_else(|panic| Err(panic.to_string()));
        self.send(&ToAgent::Attached { request: number, result }).await
    }

    async fn leave(&mut self) -> SessionEnd {
        let node = self.node.clone();
        let left = self.core.write(move |state| reports::left(state, &node, Timestamp::now())).await;
        if left.is_err() {
            return SessionEnd::Store;
        }
        self.core.liveness().forget(&self.node);
        SessionEnd::Left
    }

    async fn command(&mut self, command: Command) -> Result<(), SessionEnd> {
        match command {
            Command::ReadLogs { request, to } => {
                self.logs.begin(request.request, to);
                self.send(&ToAgent::ReadLogs(request)).await
            }
            Command::StopLogs { request } => {
                self.logs.stop(request);
                self.send(&ToAgent::StopLogs { request }).await
            }
        }
    }

    async fn send(&self, message: &ToAgent) -> Result<(), SessionEnd> {
        let mut line = serde_json::to_vec(message).expect("the model's messages serialize without failing");
        line.push(b'\n');
        match tokio::time::timeout(SEND_LIMIT, self.outbound.send(line.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(SessionEnd::Closed),
            Err(_elapsed) => Err(SessionEnd::Stuck),
        }
    }
}
