use super::*;
use crate::fake_manager::{Authority, Behaviour, FakeManager};
use skep_model::join::MANAGER_NAME;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

const KEY: DataPathKey = DataPathKey([6; 32]);

fn request(manager: SocketAddr, token: JoinToken) -> EnrollRequest {
    EnrollRequest {
        manager,
        token,
        hostname: "host".to_owned(),
        availability: Availability::Active,
        data_path_addr: Ipv4Addr::LOCALHOST,
        data_path_key: KEY,
    }
}

async fn manager(authority: &Arc<Authority>, behaviour: Behaviour) -> FakeManager {
    FakeManager::start_as(authority.clone(), behaviour, (Ipv4Addr::LOCALHOST, 0).into()).await
}

fn honest(authority: &Authority) -> Behaviour {
    let root_pem = authority.root_pem.clone();
    Behaviour { root_pem, refusal: None, name: MANAGER_NAME.to_owned(), data_path_port: None }
}

async fn refused(manager: &FakeManager, token: JoinToken) -> EnrollError {
    enroll(request(manager.addr, token)).await.err().expect("a refusal")
}

#[tokio::test]
async fn a_token_leads_to_credentials_the_manager_signed_for_our_key() {
    let authority = Arc::new(Authority::new());
    let manager = FakeManager::start(authority.clone()).await;
    let enrolled = enroll(request(manager.addr, authority.token())).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((enrolled.data_path_port, enrolled.data_cipher), (4790, DataCipher::Aes256Gcm));
    assert_eq!(tls::data_path_key(&enrolled.credentials.certificate).unwrap(), KEY);
    assert_eq!(enrolled.credentials.node_id, "n7".into());
    assert_eq!(enrolled.credentials.root_ca, authority.root_pem);
    assert!(tls::member(&enrolled.credentials).is_ok(), "key and certificate fit");
}

#[tokio::test]
async fn an_authority_the_token_was_not_made_for_is_not_believed() {
    let authority = Arc::new(Authority::new());
    let manager = FakeManager::start(authority).await;
    let error = refused(&manager, Authority::new().token()).await;
    assert!(matches!(error, EnrollError::WrongAuthority { .. }), "{error}");
    assert!(error.to_string().starts_with("remote CA does not match fingerprint"));
}

/// Anybody can show the cluster's root, which is public; only a manager has a certificate of it.
#[tokio::test]
async fn the_right_root_shown_by_somebody_else_is_not_enough() {
    let cluster = Authority::new();
    let impostor = Arc::new(Authority::new());
    let manager = manager(&impostor, honest(&cluster)).await;
    let error = refused(&manager, cluster.token()).await;
    assert!(matches!(error, EnrollError::WrongAuthority { .. }), "{error}");
}

/// A worker's certificate is of the cluster's root, but not for the managers' name.
#[tokio::test]
async fn a_worker_cannot_pose_as_a_manager() {
    let authority = Arc::new(Authority::new());
    let worker = Behaviour { name: "worker.skep".to_owned(), ..honest(&authority) };
    let manager = manager(&authority, worker).await;
    let error = refused(&manager, authority.token()).await;
    assert!(matches!(error, EnrollError::WrongAuthority { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_managers_words() {
    let authority = Arc::new(Authority::new());
    let refusing =
        Behaviour { refusal: Some("A valid join token is necessary".to_owned()), ..honest(&authority) };
    let manager = manager(&authority, refusing).await;
    let error = refused(&manager, authority.token()).await;
    assert_eq!(error.to_string(), "A valid join token is necessary");
}

/// A node that could never carry a packet would stay in everybody's list.
#[tokio::test]
async fn a_host_without_its_data_path_port_does_not_ask_to_join() {
    let authority = Arc::new(Authority::new());
    let held = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    let refusing =
        Behaviour { refusal: Some("it asked".to_owned()), data_path_port: Some(port), ..honest(&authority) };
    let manager = manager(&authority, refusing).await;
    let error = refused(&manager, authority.token()).await;
    assert!(matches!(error, EnrollError::DataPath(UdpError::InUse { .. })), "{error}");
}

#[tokio::test]
async fn what_is_no_certificate_is_not_a_managers_answer() {
    let authority = Arc::new(Authority::new());
    let odd = Behaviour { root_pem: "hello".to_owned(), ..honest(&authority) };
    let manager = manager(&authority, odd).await;
    let error = refused(&manager, authority.token()).await;
    assert!(matches!(error, EnrollError::Answer { .. }), "{error}");
}

#[tokio::test]
async fn where_nobody_listens_the_address_and_what_to_check_are_named() {
    let authority = Arc::new(Authority::new());
    let addr = FakeManager::start(authority.clone()).await.stop().await;
    let error = enroll(request(addr, authority.token())).await.err().expect("a refusal").to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("firewall"), "{error}");
}
