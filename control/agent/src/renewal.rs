//! This node's certificate, renewed long before it expires: with a new key of TLS each time and the same
//! data-path key, kept on disk before it is used. A session that stands goes on; the next one shows the new certificate.

mod life;
#[cfg(test)]
mod tests;

pub(crate) use life::Life;

use crate::completion::on_a_thread;
use crate::enroll::{EnrollError, exchange};
use crate::tls::{self, CredentialsError};
use hyper::Method;
use jiff::Timestamp;
use rand::RngExt;
use rcgen::{CertificateParams, KeyPair};
use skep_model::join::{Credentials, RENEW_PATH, RenewRequest, RenewResponse};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Which part of its life a certificate is used for: Swarm's range. Random, so that nodes that joined together
/// don't come together.
const USED: RangeInclusive<f64> = 0.5..=0.8;
/// How often the clock is looked at: somebody may set it.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);
/// Between tries, in seconds. Weeks are left, and managers have other things to do.
const RETRY_SECONDS: RangeInclusive<f64> = 60.0..=300.0;
/// One exchange: a handshake and a disk sync.
const LIMIT: Duration = Duration::from_secs(20);

/// Writes credentials where the next start of the daemon finds them. May block.
pub type KeepCredentials = Arc<dyn Fn(&Credentials) -> io::Result<()> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Exchange(#[from] EnrollError),
    #[error("no answer within {} s", LIMIT.as_secs())]
    Timeout,
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the certificate that came cannot be used: {0}")]
    Credentials(#[from] CredentialsError),
    #[error("the certificate that came is for another data-path key")]
    OtherKey,
    #[error("the answer is no manager's: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("it cannot be written down: {0}")]
    Keep(#[from] io::Error),
    #[error("no manager is known")]
    NoManager,
}

pub(crate) struct Renewal {
    pub(crate) credentials: watch::Sender<Credentials>,
    pub(crate) managers: Vec<SocketAddr>,
    pub(crate) keep: KeepCredentials,
}

impl Renewal {
    /// Until `stop` becomes true; never in the midst of a write.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let due = self.due();
            tokio::select! {
                () = until(due) => {}
                // An error means that nobody is left who could say stop.
                _ = stop.wait_for(|stop| *stop) => return,
            }
            while let Err(error) = self.renew().await {
                tracing::warn!("this node's certificate could not be renewed: {error}; trying again");
                let wait = Duration::from_secs_f64(rand::rng().random_range(RETRY_SECONDS));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        }
    }

    /// When to begin with the next one. None: never; a certificate that can't be read is no use either way, and its
    /// sessions say so.
    fn due(&self) -> Option<Timestamp> {
        let life = Life::of(&self.credentials.borrow().certificate).ok()?;
        Some(life.at(rand::rng().random_range(USED)))
    }

    async fn renew(&self) -> Result<(), RenewalError> {
        let mut last = Err(RenewalError::NoManager);
        for manager in &self.managers {
            let renewed = tokio::time::timeout(LIMIT, self.ask(*manager)).await;
            last = renewed.unwrap_or(Err(RenewalError::Timeout));
            if last.is_ok() {
                break;
            }
        }
        let renewed = last?;
        let (keep, kept) = (self.keep.clone(), renewed.clone());
        on_a_thread(move || keep(&kept)).await?;
        tracing::info!("this node's certificate was renewed");
        self.credentials.send_replace(renewed);
        Ok(())
    }

    async fn ask(&self, manager: SocketAddr) -> Result<Credentials, RenewalError> {
        let current = self.credentials.borrow().clone();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let data_path_key = tls::data_path_key(&current.certificate)?;
        let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
        let request = RenewRequest { csr, data_path_key };
        let body = serde_json::to_vec(&request)?;
        let answer = exchange(manager, tls::member(&current)?, Method::POST, RENEW_PATH, body).await?;
        let RenewResponse { certificate } = serde_json::from_slice(answer.body())?;
        let renewed = Credentials { certificate, private_key: key.serialize_pem(), ..current };
        // A certificate for another key would only fail later, at every session.
        tls::member(&renewed)?;
        // And with another one the next start would refuse to run.
        if tls::data_path_key(&renewed.certificate)? != data_path_key {
            return Err(RenewalError::OtherKey);
        }
        Ok(renewed)
    }
}

async fn until(due: Option<Timestamp>) {
    let Some(due) = due else { return std::future::pending().await };
    loop {
        let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}
