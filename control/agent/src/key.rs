//! This node's key on the data path: made here, kept in a file of its own, and used by the one process that seals.
//!
//! The node's certificate binds its public half to the node, so that a node runs with the key of its certificate or not
//! at all: its peers would take it for a stranger with any other.

#[cfg(test)]
mod tests;

use crate::tls::{self, CredentialsError};
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use skep_dataplane::seal::{Identity, KEY_LEN, SecretKey, Suite};
use skep_model::data_path::{DataCipher, DataPathKey};
use skep_model::join::Credentials;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// In the agent's directory.
const FILE: &str = "data-path.key";
const PARTIAL: &str = "data-path.key.partial";
/// What is left where the key is not.
const ANEW: &str = "make the node a new one with `skep swarm leave --force` (which ends the cluster on its only manager) and `skep swarm join`";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("this host's source of randomness fails, and without it there is no key: {0}")]
    Random(#[from] SysError),
    #[error("cannot write this node's data-path key to {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("this node's data-path key cannot be read from {path}: {source}; put the file back, or {anew}", anew = ANEW)]
    Read { path: PathBuf, source: io::Error },
    #[error("this node's data-path key in {path} is damaged: put the file back, or {anew}", anew = ANEW)]
    Damaged { path: PathBuf },
    #[error(
        "the data-path key in {path} is not the one of this node's certificate: put that file back, or {anew}",
        anew = ANEW
    )]
    Foreign { path: PathBuf },
    #[error("this node's certificate cannot be used on the data path: {0}; {anew}", anew = ANEW)]
    Certificate(#[from] CredentialsError),
}

/// Makes a key for a membership that is about to begin, and writes it down. One of a former membership is lost.
pub(crate) fn make(directory: &Path) -> Result<DataPathKey, KeyError> {
    let key = SecretKey::from_bytes(random()?);
    let path = directory.join(FILE);
    write(directory, &key.to_bytes()).map_err(|source| KeyError::Write { path, source })?;
    Ok(public(&key))
}

/// What the engine of the member with these credentials seals with.
pub(crate) fn identity(
    directory: &Path,
    credentials: &Credentials,
    cipher: DataCipher,
) -> Result<Identity, KeyError> {
    let key = load(directory, tls::data_path_key(&credentials.certificate)?)?;
    let context = credentials.cluster_id.as_str().as_bytes().to_vec();
    Ok(Identity { key, suite: suite(cipher), context, entropy: random()? })
}

/// Overwrites the key and removes its file. No effect where there is none.
pub(crate) fn erase(directory: &Path) -> io::Result<()> {
    let partial = remove(&directory.join(PARTIAL));
    remove(&directory.join(FILE)).and(partial)?;
    sync(directory)
}

fn load(directory: &Path, expected: DataPathKey) -> Result<SecretKey, KeyError> {
    let path = directory.join(FILE);
    // One byte more than a key has, so that a longer file is noticed.
    let mut bytes = Zeroizing::new([0u8; KEY_LEN + 1]);
    let length = match read(&path, bytes.as_mut_slice()) {
        Ok(length) => length,
        Err(source) => return Err(KeyError::Read { path, source }),
    };
    let Some(key) = bytes[..length].first_chunk::<KEY_LEN>().filter(|_| length == KEY_LEN) else {
        return Err(KeyError::Damaged { path });
    };
    let key = SecretKey::from_bytes(Zeroizing::new(*key));
    if public(&key) == expected { Ok(key) } else { Err(KeyError::Foreign { path }) }
}

/// How many bytes there were; no buffer but `into` sees them.
fn read(path: &Path, into: &mut [u8]) -> io::Result<usize> {
    let mut file = File::open(path)?;
    let mut length = 0;
    while length < into.len() {
        match file.read(&mut into[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Atomic, and nobody else's to read at any moment.
fn write(directory: &Path, key: &[u8; KEY_LEN]) -> io::Result<()> {
    let (partial, path) = (directory.join(PARTIAL), directory.join(FILE));
    // Never a file that is there already: its mode may be another, and somebody may have it open.
    remove(&partial)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(key).and_then(|()| file.sync_all())?;
    remove(&path)?;
    fs::rename(&partial, &path)?;
    sync(directory)
}

/// Zeroes first: a file system may keep the blocks of a removed file for long.
fn remove(path: &Path) -> io::Result<()> {
    let overwritten = OpenOptions::new().write(true).open(path).and_then(|mut file| {
        file.write_all(&[0; KEY_LEN])?;
        file.sync_all()
    });
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and(overwritten),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn random() -> Result<Zeroizing<[u8; KEY_LEN]>, SysError> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    SysRng.try_fill_bytes(bytes.as_mut())?;
    Ok(bytes)
}

fn public(key: &SecretKey) -> DataPathKey {
    DataPathKey(key.public().0)
}

fn suite(cipher: DataCipher) -> Suite {
    match cipher {
        DataCipher::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
        DataCipher::Aes256Gcm => Suite::Aes256Gcm,
    }
}
