//! One HTTP/2 connection to a manager, over TLS.

use bytes::Bytes;
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use skep_model::join::MANAGER_NAME;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// A SYN that is dropped on its way is repeated after 1 and 3 s, the next time after 7 s: too long after the end of
/// an outage, so that the fourth try is a new connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(8);
/// A manager that answers no ping for this long is gone, whatever TCP still hopes for.
const PING_LIMIT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// What every host and path takes of a TCP segment (RFC 9293 §3.7.1), in bytes. Both ends go by it. Where something on the
/// way drops larger packets and does not say so, assignments would never arrive, and there are few enough of them.
const SEGMENT: u32 = 536;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Tcp(io::Error),
    #[error("no answer within {} s", CONNECT_LIMIT.as_secs())]
    TcpTimeout,
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("what listens there does not answer the TLS handshake")]
    TlsTimeout,
    #[error("what listens there does not speak HTTP/2: {0}")]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// Whether the certificate shown was not one of a manager of this cluster.
    pub(crate) fn is_certificate_refused(&self) -> bool {
        let Self::Tls(error) = self else { return false };
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    }
}

/// Connects as far as HTTP/2. The connection ends when the result and all its requests are dropped.
pub(crate) async fn connect<B>(manager: SocketAddr, tls: ClientConfig) -> Result<SendRequest<B>, ConnectError>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connecting = tokio::time::timeout(CONNECT_LIMIT, open(manager));
    let stream = connecting.await.map_err(|_| ConnectError::TcpTimeout)?.map_err(ConnectError::Tcp)?;
    // Lines are small and somebody waits for each; without it they would only be slower.
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(MANAGER_NAME).expect("the managers' name is a DNS name");
    let handshake = TlsConnector::from(Arc::new(tls)).connect(name, stream);
    let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await;
    let stream = handshake.map_err(|_| ConnectError::TlsTimeout)?.map_err(ConnectError::Tls)?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%manager, %error, "connection to the manager ended");
        }
    });
    Ok(sender)
}

async fn open(manager: SocketAddr) -> io::Result<TcpStream> {
    let socket = if manager.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(manager).await
}

/// A request for `path` on the manager's port.
pub(crate) fn request<B>(method: hyper::Method, path: &str, body: B) -> Request<B> {
    Request::builder()
        .method(method)
        .uri(format!("https://{MANAGER_NAME}{path}"))
        .body(body)
        .expect("a method and a path of ours make a request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn neither_end_sends_segments_that_some_path_may_not_take() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (opened, accepted) = tokio::join!(open(listener.local_addr().unwrap()), listener.accept());
        for stream in [opened.unwrap(), accepted.unwrap().0] {
            let mss = SockRef::from(&stream).tcp_mss().unwrap();
            assert!(mss <= SEGMENT, "{mss}");
        }
    }
}
