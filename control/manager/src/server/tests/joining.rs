use super::client::{hello, key_of};
use super::*;
use crate::api::{self, Rotate};
use crate::ca::{Authority, Subject};
use hyper::StatusCode;
use skep_model::ClusterId;
use skep_model::assign::Assignment;
use skep_model::cluster::ClusterSpec;
use skep_model::join::CA_PATH;
use skep_model::node::{NodeState, Role};
use skep_model::token::JoinToken;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_the_token_becomes_a_member() {
    let cluster = Cluster::new().await;
    let mut stranger = cluster.stranger().await;
    assert_eq!(stranger.get(CA_PATH).await, cluster.manager.root_ca_pem());
    let token = cluster.state().cluster.as_ref().unwrap().join_tokens.worker.clone();
    assert!(token.parse::<JoinToken>().unwrap().pins(cluster.manager.root_ca_der()));

    let worker = stranger.join(&token).await.unwrap();
    let state = cluster.state();
    assert_eq!(worker.cluster_id, state.cluster.as_ref().unwrap().id);
    let node = &state.nodes[&worker.node_id];
    assert_eq!((node.spec.role, node.status.state), (Role::Worker, NodeState::Unknown));
    assert_eq!((node.description.hostname.as_str(), node.status.addr.as_str()), ("worker", "127.0.0.1"));
    assert_eq!(node.skep.certificate, worker.certificate);
    assert!(key_of(&worker).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_and_managers_are_turned_away_with_a_reason() {
    let cluster = Cluster::new().await;
    let mut stranger = cluster.stranger().await;
    let forged = JoinToken::generate(cluster.manager.root_ca_der()).to_string();
    for wrong in ["", "SWMTKN", &forged] {
        let (status, message) = stranger.join(wrong).await.err().unwrap();
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(message.starts_with("A valid join token is necessary to join this cluster: "), "{message}");
    }
    let manager = cluster.state().cluster.as_ref().unwrap().join_tokens.manager.clone();
    let (status, message) = stranger.join(&manager).await.err().unwrap();
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(message.contains("several managers isn't there yet"), "{message}");
    assert_eq!(cluster.state().nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_refused_at_once_and_the_new_one_taken() {
    let cluster = Cluster::new().await;
    let tokens = || cluster.state().cluster.as_ref().unwrap().join_tokens.clone();
    let old = tokens();
    let rotate = |version| {
        let (spec, rotate) = (ClusterSpec::default(), Rotate { worker: true, manager: false });
        let root = cluster.manager.root_ca_der();
        api::update_cluster(cluster.manager.db(), root, version, &spec, rotate)
    };
    let version = cluster.state().cluster.as_ref().unwrap().meta.version.index;
    assert_eq!(rotate(version - 1), Err(api::ApiError::OutOfSequence));
    assert_eq!(tokens(), old);
    rotate(version).unwrap();
    assert_eq!(tokens().manager, old.manager);
    assert!(tokens().worker.parse::<JoinToken>().unwrap().pins(cluster.manager.root_ca_der()));

    let mut stranger = cluster.stranger().await;
    let (status, message) = stranger.join(&old.worker).await.err().unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message.contains("was rotated"), "{message}");
    stranger.join(&tokens().worker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_tries_to_join_so_often_and_no_more() {
    let cluster = Cluster::new().await;
    // Uses up the second's attempts and tries once more; on a starved machine that may be a second later.
    let one_too_many = async || {
        let mut stranger = cluster.stranger().await;
        while cluster.manager.core.admits_join(Ipv4Addr::LOCALHOST.into()) {}
        stranger.join("SWMTKN").await.err().unwrap()
    };
    let (mut status, mut message) = one_too_many().await;
    while status != StatusCode::TOO_MANY_REQUESTS {
        assert_eq!(status, StatusCode::FORBIDDEN);
        (status, message) = one_too_many().await;
    }
    assert!(message.starts_with("127.0.0.1 tries to join more than 20 times a second"), "{message}");
    assert_eq!(cluster.state().nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_of_another_cluster_is_not_believed() {
    let (cluster, other) = (Cluster::new().await, Cluster::new().await);
    assert!(Client::connect(cluster.addr, other.manager.root_ca_pem(), None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_cluster_opens_no_session() {
    let (cluster, other) = (Cluster::new().await, Cluster::new().await);
    let outsider = other.worker().await;
    let connected = Client::connect(cluster.addr, cluster.manager.root_ca_pem(), Some(&outsider)).await;
    // With TLS 1.3 the client may learn of the refusal at its first request only.
    if let Ok(mut client) = connected {
        let request = client.send(hyper::Method::GET, CA_PATH, client::body(String::new())).await;
        assert!(request.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_needs_a_certificate_of_a_node_that_is_still_a_member() {
    let cluster = Cluster::new().await;
    let path = skep_model::join::SESSION_PATH;
    let mut stranger = cluster.stranger().await;
    let refused = stranger.send(hyper::Method::POST, path, client::body(String::new())).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);

    let worker = cluster.worker().await;
    cluster.write(vec![Change::DeleteNode(worker.node_id.clone())]);
    let refused = Agent::open(cluster.addr, cluster.manager.root_ca_pem(), &worker).await;
    let (status, message) = refused.err().unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message.contains("was removed from the cluster"), "{message}");
}

fn authority(cluster: &Cluster) -> Authority {
    let key = std::fs::read_to_string(cluster.dir.path().join("ca-key.pem")).unwrap();
    let id = cluster.state().cluster.as_ref().unwrap().id.clone();
    Authority::load(id, cluster.manager.root_ca_pem(), &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_told_the_key_of_the_certificate_that_was_shown() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.worker().await, cluster.worker().await);
    let mut first = cluster.agent(&a).await;
    first.begin(hello()).await;
    assert_eq!(cluster.state().nodes[&a.node_id].skep.data_path_key, key_of(&a));
    let (_, complete) = cluster.agent(&b).await.begin(hello()).await;
    let peers = complete.set.into_iter().filter_map(|assignment| match assignment {
        Assignment::Peer(peer) => Some((peer.id, peer.data_path_key)),
        _ => None,
    });
    assert_eq!(peers.collect::<Vec<_>>(), [(a.node_id.clone(), key_of(&a).unwrap())]);
}

/// As all were before networks were sealed.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_a_key_opens_no_session_and_is_not_renewed() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let subject = Subject { node: &worker.node_id, role: Role::Worker, data_path_key: None };
    let (leaf, key) = authority(&cluster).issue(&subject).unwrap();
    let old = Credentials { certificate: leaf.pem(), private_key: key.serialize_pem(), ..worker.clone() };
    let refused = Agent::open(cluster.addr, cluster.manager.root_ca_pem(), &old).await;
    let (status, message) = refused.err().unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message.contains("has no data-path key") && message.contains("join again"), "{message}");
    let root = cluster.manager.root_ca_pem();
    let mut member = Client::connect(cluster.addr, root, Some(&old)).await.unwrap();
    member.key = key_of(&worker);
    let (status, message) = member.renew(&old).await.err().unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message.contains("has no data-path key"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_nodes_have_one_key() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let copy = cluster.worker().await;
    cluster.agent(&worker).await.begin(hello()).await;
    // One that comes with the key of a member does not become one.
    let mut stranger = cluster.stranger().await;
    stranger.key = key_of(&worker);
    let token = cluster.state().cluster.as_ref().unwrap().join_tokens.worker.clone();
    let (status, message) = stranger.join(&token).await.err().unwrap();
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(message.contains(worker.node_id.as_str()) && message.contains("join again"), "{message}");
    // And one that has it in its certificate opens no session.
    let subject = Subject { node: &copy.node_id, role: Role::Worker, data_path_key: key_of(&worker) };
    let (leaf, key) = authority(&cluster).issue(&subject).unwrap();
    let copy = Credentials { certificate: leaf.pem(), private_key: key.serialize_pem(), ..copy };
    let refused = Agent::open(cluster.addr, cluster.manager.root_ca_pem(), &copy).await;
    let (status, message) = refused.err().unwrap();
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(message.contains(worker.node_id.as_str()), "{message}");
    cluster.agent(&worker).await.begin(hello()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_certificate_does_not_pass_for_a_managers() {
    let authority = Authority::create(ClusterId::random()).unwrap();
    let node = NodeId::random();
    let (leaf, key) =
        authority.issue(&Subject { node: &node, role: Role::Worker, data_path_key: None }).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let impostor = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config)).accept(stream).await.is_ok()
    });
    assert!(Client::connect(addr, authority.root_pem(), None).await.is_err());
    assert!(!impostor.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_what_to_do() {
    let (cluster, other) = (Cluster::new().await, tempfile::tempdir().unwrap());
    let (manager, _) = Manager::init(other.path(), options()).unwrap();
    let error = manager.start(cluster.addr).unwrap_err().to_string();
    assert!(error.contains(&cluster.addr.to_string()) && error.contains("--listen-addr"), "{error}");
}

#[test]
fn a_new_cluster_keeps_its_key_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("manager");
    let (manager, credentials) = Manager::init(&dir, options()).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("ca-key.pem")), 0o600);
    let key = std::fs::read_to_string(dir.join("ca-key.pem")).unwrap();
    assert!(!format!("{:?}", manager.db().state()).contains(key.lines().nth(1).unwrap()));

    let state = manager.db().state();
    let node = &state.nodes[&credentials.node_id];
    assert_eq!(node.manager_status.as_ref().unwrap().addr, options().advertise);
    assert_eq!(key_of(&credentials), Some(options().data_path_key));
    assert_eq!(state.cluster.as_ref().unwrap().data_cipher, options().data_cipher);
    let ingress: Vec<_> = state.networks.values().filter(|network| network.spec.ingress).collect();
    assert_eq!(ingress.len(), 1);
    assert_eq!(ingress[0].allocation, None);
}

#[test]
fn a_cluster_is_not_made_twice_and_not_with_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut InitOptions)| {
        let mut options = options();
        change(&mut options);
        Manager::init(dir.path(), options).err().unwrap().to_string()
    };
    assert_eq!(refused(|o| o.subnet_size = 30), "subnet size is out of range: 30");
    assert_eq!(
        refused(|o| o.default_addr_pool = vec!["10.0.0.0/26".parse().unwrap()]),
        "invalid CIDR: \"10.0.0.0/26\". Subnet size is too small for pool: 24"
    );
    assert!(refused(|o| o.default_addr_pool.push("10.9.0.0/16".parse().unwrap())).contains("overlaps"));
    assert!(refused(|o| o.data_path_port = 80).contains("data path port 80"));
    let (manager, _) = Manager::init(dir.path(), options()).unwrap();
    drop(manager);
    assert!(refused(|_| ()).contains("already holds a cluster"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_long_or_senseless_are_refused_with_a_sentence() {
    let cluster = Cluster::new().await;
    let mut stranger = cluster.stranger().await;
    for (path, text, expected) in [
        ("/v1/join", "x".repeat(1 << 20), StatusCode::BAD_REQUEST),
        ("/v1/join", "{}".to_owned(), StatusCode::BAD_REQUEST),
        ("/v1/nodes", String::new(), StatusCode::NOT_FOUND),
    ] {
        let answer = stranger.send(hyper::Method::POST, path, client::body(text)).await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
        let answer = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let refusal: skep_model::join::Refusal = serde_json::from_slice(&answer).unwrap();
        assert!(!refusal.message.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_is_turned_away_and_disturbs_no_session() {
    use tokio::io::AsyncReadExt;
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    let mut crowd = Vec::new();
    for _ in 0..crate::server::MAX_STRANGERS {
        crowd.push(tokio::net::TcpStream::connect(cluster.addr).await.unwrap());
    }
    let mut late = tokio::net::TcpStream::connect(cluster.addr).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), late.read_u8()).await;
    assert!(read.expect("turned away before any time limit").is_err());
    agent.say(&skep_model::session::ToManager::Resync).await;
    agent.assignments().await;
    drop(crowd);
    let returned =
        async { while Client::connect(cluster.addr, cluster.manager.root_ca_pem(), None).await.is_err() {} };
    tokio::time::timeout(LIMIT, returned).await.expect("there is room again");
}
