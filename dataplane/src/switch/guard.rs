//! Who may send what: a port its own addresses, a VTEP those of its endpoints.

use crate::index::{Index, NetworkIndex, Target};
use crate::packet::Packet;
use crate::snapshot::{Endpoint, EndpointKind, Location};
use crate::verdict::DropReason;
use crate::wire::ethernet;
use std::net::Ipv4Addr;

/// A port's frames carry its endpoint's MAC.
pub(super) fn mac(sender: &Endpoint, frame: &[u8]) -> Result<(), DropReason> {
    if ethernet::src(frame) == sender.mac { Ok(()) } else { Err(DropReason::SpoofedMac) }
}

/// The endpoint of the VTEP `from` that sent a frame.
pub(super) fn peer<'a>(
    network: &'a NetworkIndex,
    from: Ipv4Addr,
    frame: &[u8],
) -> Result<&'a Endpoint, DropReason> {
    let Some(Target::Endpoint(at)) = network.by_mac(ethernet::src(frame)) else {
        return Err(DropReason::SpoofedMac);
    };
    let sender = &network.endpoints[at];
    if sender.location == Location::Remote(from) { Ok(sender) } else { Err(DropReason::SpoofedMac) }
}

/// The sender's own address; from a host endpoint of the ingress network also one of the outside world.
pub(super) fn source(
    index: &Index,
    network: &NetworkIndex,
    sender: &Endpoint,
    src: Ipv4Addr,
) -> Result<(), DropReason> {
    if src == sender.ip {
        return Ok(());
    }
    if !network.ingress || sender.kind != EndpointKind::Host {
        return Err(DropReason::SpoofedSource);
    }
    let is_nobody = src.is_unspecified() || src.is_multicast() || src.is_broadcast() || src.is_loopback();
    if is_nobody || network.subnet.contains(&src) || index.is_reserved(src) {
        return Err(DropReason::ReservedSource);
    }
    Ok(())
}

/// Nothing is flooded, so a group has no members.
pub(super) fn not_group(frame: &[u8]) -> Result<(), DropReason> {
    let dst = ethernet::dst(frame);
    if dst == crate::ids::MacAddr::BROADCAST {
        Err(DropReason::Broadcast)
    } else if dst.is_group() {
        Err(DropReason::Multicast)
    } else {
        Ok(())
    }
}

/// The endpoint of this node that a peer's packet is for. VIPs and gateways are answered for by the
/// client's own engine.
pub(super) fn here<'a>(network: &'a NetworkIndex, packet: &Packet<'_>) -> Result<&'a Endpoint, DropReason> {
    match network.by_mac(packet.dst_mac()) {
        Some(Target::Endpoint(at)) => match network.endpoints[at].location {
            Location::Local(_) => Ok(&network.endpoints[at]),
            Location::Remote(_) => Err(DropReason::NotLocal),
        },
        Some(Target::Vip(_) | Target::Gateway) => Err(DropReason::VipFromPeer),
        None => Err(DropReason::UnknownDestination),
    }
}
