//! What is told of sessions.

use super::Seals;
use crate::verdict::DropReason;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

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

impl Seals {
    pub(crate) fn stats(&self, vtep: Ipv4Addr, epoch: Option<Instant>) -> SessionStats {
        let Some(peer) = self.by_vtep.get(&vtep).map(|at| &self.peers[*at]) else {
            return SessionStats::default();
        };
        let at = |millis: Option<u64>| Some(epoch? + Duration::from_millis(millis?));
        let drops = DropReason::ALL.iter().map(|reason| (*reason, peer.drops[*reason as usize]));
        let tally = &peer.tally;
        SessionStats {
            since: at(peer.since),
            last_handshake: at(peer.last_handshake),
            handshakes: tally.handshakes,
            rekeys: tally.rekeys,
            datagrams_sent: tally.datagrams_sent,
            bytes_sent: tally.bytes_sent,
            datagrams_received: tally.datagrams_received,
            bytes_received: tally.bytes_received,
            drops: drops.filter(|(_, count)| *count > 0).collect(),
        }
    }
}
