//! One standing session: whatever happens first is next.

use super::acknowledge::Unacknowledged;
use super::clock;
use super::connection::Connection;
use super::link::{Link, LinkState, Request};
use super::logs::LogReaders;
use super::{SessionConfig, SessionEnd};
use jiff::Timestamp;
use skep_model::assign::{Assignments, Desired};
use skep_model::node::PortConflict;
use skep_model::session::{Attached, Hello, ToAgent, ToManager};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Welcome follows one disk sync after Hello.
const WELCOME_LIMIT: Duration = Duration::from_secs(15);
/// The manager ends the stream when it has written that the node leaves.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Attachments that wait for their answer. Further ones are refused.
const MAX_ATTACHING: usize = 256;
/// Below it a heartbeat would only keep the manager busy.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

pub(super) struct Turns<'a> {
    config: &'a SessionConfig,
    link: &'a Link,
    requests: &'a mut mpsc::Receiver<Request>,
    connection: Connection,
    heartbeat: Duration,
    /// What this session has brought so far; None until its COMPLETE set came.
    desired: Option<Desired>,
    unacknowledged: Unacknowledged,
    in_place: watch::Receiver<Option<Arc<Desired>>>,
    attaching: BTreeMap<u64, oneshot::Sender<Result<Attached, String>>>,
    logs: LogReaders,
    reports: watch::Receiver<u64>,
    conflicts: watch::Receiver<Vec<PortConflict>>,
}

enum Turn {
    Message(ToAgent),
    Request(Request),
    InPlace,
    Reports,
    Conflicts,
    Log(ToManager),
    Heartbeat,
}

impl<'a> Turns<'a> {
    pub(super) fn new(
        config: &'a SessionConfig,
        link: &'a Link,
        requests: &'a mut mpsc::Receiver<Request>,
        connection: Connection,
    ) -> Self {
        Self {
            config,
            link,
            requests,
            connection,
            heartbeat: SHORTEST_HEARTBEAT,
            desired: None,
            unacknowledged: Unacknowledged::default(),
            in_place: link.in_place.subscribe(),
            attaching: BTreeMap::new(),
            logs: LogReaders::new(config.logs.clone()),
            reports: link.reports.subscribe(),
            conflicts: link.conflicts.subscribe(),
        }
    }

    /// Hello and Welcome, and what the manager may have missed.
    pub(super) async fn begin(&mut self, manager: SocketAddr) -> Result<(), SessionEnd> {
        self.send(&ToManager::Hello(self.hello())).await?;
        let welcome = tokio::time::timeout(WELCOME_LIMIT, self.connection.inbound.next()).await;
        let ToAgent::Welcome { heartbeat_ms, now } = welcome.map_err(|_| SessionEnd::Silent)?? else {
            return Err(SessionEnd::Protocol("the first message has to be Welcome".to_owned()));
        };
        self.heartbeat = Duration::from_millis(heartbeat_ms).max(SHORTEST_HEARTBEAT);
        tracing::info!(%manager, "session with the manager begins");
        let wrong_clock = now.and_then(|theirs| clock::difference(Timestamp::now(), theirs));
        if let Some(wrong_clock) = &wrong_clock {
            tracing::warn!("{wrong_clock}");
        }
        self.link.state.send_replace(LinkState { connected: Some(manager), error: wrong_clock });
        self.send_reports().await?;
        self.send_conflicts().await
    }

    fn hello(&self) -> Hello {
        let holdings = self.link.holdings().clone();
        // A task whose end the manager hasn't accepted yet is reported right after this.
        let running = holdings.running.union(&self.link.reports.pending_tasks()).cloned().collect();
        Hello {
            description: self.config.description.clone(),
            data_path_addr: self.config.data_path_addr,
            routed: self.link.routed.borrow().clone(),
            attachments: holdings.attachments.into_iter().collect(),
            running,
        }
    }

