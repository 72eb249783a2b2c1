//! Sessions with peers, and frames sealed in them.

mod keys;

pub use keys::{Identity, KEY_LEN, PublicKey, SecretKey, Suite, UnknownSuite};

use crate::verdict::DropReason;
use std::time::Instant;

/// What is known of the session with a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Since when there has been a session without a gap. None: there is none.
    pub since: Option<Instant>,
    /// When the session in use was agreed on.
    pub last_handshake: Option<Instant>,
    /// Handshakes that led to a session, and how many of them renewed one that stood.
    pub handshakes: u64,
    pub rekeys: u64,
    /// Sealed datagrams of any kind, and their bytes from the VXLAN header on.
    pub datagrams_sent: u64,
    pub bytes_sent: u64,
    pub datagrams_received: u64,
    pub bytes_received: u64,
    /// Datagrams from the peer's address that went no further, by reason; those that happened only.
    pub drops: Vec<(DropReason, u64)>,
}
