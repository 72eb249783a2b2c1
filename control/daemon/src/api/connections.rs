//! The API's connections: how many there may be, and how long one may say nothing.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower::util::MapRequest;

/// Far more than people and tools use at once. Others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// Of the files a daemon may open, connections take this part at most: tasks and the data path need theirs.
const PART_OF_FILES: u64 = 4;
/// From the beginning of a connection, or its last answer, to the end of the next request's head. Clients that keep
/// a connection for later open another one after that.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Wait after a failed accept: most often too many open files, which time cures.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

pub(super) type App = MapRequest<Router, fn(Request) -> Request>;

pub(super) async fn serve(listener: UnixListener, app: App, stopped: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(room()));
    let mut stopped = pin!(stopped);
    let mut fails = false;
    loop {
        let accept = async {
            // Never closed.
            let place = room.clone().acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((stream, _)) => {
                fails = false;
                let connection = converse(stream, app.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::warn!(%error, "the API cannot take connections: it tries again until it can");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn room() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _hard)| soft);
    usize::try_from(files / PART_OF_FILES).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

async fn converse(stream: UnixStream, app: App) {
    let answer = move |request: hyper::Request<Incoming>| app.clone().oneshot(request.map(Body::new));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of the API broke off");
    }
}
