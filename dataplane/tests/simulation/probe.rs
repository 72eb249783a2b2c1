//! [`Probe`]: one numbered packet, and what became of it.

use crate::packet::{Packet, Socket};
use crate::world::Node;
use std::collections::BTreeMap;

/// Bytes of a payload that hold its number.
pub(crate) const ID_LEN: usize = 8;

/// The shortest payload.
pub(crate) const MIN_LEN: usize = 12;

/// A packet somebody sent. Its number is in its payload, and every further byte follows from the number, so that a
/// receiver tells which one it got, and whether all of it.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) net: usize,
    /// The node and port it was sent from.
    pub(crate) sender: (Node, u32),
    /// As it was sent, payload included.
    pub(crate) packet: Packet,
    /// Of its IP header: pieces of different datagrams differ in it.
    pub(crate) ip_id: u16,
    pub(crate) conn: usize,
    /// The question it answers.
    pub(crate) question: Option<u64>,
    /// The flows a question went by, each at its node; for an answer, those of its question.
    pub(crate) passed: Vec<(Node, u64)>,
    /// Its ends between two nodes.
    pub(crate) wire: Option<(Socket, Socket)>,
    /// The network gave some of it twice.
    pub(crate) was_doubled: bool,
    /// How often a receiver got all of it.
    pub(crate) arrived: u32,
    /// What each port got of it so far.
    pub(crate) got: BTreeMap<(Node, u32), Got>,
    /// Where it travels in pieces: how they arrive at each node.
    pub(crate) pieces: BTreeMap<Node, Pieces>,
}

/// A receiver's part of a probe that comes in several packets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    /// Bytes of the stream: from, to.
    pub(crate) stream: Vec<(usize, usize)>,
    /// By offset: whether more follow, and the bytes.
    pub(crate) pieces: BTreeMap<usize, (bool, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    pub(crate) first_at: u64,
    /// The node's snapshot when the first one arrived.
    pub(crate) generation: u64,
    /// By offset: how long, and whether more follow.
    pub(crate) arrived: BTreeMap<usize, (usize, bool)>,
    /// Where the one that tells the ports went: source, destination.
    pub(crate) first_went: Option<(Socket, Socket)>,
    /// Each of them may be heard.
    pub(crate) is_welcome: bool,
}

/// The payload of number `id`.
pub(crate) fn payload(id: u64, len: usize) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    let byte = |at: usize| (id.wrapping_mul(0x9e37_79b9) >> 7) as u8 ^ (at as u8) ^ (at >> 8) as u8;
    bytes.extend((ID_LEN..len).map(byte));
    bytes
}

/// So many bytes of a payload in a row are no accident.
pub(crate) const STRETCH: usize = 16;

/// Whether bytes follow each other as they do somewhere in a payload, whichever: every second one differs from the next
/// in its lowest bit alone.
pub(crate) fn is_stretch(bytes: &[u8]) -> bool {
    let is_so = |from: usize| bytes[from..].chunks_exact(2).all(|pair| pair[0] ^ pair[1] == 1);
    is_so(0) || is_so(1)
}

/// The number in a payload.
pub(crate) fn id_in(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(payload.get(..ID_LEN)?.try_into().ok()?))
}

/// Whether parts make up a whole of `len`, each byte once.
pub(crate) fn is_whole(mut parts: Vec<(usize, usize)>, len: usize) -> bool {
    parts.sort_unstable();
    parts.iter().try_fold(0, |at, (from, to)| (*from == at).then_some(*to)) == Some(len)
}
