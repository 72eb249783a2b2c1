//! Between nodes: what a network's policy makes of a frame on the wire, and of a datagram in the switch.

use crate::counters::Counters;
use crate::engine::Output;
use crate::ids::Vni;
use crate::index::{Index, NetworkIndex};
use crate::mss;
use crate::packet::Packet;
use crate::seal::Seals;
use crate::segment::{self, Sums};
use crate::snapshot::Policy;
use crate::verdict::DropReason;
use crate::wire::sealed::Marks;
use crate::wire::vxlan;
use std::net::Ipv4Addr;

/// How frames of a network travel. INVARIANT: the network's policy alone chooses, when its index is built, and only what
/// it chose can be sent: a plain header takes a [`PlainVni`], and the VNI of a sealed network is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain(PlainVni),
    Sealed(SealedVni),
}

/// Only [`Way::of`] makes one, of a network with the plain policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainVni(Vni);

/// Only [`Way::of`] makes one, of a network with the sealed policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedVni(Vni);

impl Way {
    pub(crate) fn of(vni: Vni, policy: Policy) -> Self {
        match policy {
            Policy::Plain => Self::Plain(PlainVni(vni)),
            Policy::Sealed => Self::Sealed(SealedVni(vni)),
        }
    }
}

impl PlainVni {
    pub(crate) fn vni(self) -> Vni {
        self.0
    }
}

impl SealedVni {
    pub(crate) fn vni(self) -> Vni {
        self.0
    }
}

/// The way out of the engine, borrowed for one frame.
pub(crate) struct Underlay<'a, O> {
    pub(crate) seals: &'a mut Seals,
    pub(crate) counters: &'a mut Counters,
    /// Milliseconds since the engine's epoch.
    pub(crate) now: u64,
    pub(crate) out: &'a mut O,
}

impl<O: Output> Underlay<'_, O> {
    /// Sends a packet in pieces that fit the path.
    pub(crate) fn encapsulate(&mut self, network: &NetworkIndex, mut packet: Packet<'_>, to: Ipv4Addr) {
        packet.limit = packet.limit.min(path_limit(self.seals, network, to));
        let limit = packet.limit;
        mss::clamp(&mut packet, limit);
        match network.way {
            Way::Plain(vni) => segment::pieces(packet, Sums::Full, |buf, frame, _| {
                let header = frame.start - vxlan::HEADER_LEN;
                vxlan::write_plain(&mut buf[header..], vni);
                self.seals.note_size(to, frame.end - header);
                self.out.datagram(to, &buf[header..frame.end]);
            }),
            Way::Sealed(vni) => segment::pieces(packet, Sums::Partial, |buf, frame, partial| {
                let marks = Marks { partial, ingress: network.ingress };
                self.seal(to, vni, marks, &buf[frame]);
            }),
        }
    }

    /// Sends a small complete frame of the engine's own, behind room for a VXLAN header.
    pub(crate) fn encapsulate_answer(&mut self, network: &NetworkIndex, datagram: &mut [u8], to: Ipv4Addr) {
        match network.way {
            Way::Plain(vni) => {
                vxlan::write_plain(datagram, vni);
                self.out.datagram(to, datagram);
            }
            Way::Sealed(vni) => {
                let marks = Marks { partial: None, ingress: network.ingress };
                self.seal(to, vni, marks, &datagram[vxlan::HEADER_LEN..]);
            }
        }
    }

    fn seal(&mut self, to: Ipv4Addr, vni: SealedVni, marks: Marks, frame: &[u8]) {
        if let Err(reason) = self.seals.seal(to, vni, marks, frame, self.now, self.out) {
            self.counters.dropped(reason);
        }
    }
}

/// The largest IP packet, in bytes, that the path to a VTEP carries for a network. A VTEP that is no peer says nothing
/// of its path.
pub(crate) fn path_limit(seals: &Seals, network: &NetworkIndex, to: Ipv4Addr) -> usize {
    let path = seals.path_mtu(to).map(|mtu| usize::from(mtu.saturating_sub(network.policy.overhead())));
    path.unwrap_or(network.mtu)
}

/// The network of a plain datagram; its frame follows the VXLAN header.
pub(crate) fn of_plain(index: &Index, from: Ipv4Addr, vni: u32) -> Result<&NetworkIndex, DropReason> {
    let network = index.network(vni).ok_or(DropReason::UnknownVni)?;
    match network.policy {
        Policy::Plain if network.has_vtep(from) => Ok(network),
        Policy::Plain => Err(DropReason::UnknownVtep),
        Policy::Sealed => Err(DropReason::Unsealed),
    }
}

/// The network of an opened frame: the peer that sealed it has to be on it.
pub(crate) fn of_sealed(
    index: &Index,
    from: Ipv4Addr,
    vni: u32,
    marks: Marks,
) -> Result<&NetworkIndex, DropReason> {
    let network = index.network(vni).ok_or(DropReason::UnknownVni)?;
    match network.policy {
        Policy::Plain => Err(DropReason::VxlanSealed),
        Policy::Sealed if !network.has_vtep(from) => Err(DropReason::UnknownVtep),
        Policy::Sealed if network.ingress != marks.ingress => Err(DropReason::SealMalformed),
        Policy::Sealed => Ok(network),
    }
}
