//! What a node remembers of its membership across restarts: `member.json` in the state directory.

use serde::{Deserialize, Serialize};
use skep_model::data_path::DataCipher;
use skep_model::join::Credentials;
use skep_model::node::Availability;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) credentials: Credentials,
    /// Managers to connect to; this node's own address when it is one.
    pub(crate) managers: Vec<SocketAddr>,
    /// Where this node's manager listens; None on workers.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) advertise: Ipv4Addr,
    pub(crate) data_path_addr: Ipv4Addr,
    pub(crate) data_path_port: u16,
    #[serde(default)]
    pub(crate) data_cipher: DataCipher,
    pub(crate) availability: Availability,
}

/// More than a membership takes, with what the agent writes down beside it.
const ROOM_BYTES: usize = 64 << 10;

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("member.json")
}

/// None where the node was no member.
pub(crate) fn load(state_dir: &Path) -> io::Result<Option<Member>> {
    match fs::read(file(state_dir)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a membership could be saved. Asked before a manager is: it lists a node from the moment it signs.
pub(crate) fn try_room(state_dir: &Path) -> io::Result<()> {
    let trial = state_dir.join("member.json.trial");
    let written = File::create(&trial).and_then(|mut out| {
        out.write_all(&[0; ROOM_BYTES])?;
        out.sync_all()
    });
    match fs::remove_file(&trial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        Ok(()) | Err(_) => written,
    }
}

/// Atomic: a crash leaves the old file or the new one. Mode 0600, for the private key is in it.
pub(crate) fn save(state_dir: &Path, member: &Member) -> io::Result<()> {
    let partial = state_dir.join("member.json.partial");
    let mut out =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    out.write_all(&serde_json::to_vec_pretty(member)?)?;
    out.sync_all()?;
    fs::rename(&partial, file(state_dir))?;
    File::open(state_dir)?.sync_all()
}

/// Replaces the credentials of a node that still is this member.
pub(crate) fn keep(state_dir: &Path, credentials: &Credentials) -> io::Result<()> {
    let Some(mut member) = load(state_dir)?.filter(|m| m.credentials.node_id == credentials.node_id) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this host is not that node any more"));
    };
    member.credentials = credentials.clone();
    save(state_dir, &member)
}

pub(crate) fn forget(state_dir: &Path) -> io::Result<()> {
    match fs::remove_file(file(state_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::node::Role;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn room_is_tried_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        try_room(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let error = try_room(&dir.path().join("gone")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn membership_survives_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        let member = Member {
            credentials: Credentials {
                node_id: "n1".into(),
                cluster_id: "c1".into(),
                role: Role::Worker,
                certificate: String::new(),
                private_key: "secret".to_owned(),
                root_ca: String::new(),
            },
            managers: vec!["192.0.2.1:2377".parse().unwrap()],
            listen: None,
            advertise: Ipv4Addr::new(192, 0, 2, 2),
            data_path_addr: Ipv4Addr::new(192, 0, 2, 2),
            data_path_port: 4789,
            data_cipher: DataCipher::Aes256Gcm,
            availability: Availability::Active,
        };
        save(dir.path(), &member).unwrap();
        let mode = fs::metadata(file(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load(dir.path()).unwrap().unwrap().managers, member.managers);
        let renewed = Credentials { private_key: "newer".to_owned(), ..member.credentials.clone() };
        keep(dir.path(), &renewed).unwrap();
        let kept = load(dir.path()).unwrap().unwrap();
        assert_eq!((kept.credentials.private_key.as_str(), kept.managers), ("newer", member.managers));
        assert_eq!(kept.data_cipher, DataCipher::Aes256Gcm);
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        assert!(keep(dir.path(), &renewed).is_err(), "what was forgotten stays so");
        assert!(load(dir.path()).unwrap().is_none());
    }
}