    pub(super) async fn until_end(&mut self) -> SessionEnd {
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let turn = tokio::select! {
                message = self.connection.inbound.next() => message.map(Turn::Message),
                request = self.requests.recv() => request.map(Turn::Request).ok_or(SessionEnd::Left),
                _ = self.in_place.changed() => Ok(Turn::InPlace),
                _ = self.reports.changed() => Ok(Turn::Reports),
                _ = self.conflicts.changed() => Ok(Turn::Conflicts),
                message = self.logs.next() => Ok(Turn::Log(message)),
                _ = heartbeat.tick() => Ok(Turn::Heartbeat),
            };
            let done = match turn {
                Ok(Turn::Message(message)) => self.take(message).await,
                Ok(Turn::Request(request)) => self.request(request).await,
                Ok(Turn::InPlace) => self.acknowledge().await,
                Ok(Turn::Reports) => self.send_reports().await,
                Ok(Turn::Conflicts) => self.send_conflicts().await,
                Ok(Turn::Log(message)) => self.send(&message).await,
                Ok(Turn::Heartbeat) => self.send(&ToManager::Heartbeat).await,
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn take(&mut self, message: ToAgent) -> Result<(), SessionEnd> {
        match message {
            ToAgent::Welcome { .. } => return Err(SessionEnd::Protocol("Welcome came twice".to_owned())),
            ToAgent::Assignments(message) => self.assign(message).await?,
            ToAgent::StatusAccepted { sequence } => self.link.reports.accepted(sequence),
            ToAgent::Attached { request, result } => self.attached(request, result).await?,
            ToAgent::ReadLogs(wanted) => self.logs.begin(&wanted),
            ToAgent::StopLogs { request } => self.logs.stop(request),
        }
        Ok(())
    }

    /// Takes assignments in, on disk first. What doesn't fit is asked for anew.
    async fn assign(&mut self, message: Assignments) -> Result<(), SessionEnd> {
        let mut desired = self.desired.take().unwrap_or_default();
        if let Err(gap) = desired.apply(message) {
            tracing::warn!("{gap}: asking for the complete set");
            self.desired = Some(desired);
            return self.send(&ToManager::Resync).await;
        }
        let shared = Arc::new(desired.clone());
        self.desired = Some(desired);
        self.config.desired.save(shared.clone()).await;
        self.unacknowledged.brought(&shared);
        self.link.desired.send_replace(Some(shared));
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), SessionEnd> {
        let set = self.in_place.borrow_and_update().clone();
        match set.and_then(|set| self.unacknowledged.in_place(&set)) {
            Some(revision) => self.send(&ToManager::Applied { revision }).await,
            None => Ok(()),
        }
    }

    async fn attached(&mut self, request: u64, result: Result<Attached, String>) -> Result<(), SessionEnd> {
        let given = result.as_ref().ok().map(|attached| attached.task.clone());
        let waiting = self.attaching.remove(&request);
        if let Some(task) = &given {
            self.link.holdings().attachments.insert(task.clone());
        }
        match (waiting.map(|waiting| waiting.send(result)), given) {
            // Nobody waits for it any more.
            (None | Some(Err(_)), Some(task)) => {
                self.link.holdings().attachments.remove(&task);
                self.send(&ToManager::Detach { task }).await
            }
            _ => Ok(()),
        }
    }

    async fn request(&mut self, request: Request) -> Result<(), SessionEnd> {
        match request {
            Request::Attach(_, answer) if self.attaching.len() == MAX_ATTACHING => {
                // Fails when the caller stopped waiting.
                let _ = answer.send(Err(format!("{MAX_ATTACHING} attachments are on their way: try again")));
                Ok(())
            }
            Request::Attach(request, answer) => {
                self.attaching.retain(|_, waiting| !waiting.is_closed());
                self.attaching.insert(request.request, answer);
                self.send(&ToManager::Attach(request)).await
            }
            Request::Detach(task) => self.send(&ToManager::Detach { task }).await,
            Request::Leave(told) => {
                self.send(&ToManager::Leave).await?;
                self.drain().await;
                let _ = told.send(());
                Err(SessionEnd::Left)
            }
        }
    }

    /// Until the manager closes the stream.
    async fn drain(&mut self) {
        let end = async { while self.connection.inbound.next().await.is_ok() {} };
        if tokio::time::timeout(LEAVE_LIMIT, end).await.is_err() {
            tracing::warn!("the manager did not confirm that this node leaves");
        }
    }

    async fn send_reports(&mut self) -> Result<(), SessionEnd> {
        self.reports.mark_unchanged();
        match self.link.reports.pending_message() {
            Some((sequence, statuses)) => self.send(&ToManager::TaskStatuses { sequence, statuses }).await,
            None => Ok(()),
        }
    }

    async fn send_conflicts(&mut self) -> Result<(), SessionEnd> {
        let conflicts = self.conflicts.borrow_and_update().clone();
        self.send(&ToManager::PortConflicts(conflicts)).await
    }

    async fn send(&self, message: &ToManager) -> Result<(), SessionEnd> {
        self.connection.outbound.send(message).await
    }
}
