//! What travels between nodes: bytes, and what only a test knows of them.

use crate::packet::{u16_at, u32_at};
use crate::world::Node;
use skep_dataplane::VnetHdr;
use skep_dataplane::seal::Plaintext;

/// The name of a sealing key, and a counter.
pub(crate) type Nonce = ([u8; 16], u64);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Datagram {
    pub(crate) to: Node,
    pub(crate) bytes: Vec<u8>,
    /// If it is sealed: what it says, and under which nonce.
    pub(crate) sealed: Option<(Nonce, Text)>,
    /// The probe it carries a part of.
    pub(crate) probes: Vec<u64>,
}

/// What is in a sealed datagram, or is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text {
    /// Zero: of no network.
    pub(crate) vni: u32,
    kind: u8,
    partial: Option<u16>,
    pub(crate) ingress: bool,
    pub(crate) bytes: Vec<u8>,
}

/// What a datagram is, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Handshake(Step),
    Session { index: u32, counter: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Initiation { sender: u32 },
    Response { sender: u32, receiver: u32 },
    Cookie,
}

/// A frame of a network, as its receiver reads it.
#[derive(Clone, Copy)]
pub(crate) struct Inner<'a> {
    pub(crate) vni: u32,
    pub(crate) vnet: VnetHdr,
    pub(crate) frame: &'a [u8],
}

impl Datagram {
    /// The frame it carries, if it does.
    pub(crate) fn inner(&self) -> Option<Inner<'_>> {
        match (kind(&self.bytes), &self.sealed) {
            (Kind::Plain, _) => {
                Some(Inner { vni: vni(&self.bytes), vnet: VnetHdr::default(), frame: &self.bytes[8..] })
            }
            (Kind::Session { .. }, Some((_, text))) => text.inner(),
            (Kind::Session { .. }, None) => panic!("sealed by nobody: {self:?}"),
            (Kind::Handshake(_), _) => None,
        }
    }
}

impl Text {
    pub(crate) fn of(says: Plaintext<'_>) -> Self {
        Self {
            vni: says.vni.map_or(0, |vni| vni.as_u32()),
            kind: says.kind,
            partial: says.partial,
            ingress: says.ingress,
            bytes: says.text.to_vec(),
        }
    }

    pub(crate) fn is_frame(&self) -> bool {
        self.kind == 1
    }

    pub(crate) fn inner(&self) -> Option<Inner<'_>> {
        let vnet = self.partial.map_or_else(VnetHdr::default, |at| VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            csum_start: at,
            csum_offset: if self.bytes[14 + 9] == 6 { 16 } else { 6 },
            ..VnetHdr::default()
        });
        self.is_frame().then_some(Inner { vni: self.vni, vnet, frame: &self.bytes })
    }
}

pub(crate) fn vni(bytes: &[u8]) -> u32 {
    u32_at(bytes, 4) >> 8
}

/// Of what an engine sent.
pub(crate) fn kind(bytes: &[u8]) -> Kind {
    let flags = if bytes[7] == 0 { [8, 0, 0, 0] } else { [0; 4] };
    assert_eq!(bytes[..4], flags, "VXLAN header");
    match (bytes[7], u32_at(bytes, 8)) {
        (0, _) => Kind::Plain,
        (1, 0) => Kind::Handshake(step(bytes)),
        (1, index) => {
            let counter = u64::from(u32_at(bytes, 12)) << 32 | u64::from(u32_at(bytes, 16));
            Kind::Session { index, counter }
        }
        (mark, _) => panic!("mark {mark}"),
    }
}

fn step(bytes: &[u8]) -> Step {
    assert_eq!((vni(bytes), u16_at(bytes, 14), bytes[13]), (0, 0, 0), "a handshake's header");
    match (bytes[12], bytes.len()) {
        (1, 180) => Step::Initiation { sender: u32_at(bytes, 16) },
        (2, 120) => Step::Response { sender: u32_at(bytes, 16), receiver: u32_at(bytes, 20) },
        (3, 76) => Step::Cookie,
        other => panic!("no step of a handshake: {other:?}"),
    }
}
