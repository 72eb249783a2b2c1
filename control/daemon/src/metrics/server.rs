//! The listener for Prometheus. It tells anybody who can reach it, and takes nothing from anybody.

use super::{CONTENT_TYPE, text};
use crate::node::Node;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE as CONTENT_TYPE_HEADER, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Scrapers are few and ask every few seconds. Others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// From the beginning of a connection, or its last answer, to the end of the next request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// For all of a connection: one that reads slowly gives its place back.
const CONNECTION_LIMIT: Duration = Duration::from_secs(120);
/// Wait after a failed accept: most often too many open files, which time cures.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("cannot serve metrics on {0}: it is not an address of this host; choose another --metrics-addr")]
    NotOurAddress(SocketAddr),
    #[error(
        "cannot serve metrics on {addr}: {source}; stop the program that holds it (`ss -ltnp` shows it), or choose another --metrics-addr"
    )]
    Bind { addr: SocketAddr, source: io::Error },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address of this host with a port, as in 127.0.0.1:9323")]
pub(crate) struct InvalidAddress;

/// The word after `--metrics-addr`.
pub(crate) fn address(word: &str) -> Result<SocketAddr, InvalidAddress> {
    word.parse().map_err(|_| InvalidAddress)
}

#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let listener = TcpListener::bind(addr).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrNotAvailable => BindError::NotOurAddress(addr),
            _ => BindError::Bind { addr, source },
        })?;
        Ok(Self { listener })
    }

    #[cfg(test)]
    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self, node: Arc<Node>) {
        self.serve_text(move || {
            let node = node.clone();
            async move { text(&node).await }
        })
        .await;
    }

    async fn serve_text<F: Future<Output = String> + Send + 'static>(
        self,
        text: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                // Never closed.
                let place = room.clone().acquire_owned().await.ok();
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accept => accepted,
                Some(_ended) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = converse(stream, text.clone());
                    connections.spawn(async move {
                        // Its end is its own: a scraper comes again.
                        let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the metrics' listener cannot take a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn converse<F: Future<Output = String>>(stream: TcpStream, text: impl Fn() -> F) {
    let answer = service_fn(|request: Request<Incoming>| {
        let text = &text;
        async move { Ok::<_, Infallible>(answer(&request, text).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for metrics broke off");
    }
}

async fn answer<F: Future<Output = String>>(
    request: &Request<Incoming>,
    text: &impl Fn() -> F,
) -> Response<String> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let mut response = Response::new(text().await);
            response.headers_mut().insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(CONTENT_TYPE));
            return response;
        }
        (_, "/metrics") => {
            let mut response = Response::new("metrics are read, with GET\n".to_owned());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        _ => {
            let mut response = Response::new("metrics are at /metrics\n".to_owned());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE_HEADER, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    async fn started() -> SocketAddr {
        let server = Server::bind(LOOPBACK).await.unwrap();
        let addr = server.addr();
        tokio::spawn(server.serve_text(|| async { "skep_member 0\n".to_owned() }));
        addr
    }

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_at_their_path_and_nothing_else_is_anywhere() {
        let addr = started().await;
        let answer = ask(addr, "GET /metrics").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nskep_member 0\n"),
            "{answer}"
        );
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
        assert!(ask(addr, "GET /").await.starts_with("HTTP/1.1 404"));
        assert!(ask(addr, "POST /metrics").await.starts_with("HTTP/1.1 405"));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_say_nothing_lose_their_place() {
        let addr = started().await;
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(addr).await.unwrap());
        }
        let answer = tokio::time::timeout(60 * HEAD_LIMIT, ask(addr, "GET /metrics")).await;
        assert!(answer.expect("a place in time").starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_served_is_refused_with_what_to_do() {
        let held = Server::bind(LOOPBACK).await.unwrap();
        let taken = Server::bind(held.addr()).await.unwrap_err().to_string();
        assert!(taken.contains(&held.addr().to_string()) && taken.contains("--metrics-addr"), "{taken}");
        let elsewhere = Server::bind("192.0.2.1:9323".parse().unwrap()).await.unwrap_err().to_string();
        assert!(elsewhere.contains("is not an address of this host"), "{elsewhere}");
        for word in ["", "9323", "localhost:9323", "127.0.0.1", "127.0.0.1:99999"] {
            assert_eq!(address(word), Err(InvalidAddress), "{word}");
        }
        assert!(address("[::1]:9323").is_ok());
    }
}
