use super::*;
use crate::fake_manager::Authority;
use std::os::unix::fs::PermissionsExt;

/// Of a member with this key.
fn credentials(key: DataPathKey) -> Credentials {
    Authority::new().credentials_with(key)
}

fn refused(directory: &Path, credentials: &Credentials) -> String {
    identity(directory, credentials, DataCipher::default()).unwrap_err().to_string()
}

#[test]
fn a_key_survives_restarts_and_nobody_else_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = make(dir.path()).unwrap();
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let credentials = credentials(key);
    for _ in 0..2 {
        let identity = identity(dir.path(), &credentials, DataCipher::Aes256Gcm).unwrap();
        assert_eq!(public(&identity.key), key);
        assert_eq!((identity.suite, identity.context.as_slice()), (Suite::Aes256Gcm, b"c1".as_slice()));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

/// Keys of sessions come of it.
#[test]
fn no_two_starts_have_the_same_entropy() {
    let dir = tempfile::tempdir().unwrap();
    let credentials = credentials(make(dir.path()).unwrap());
    let entropy = || identity(dir.path(), &credentials, DataCipher::default()).unwrap().entropy;
    assert_ne!(*entropy(), *entropy());
}

#[test]
fn a_new_membership_has_a_new_key() {
    let dir = tempfile::tempdir().unwrap();
    // As an interrupted write leaves it, readable by all.
    fs::write(dir.path().join(PARTIAL), [7; 99]).unwrap();
    let (first, second) = (make(dir.path()).unwrap(), make(dir.path()).unwrap());
    assert_ne!(first, second);
    assert!(refused(dir.path(), &credentials(first)).contains("is not the one of this node's certificate"));
    assert!(identity(dir.path(), &credentials(second), DataCipher::default()).is_ok());
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn without_its_key_a_node_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let credentials = credentials(make(dir.path()).unwrap());
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[9] ^= 0x10;
    for (bytes, what) in [
        (vec![], "damaged"),
        (good[..31].to_vec(), "damaged"),
        ([good.as_slice(), b"\n"].concat(), "damaged"),
        (flipped, "is not the one of this node's certificate"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let sentence = refused(dir.path(), &credentials);
        assert!(sentence.contains(what) && sentence.contains(&path.display().to_string()), "{sentence}");
        assert!(sentence.contains("skep swarm leave --force"), "{sentence}");
    }
    fs::remove_file(&path).unwrap();
    assert!(refused(dir.path(), &credentials).contains("cannot be read"));
    fs::write(&path, &good).unwrap();
    assert!(identity(dir.path(), &credentials, DataCipher::default()).is_ok(), "it can be put back");
}

#[test]
fn a_certificate_that_binds_no_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let key = make(dir.path()).unwrap();
    let old = Credentials { certificate: Authority::new().root_pem, ..credentials(key) };
    assert!(refused(dir.path(), &old).contains("has no data-path key"));
}

#[test]
fn what_is_erased_is_gone_also_for_who_still_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path()).unwrap();
    let mut open = File::open(dir.path().join(FILE)).unwrap();
    erase(dir.path()).unwrap();
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [0; KEY_LEN]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    erase(dir.path()).unwrap();
}
