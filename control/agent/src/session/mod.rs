//! The node's session with a manager: connected again whenever it is lost, and never a reason to stop
//! anything that runs.

mod acknowledge;
mod backoff;
mod clock;
mod connection;
mod link;
mod logs;
mod reports;
#[cfg(test)]
pub(crate) mod tests;
mod turns;

pub(crate) use backoff::Backoff;
pub(crate) use link::Link;
pub(crate) use logs::LogSource;

use crate::desired::DesiredFile;
use crate::tls::CredentialsError;
use crate::transport::ConnectError;
use jiff::Timestamp;
use link::{LinkState, Request};
use skep_model::join::Credentials;
use skep_model::node::NodeDescription;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use turns::Turns;

pub(crate) struct SessionConfig {
    /// As they are renewed.
    pub(crate) credentials: watch::Receiver<Credentials>,
    pub(crate) managers: Vec<SocketAddr>,
    pub(crate) description: NodeDescription,
    pub(crate) data_path_addr: Ipv4Addr,
    pub(crate) desired: DesiredFile,
    pub(crate) logs: LogSource,
}

/// Why a session ended or could not begin.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("this node's credentials cannot be used: {0}")]
    Credentials(#[from] CredentialsError),
    #[error(
        "this node's certificate expired on {0}, while it was away: let it run `skep swarm leave --force`, then `skep swarm join` with the token that `skep swarm join-token worker` prints on a manager"
    )]
    Expired(Timestamp),
    #[error("this node's certificate begins on {0}, and its clock is behind that: set the clock")]
    NotYetValid(Timestamp),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the manager closed the session")]
    Closed,
    #[error("the manager does not answer")]
    Silent,
    #[error("{0}")]
    Refused(String),
    #[error("the manager sent what this node does not understand: {0}")]
    Protocol(String),
    #[error("this node left the swarm")]
    Left,
}

/// Keeps a session until the node leaves or `stop` becomes true. Use [`start`].
struct Session {
    config: SessionConfig,
    link: Arc<Link>,
    requests: mpsc::Receiver<Request>,
}

/// The session as a future to run, and the way to it.
pub(crate) fn start(
    config: SessionConfig,
    stop: watch::Receiver<bool>,
) -> (impl Future<Output = ()> + Send, Arc<Link>) {
    let (link, requests) = Link::new();
    let session = Session { config, link: link.clone(), requests };
    (session.run(stop), link)
}

impl Session {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.connect_again_and_again() => {}
            // An error means that nobody is left who could say stop.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.link.state.send_replace(LinkState::default());
    }

    async fn connect_again_and_again(&mut self) {
        let mut backoff = Backoff::default();
        for turn in 0usize.. {
            let Some(manager) = self.config.managers.get(turn % self.config.managers.len().max(1)) else {
                return tracing::error!("no manager is known");
            };
            let manager = *manager;
            let (end, was_connected) = self.session_with(manager).await;
            if matches!(end, SessionEnd::Left) {
                return;
            }
            if was_connected {
                backoff.reset();
            }
            self.note_end(manager, &end, was_connected);
            if self.wait_refusing(backoff.wait(), &end).await.is_break() {
                return;
            }
        }
    }

    /// One connection, from its beginning to its end, and whether it stood at all.
    async fn session_with(&mut self, manager: SocketAddr) -> (SessionEnd, bool) {
        let credentials = self.config.credentials.borrow().clone();
        let connection = match connection::open(manager, &credentials).await {
            Ok(connection) => connection,
            Err(end) => return (end, false),
        };
        let mut turns = Turns::new(&self.config, &self.link, &mut self.requests, connection);
        if let Err(end) = turns.begin(manager).await {
            return (end, false);
        }
        (turns.until_end().await, true)
    }

    fn note_end(&self, manager: SocketAddr, end: &SessionEnd, was_connected: bool) {
        let error = match was_connected {
            true => format!("the session with the manager at {manager} ended: {end}"),
            false => format!("no session with the manager at {manager}: {end}"),
        };
        let state = LinkState { connected: None, error: Some(error.clone()) };
        if self.link.state.send_replace(state.clone()) != state {
            tracing::warn!("{error}; everything here runs on, trying again");
        }
    }

    /// Waits for the next try. Who asks for something meanwhile is told that there is no connection.
    async fn wait_refusing(&mut self, wait: Duration, end: &SessionEnd) -> ControlFlow<()> {
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            let request = tokio::select! {
                () = &mut deadline => return ControlFlow::Continue(()),
                request = self.requests.recv() => request,
            };
            match request {
                Some(Request::Attach(_, answer)) => {
                    // Fails when the caller stopped waiting.
                    let _ = answer.send(Err(format!("this node is not connected to a manager: {end}")));
                }
                // The next Hello says what is still held.
                Some(Request::Detach(_)) => {}
                Some(Request::Leave(told)) => {
                    let _ = told.send(());
                    return ControlFlow::Break(());
                }
                None => return ControlFlow::Break(()),
            }
        }
    }
}
