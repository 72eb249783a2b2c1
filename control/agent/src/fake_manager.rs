//! A manager's port on loopback, with a certificate authority of its own; what it says is the test's.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderName;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, IsCa, Issuer,
    KeyPair, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use skep_model::data_path::{DataCipher, DataPathKey, KEY_EXTENSION};
use skep_model::join::{
    CA_PATH, Credentials, DATA_PATH_PORT, JOIN_PATH, JoinRequest, JoinResponse, MANAGER_NAME, RENEW_PATH,
    Refusal, RenewRequest, RenewResponse, SESSION_PATH,
};
use skep_model::lines::Lines;
use skep_model::node::Role;
use skep_model::session::{MAX_MESSAGE_BYTES, ToAgent, ToManager};
use skep_model::token::JoinToken;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Nothing a test waits for takes this long on loopback.
const LIMIT: Duration = Duration::from_secs(20);

/// In the certificates of members.
const KEY: DataPathKey = DataPathKey([1; 32]);

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root_pem: String,
    root_der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root = params.self_signed(&key).unwrap();
        let (root_pem, root_der) = (root.pem(), root.der().clone());
        Self { issuer: Issuer::new(params, key), root_pem, root_der }
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken::generate(&self.root_der)
    }

    /// What a member of the cluster has.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials_with(KEY)
    }

    pub(crate) fn credentials_with(&self, data_path_key: DataPathKey) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let leaf = binding(data_path_key).signed_by(&key, &self.issuer).unwrap();
        Credentials {
            node_id: "n1".into(),
            cluster_id: "c1".into(),
            role: Role::Worker,
            certificate: leaf.pem(),
            private_key: key.serialize_pem(),
            root_ca: self.root_pem.clone(),
        }
    }

    /// As [`Self::credentials`], valid from `begin` to `end`.
    pub(crate) fn credentials_for(&self, begin: Timestamp, end: Timestamp) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = binding(KEY);
        (params.not_before, params.not_after) =
            (SystemTime::from(begin).into(), SystemTime::from(end).into());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Credentials { certificate, private_key: key.serialize_pem(), ..self.credentials() }
    }

    fn sign(&self, request: &str, data_path_key: DataPathKey) -> String {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        binding(data_path_key).signed_by(&request.public_key, &self.issuer).unwrap().pem()
    }

    /// For a server that shows a certificate for `name` of this authority.
    fn server(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a certificate says that binds a node's data-path key.
fn binding(key: DataPathKey) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![CustomExtension::from_oid_content(&KEY_EXTENSION, key.to_extension())];
    params
}

/// How a manager behaves.
#[derive(Clone)]
pub(crate) struct Behaviour {
    /// What `GET /v1/ca` answers.
    pub(crate) root_pem: String,
    /// The refusal every join and session gets, if any.
    pub(crate) refusal: Option<String>,
    /// In its certificate.
    pub(crate) name: String,
    /// What `GET /v1/ca` says in its header, if anything.
    pub(crate) data_path_port: Option<u16>,
}

pub(crate) struct FakeManager {
    pub(crate) addr: SocketAddr,
    sessions: mpsc::Receiver<FakeSession>,
    serving: JoinHandle<()>,
}

impl FakeManager {
    pub(crate) async fn start(authority: Arc<Authority>) -> Self {
        let root_pem = authority.root_pem.clone();
        let behaviour =
            Behaviour { root_pem, refusal: None, name: MANAGER_NAME.to_owned(), data_path_port: None };
        Self::start_as(authority, behaviour, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// One that refuses whatever members ask.
    pub(crate) async fn refusing(authority: Arc<Authority>, message: &str) -> Self {
        let root_pem = authority.root_pem.clone();
        let refusal = Some(message.to_owned());
        let behaviour = Behaviour { root_pem, refusal, name: MANAGER_NAME.to_owned(), data_path_port: None };
        Self::start_as(authority, behaviour, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    pub(crate) async fn start_as(authority: Arc<Authority>, behaviour: Behaviour, addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (opened, sessions) = mpsc::channel(4);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(authority.clone(), behaviour.clone(), stream, opened.clone()));
            }
        });
        Self { addr, sessions, serving }
    }

