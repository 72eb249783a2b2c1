//! A node's side of the manager's port, over real TLS on loopback.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use skep_model::assign::{AssignmentKind, Assignments};
use skep_model::data_path::DataPathKey;
use skep_model::join::{
    Credentials, JOIN_PATH, JoinRequest, JoinResponse, MANAGER_NAME, RENEW_PATH, Refusal, RenewRequest,
    RenewResponse, SESSION_PATH,
};
use skep_model::node::{Availability, NodeDescription};
use skep_model::session::{Hello, MAX_MESSAGE_BYTES, ToAgent, ToManager};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use skep_model::lines::Lines;

/// Far more than any answer takes; a test that waits this long has failed.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

type Body = BoxBody<Bytes, Infallible>;

pub(super) struct Client {
    requests: http2::SendRequest<Body>,
    /// What it says its data-path key is; None: the right one.
    pub(super) key: Option<DataPathKey>,
}

impl Client {
    pub(super) async fn connect(
        addr: SocketAddr,
        root_pem: &str,
        identity: Option<&Credentials>,
    ) -> std::io::Result<Self> {
        let connector = TlsConnector::from(Arc::new(client_config(root_pem, identity)));
        let tcp = TcpStream::connect(addr).await?;
        let name = ServerName::try_from(MANAGER_NAME).unwrap();
        let tls = connector.connect(name, tcp).await?;
        let (requests, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { requests, key: None })
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
    ) -> hyper::Result<Response<Incoming>> {
        let request =
            Request::builder().method(method).uri(format!("https://{MANAGER_NAME}{path}")).body(body);
        self.requests.send_request(request.unwrap()).await
    }

    pub(super) async fn get(&mut self, path: &str) -> String {
        let response = self.send(Method::GET, path, body(String::new())).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    pub(super) async fn join(&mut self, token: &str) -> Result<Credentials, (StatusCode, String)> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let request = JoinRequest {
            token: token.to_owned(),
            csr,
            data_path_key: self.key.unwrap_or_else(new_key),
            hostname: "worker".to_owned(),
            availability: Availability::Active,
        };
        let request = serde_json::to_string(&request).unwrap();
        let response = self.send(Method::POST, JOIN_PATH, body(request)).await.unwrap();
        let status = response.status();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        if status != StatusCode::OK {
            return Err((status, serde_json::from_slice::<Refusal>(&answer).unwrap().message));
        }
        let JoinResponse { node_id, cluster_id, role, certificate, .. } =
            serde_json::from_slice(&answer).unwrap();
        let private_key = key.serialize_pem();
        Ok(Credentials { node_id, cluster_id, role, certificate, private_key, root_ca: String::new() })
    }
}

impl Client {
    /// A certificate for a new key, asked for as `identity`.
    pub(super) async fn renew(
        &mut self,
        identity: &Credentials,
    ) -> Result<Credentials, (StatusCode, String)> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let data_path_key = self.key.unwrap_or_else(|| key_of(identity).unwrap());
        let request = serde_json::to_string(&RenewRequest { csr, data_path_key }).unwrap();
        let response = self.send(Method::POST, RENEW_PATH, body(request)).await.unwrap();
        let status = response.status();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        if status != StatusCode::OK {
            return Err((status, serde_json::from_slice::<Refusal>(&answer).unwrap().message));
        }
        let RenewResponse { certificate } = serde_json::from_slice(&answer).unwrap();
        Ok(Credentials { certificate, private_key: key.serialize_pem(), ..identity.clone() })
    }
}

/// As a node that has just made one.
fn new_key() -> DataPathKey {
    DataPathKey(rand::random())
}

pub(super) fn key_of(identity: &Credentials) -> Option<DataPathKey> {
    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).ok()?;
    DataPathKey::of_certificate(&der).ok()
}

pub(super) fn body(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed()
}

fn client_config(root_pem: &str, identity: Option<&Credentials>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.private_key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// An agent that says what the test tells it to.
pub(super) struct Agent {
    to_manager: mpsc::Sender<Bytes>,
    from_manager: Incoming,
    lines: Lines,
    _client: Client,
}

pub(super) fn hello() -> Hello {
    Hello {
        description: NodeDescription { hostname: "fake".to_owned(), ..NodeDescription::default() },
        data_path_addr: Ipv4Addr::new(192, 0, 2, 7),
        routed: vec!["192.0.2.0/24".parse().unwrap()],
        attachments: Vec::new(),
        running: Vec::new(),
    }
}

impl Agent {
    /// Opens a session without a word in it.
    pub(super) async fn open(
        addr: SocketAddr,
        root_pem: &str,
        identity: &Credentials,
    ) -> Result<Self, (StatusCode, String)> {
        let mut client = Client::connect(addr, root_pem, Some(identity)).await.unwrap();
        let (to_manager, messages) = mpsc::channel::<Bytes>(64);
        let frames = stream::unfold(messages, |mut messages| async move {
            let message = messages.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(message)), messages))
        });
        let response =
            client.send(Method::POST, SESSION_PATH, BodyExt::boxed(StreamBody::new(frames))).await.unwrap();
        let status = response.status();
        let from_manager = response.into_body();
        if status != StatusCode::OK {
            let answer = from_manager.collect().await.unwrap().to_bytes();
            return Err((status, serde_json::from_slice::<Refusal>(&answer).unwrap().message));
        }
        Ok(Self { to_manager, from_manager, lines: Lines::new(MAX_MESSAGE_BYTES), _client: client })
    }

    pub(super) async fn say(&self, message: &ToManager) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.to_manager.send(line.into()).await.unwrap();
    }

    /// The next message; None at the stream's end.
    pub(super) async fn hear(&mut self) -> Option<ToAgent> {
        tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(line) = self.lines.pop().unwrap() {
                    return Some(serde_json::from_slice(&line).unwrap());
                }
                self.lines.push(self.from_manager.frame().await?.ok()?.data_ref()?);
            }
        })
        .await
        .expect("the manager says something in time")
    }

    /// Says Hello; returns the heartbeat period and the COMPLETE set.
    pub(super) async fn begin(&mut self, hello: Hello) -> (u64, Assignments) {
        self.say(&ToManager::Hello(hello)).await;
        let Some(ToAgent::Welcome { heartbeat_ms, .. }) = self.hear().await else { panic!("no Welcome") };
        let complete = self.assignments().await;
        assert_eq!(complete.kind, AssignmentKind::Complete);
        (heartbeat_ms, complete)
    }

    /// The next assignments, whatever comes before them.
    pub(super) async fn assignments(&mut self) -> Assignments {
        loop {
            match self.hear().await.expect("the session goes on") {
                ToAgent::Assignments(assignments) => return assignments,
                _ => continue,
            }
        }
    }
}
