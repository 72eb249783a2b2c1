//! Between nodes: what a network's policy makes of a frame on the wire.

use crate::engine::Output;
use crate::index::{Index, NetworkIndex};
use crate::packet::Packet;
use crate::segment;
use crate::snapshot::Policy;
use crate::verdict::DropReason;
use crate::wire::vxlan;
use std::net::Ipv4Addr;

/// The only way to the underlay. INVARIANT: the network's policy alone chooses the encapsulation, in
/// one exhaustive match, so a frame of a sealed network has no plain way out.
pub(crate) fn encapsulate(network: &NetworkIndex, packet: Packet<'_>, to: Ipv4Addr, out: &mut impl Output) {
    match network.policy {
        Policy::Plain => segment::pieces(packet, |buf, frame| {
            let header = frame.start - vxlan::HEADER_LEN;
            vxlan::write_plain(&mut buf[header..], network.vni);
            out.datagram(to, &buf[header..frame.end]);
        }),
        Policy::Sealed => {}
    }
}

/// The network a datagram belongs to; its frame follows the VXLAN header.
pub(crate) fn decapsulate<'a>(
    index: &'a Index,
    from: Ipv4Addr,
    datagram: &[u8],
) -> Result<&'a NetworkIndex, DropReason> {
    let vni = vxlan::parse(datagram)?;
    let network = index.network(vni).ok_or(DropReason::UnknownVni)?;
    match network.policy {
        Policy::Plain if network.has_vtep(from) => Ok(network),
        Policy::Plain | Policy::Sealed => Err(DropReason::UnknownVtep),
    }
}

/// Sends a small complete frame of the engine's own; the datagram begins with room for the VXLAN header.
pub(crate) fn encapsulate_answer(
    network: &NetworkIndex,
    datagram: &mut [u8],
    to: Ipv4Addr,
    out: &mut impl Output,
) {
    match network.policy {
        Policy::Plain => {
            vxlan::write_plain(datagram, network.vni);
            out.datagram(to, datagram);
        }
        Policy::Sealed => {}
    }
}