    /// The next session an agent opens.
    pub(crate) async fn session(&mut self) -> FakeSession {
        tokio::time::timeout(LIMIT, self.sessions.recv()).await.expect("a session in time").unwrap()
    }

    /// Closes the port and every connection.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.serving.abort();
        let _ = self.serving.await;
        self.addr
    }
}

/// The manager's end of a session.
pub(crate) struct FakeSession {
    inbound: Incoming,
    lines: Lines,
    outbound: mpsc::Sender<Bytes>,
}

impl FakeSession {
    pub(crate) async fn next(&mut self) -> ToManager {
        tokio::time::timeout(LIMIT, self.next_or_end()).await.expect("a message in time").expect("a message")
    }

    /// None at the end of the stream.
    pub(crate) async fn next_or_end(&mut self) -> Option<ToManager> {
        loop {
            if let Some(line) = self.lines.pop().unwrap() {
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.lines.push(self.inbound.frame().await?.ok()?.data_ref()?);
        }
    }

    /// The next message `wanted` takes; others are passed over.
    pub(crate) async fn find<T>(&mut self, wanted: impl Fn(ToManager) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn send(&self, message: ToAgent) {
        let mut line = serde_json::to_vec(&message).unwrap();
        line.push(b'\n');
        self.outbound.send(line.into()).await.unwrap();
    }
}

async fn serve(
    authority: Arc<Authority>,
    behaviour: Behaviour,
    stream: TcpStream,
    opened: mpsc::Sender<FakeSession>,
) {
    // Fails where the agent doesn't believe the certificate.
    let Ok(stream) = authority.server(&behaviour.name).accept(stream).await else { return };
    let service = service_fn(|request| {
        let (authority, behaviour, opened) = (authority.clone(), behaviour.clone(), opened.clone());
        async move { Ok::<_, Infallible>(answer(&authority, &behaviour, request, opened).await) }
    });
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    // Fails where the agent hangs up.
    let _ = connection.await;
}

async fn answer(
    authority: &Authority,
    behaviour: &Behaviour,
    request: Request<Incoming>,
    opened: mpsc::Sender<FakeSession>,
) -> Response<Body> {
    match (request.uri().path(), &behaviour.refusal) {
        (CA_PATH, _) => {
            let mut answer = full(StatusCode::OK, behaviour.root_pem.clone().into());
            answer.headers_mut().extend(
                behaviour.data_path_port.map(|port| (HeaderName::from_static(DATA_PATH_PORT), port.into())),
            );
            answer
        }
        (_, Some(message)) => {
            let refusal = Refusal { message: message.clone() };
            full(StatusCode::FORBIDDEN, serde_json::to_vec(&refusal).unwrap())
        }
        (JOIN_PATH, None) => {
            let request = request.into_body().collect().await.unwrap().to_bytes();
            let request: JoinRequest = serde_json::from_slice(&request).unwrap();
            let joined = JoinResponse {
                node_id: "n7".into(),
                cluster_id: "c1".into(),
                role: Role::Worker,
                certificate: authority.sign(&request.csr, request.data_path_key),
                data_path_port: 4790,
                data_cipher: DataCipher::Aes256Gcm,
            };
            full(StatusCode::OK, serde_json::to_vec(&joined).unwrap())
        }
        (RENEW_PATH, None) => {
            let request = request.into_body().collect().await.unwrap().to_bytes();
            let request: RenewRequest = serde_json::from_slice(&request).unwrap();
            let renewed = RenewResponse { certificate: authority.sign(&request.csr, request.data_path_key) };
            full(StatusCode::OK, serde_json::to_vec(&renewed).unwrap())
        }
        (SESSION_PATH, None) => {
            let (outbound, messages) = mpsc::channel(16);
            let (inbound, lines) = (request.into_body(), Lines::new(MAX_MESSAGE_BYTES));
            opened.send(FakeSession { inbound, lines, outbound }).await.unwrap();
            let frames = stream::unfold(messages, |mut messages: mpsc::Receiver<Bytes>| async move {
                let message = messages.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(message)), messages))
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        (path, None) => panic!("nothing is asked at {path}"),
    }
}

fn full(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    Response::builder().status(status).body(Full::new(body.into()).boxed_unsync()).unwrap()
}
