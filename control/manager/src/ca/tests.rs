use super::*;
use skep_model::data_path::CertificateKeyError;
use x509_parser::prelude::{FromDer, X509Certificate};

const KEY: DataPathKey = DataPathKey([3; 32]);

fn authority() -> Authority {
    Authority::create(ClusterId::from("cluster1")).unwrap()
}

fn subject(node: &NodeId, role: Role) -> Subject<'_> {
    Subject { node, role, data_path_key: Some(KEY) }
}

fn names(pem: &str) -> (String, Vec<String>, i64) {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let alternative = leaf.subject_alternative_name().unwrap();
    let dns = alternative
        .map_or(Vec::new(), |san| san.value.general_names.iter().map(|name| name.to_string()).collect());
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    (leaf.subject().to_string(), dns, life)
}

fn request(params: CertificateParams) -> String {
    let key = KeyPair::generate_for(KEY_ALGORITHM).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

#[test]
fn a_leaf_names_node_role_and_cluster_as_swarm_does() {
    let (ca, node) = (authority(), NodeId::from("node1"));
    let (leaf, _key) = ca.issue(&subject(&node, Role::Manager)).unwrap();
    let (name, dns, life) = names(&leaf.pem());
    assert_eq!(name, "O=cluster1, OU=swarm-manager, CN=node1");
    assert_eq!(dns, [format!("DNSName({MANAGER_NAME})")]);
    assert_eq!(life, (NODE_VALIDITY + BACK_DATE).as_secs() as i64);
}

#[test]
fn a_leaf_binds_its_nodes_data_path_key() {
    let (ca, node) = (authority(), NodeId::from("node1"));
    let key_of = |subject: &Subject<'_>| DataPathKey::of_certificate(ca.issue(subject).unwrap().0.der());
    for role in [Role::Manager, Role::Worker] {
        assert_eq!(key_of(&subject(&node, role)), Ok(KEY));
    }
    let without = Subject { data_path_key: None, ..subject(&node, Role::Worker) };
    assert_eq!(key_of(&without), Err(CertificateKeyError::Missing));
    assert_eq!(DataPathKey::of_certificate(ca.root_der()), Err(CertificateKeyError::Missing));
}

/// Whoever does not know the extension takes the certificate all the same (RFC 5280 §4.2).
#[test]
fn the_key_is_a_private_extension_that_is_not_critical() {
    let (ca, node) = (authority(), NodeId::from("node1"));
    let (leaf, _key) = ca.issue(&subject(&node, Role::Worker)).unwrap();
    let (_, leaf) = X509Certificate::from_der(leaf.der()).unwrap();
    let mut extensions = leaf.extensions().iter();
    let key = extensions.find(|e| e.oid.to_id_string() == "2.25.8693137752428052845").unwrap();
    assert!(!key.critical);
    assert_eq!(key.value, [[0x04, 0x20].as_slice(), &[3; 32]].concat());
}

#[test]
fn a_key_of_another_length_is_none() {
    let key = KeyPair::generate_for(KEY_ALGORITHM).unwrap();
    let with = |values: &[&[u8]]| {
        let mut params = CertificateParams::default();
        let extension = |value: &&[u8]| CustomExtension::from_oid_content(&KEY_EXTENSION, value.to_vec());
        params.custom_extensions = values.iter().map(extension).collect();
        DataPathKey::of_certificate(params.self_signed(&key).unwrap().der())
    };
    let good = KEY.to_extension();
    assert_eq!(with(&[&good]), Ok(KEY));
    let long = [good.as_slice(), &[0]].concat();
    for bad in [&good[..33], &long, &good[2..], &[], &[0x04, 0x1f]] {
        assert_eq!(with(&[bad]), Err(CertificateKeyError::Malformed), "{bad:?}");
    }
    assert_eq!(with(&[&good, &good]), Err(CertificateKeyError::Malformed), "which one?");
}

#[test]
fn a_request_cannot_ask_for_more_than_its_key() {
    let mut params = CertificateParams::new([MANAGER_NAME.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let node = NodeId::from("node2");
    let leaf = authority().sign_request(&subject(&node, Role::Worker), &request(params)).unwrap();
    let (name, dns, _) = names(&leaf);
    assert_eq!(name, "O=cluster1, OU=swarm-worker, CN=node2");
    assert!(dns.is_empty(), "{dns:?}");
    let der = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
    assert!(!X509Certificate::from_der(&der).unwrap().1.is_ca());
}

#[test]
fn keys_of_another_kind_and_garbage_are_refused() {
    let (ca, node) = (authority(), NodeId::from("node3"));
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ed25519 = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let worker = subject(&node, Role::Worker);
    assert!(matches!(ca.sign_request(&worker, &ed25519), Err(CaError::KeyAlgorithm)));
    assert!(matches!(ca.sign_request(&worker, "not a request"), Err(CaError::Request(_))));
}

#[test]
fn a_loaded_authority_signs_under_the_same_root() {
    let created = authority();
    let loaded =
        Authority::load(ClusterId::from("cluster1"), created.root_pem(), &created.key_pem()).unwrap();
    assert_eq!(loaded.root_der(), created.root_der());
    let node = NodeId::from("node4");
    let (leaf, _key) = loaded.issue(&subject(&node, Role::Worker)).unwrap();
    let (_, root) = X509Certificate::from_der(created.root_der()).unwrap();
    let (_, leaf) = X509Certificate::from_der(leaf.der()).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(leaf.issuer(), root.subject());
}
