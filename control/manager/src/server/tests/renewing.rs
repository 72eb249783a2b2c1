use super::client::{body, hello, key_of};
use super::*;
use crate::ca::{Authority, NODE_VALIDITY, Subject};
use hyper::StatusCode;
use skep_model::node::Role;
use std::time::SystemTime;

async fn client(cluster: &Cluster, identity: &Credentials) -> Client {
    Client::connect(cluster.addr, cluster.manager.root_ca_pem(), Some(identity)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_a_certificate_for_a_new_key_and_both_open_sessions() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let renewed = client(&cluster, &worker).await.renew(&worker).await.unwrap();
    assert_ne!((&renewed.certificate, &renewed.private_key), (&worker.certificate, &worker.private_key));
    assert_eq!(cluster.state().nodes[&worker.node_id].skep.certificate, renewed.certificate);
    assert_eq!(key_of(&renewed), key_of(&worker), "it keeps its data-path key");
    for identity in [&renewed, &worker] {
        let mut agent = cluster.agent(identity).await;
        agent.begin(hello()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_brings_no_other_data_path_key() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut member = client(&cluster, &worker).await;
    member.key = Some(DataPathKey([9; 32]));
    let (status, message) = member.renew(&worker).await.err().unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message.contains("keeps its data-path key"), "{message}");
    assert_eq!(cluster.state().nodes[&worker.node_id].skep.certificate, worker.certificate);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_managers_own_node_keeps_its_role() {
    let cluster = Cluster::new().await;
    let renewed = client(&cluster, &cluster.first).await.renew(&cluster.first).await.unwrap();
    let again = client(&cluster, &renewed).await.renew(&renewed).await.unwrap();
    let unit = |credentials: &Credentials| {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        use x509_parser::prelude::{FromDer, X509Certificate};
        let der = CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).unwrap();
        X509Certificate::from_der(&der).unwrap().1.subject().to_string()
    };
    assert!(unit(&again).contains("swarm-manager"), "{}", unit(&again));
    assert_eq!(unit(&again), unit(&cluster.first));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_removed_nodes_get_no_certificate() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let (status, _) = cluster.stranger().await.renew(&worker).await.err().unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let mut member = client(&cluster, &worker).await;
    cluster.write(vec![Change::DeleteNode(worker.node_id.clone())]);
    let (status, message) = member.renew(&worker).await.err().unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message.contains("was removed from the cluster"), "{message}");
    assert!(!cluster.state().nodes.contains_key(&worker.node_id), "it did not come back by it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nodes_session_ends_at_once_and_its_certificate_opens_no_other() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    cluster.write(vec![Change::DeleteNode(worker.node_id.clone())]);
    while agent.hear().await.is_some() {}
    let opened = Agent::open(cluster.addr, cluster.manager.root_ca_pem(), &worker).await;
    let (status, message) = opened.err().unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message.contains("was removed from the cluster"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_serves_across_a_day_of_difference_and_ends_after_ninety() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let key = std::fs::read_to_string(cluster.dir.path().join("ca-key.pem")).unwrap();
    let id = cluster.state().cluster.as_ref().unwrap().id.clone();
    let authority = Authority::load(id, cluster.manager.root_ca_pem(), &key).unwrap();
    let issued = |at: SystemTime| {
        let subject = Subject { node: &worker.node_id, role: Role::Worker, data_path_key: key_of(&worker) };
        let (leaf, key) = authority.issue_at(at, &subject).unwrap();
        Credentials { certificate: leaf.pem(), private_key: key.serialize_pem(), ..worker.clone() }
    };
    let (now, day) = (SystemTime::now(), Duration::from_hours(24));
    for at in [now + day, now - day, now - NODE_VALIDITY + day] {
        cluster.agent(&issued(at)).await.begin(hello()).await;
    }
    let expired = issued(now - NODE_VALIDITY - day);
    let mut refused = client(&cluster, &expired).await;
    // TLS 1.3 (RFC 8446 section 4.4.2): the client's certificate is judged after its handshake is done.
    let answer = refused.send(hyper::Method::GET, "/v1/ca", body(String::new())).await;
    assert!(answer.is_err(), "{answer:?}");
}
