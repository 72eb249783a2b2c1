//! Packets and the size of the path to the VTEP they go to.

use super::Pass;
use super::reply::Quote;
use crate::engine::Output;
use crate::ids::PortId;
use crate::index::NetworkIndex;
use crate::packet::Packet;
use crate::tunnel::path_limit;
use crate::verdict::DropReason;
use crate::wire::icmpv4::Error;
use std::net::Ipv4Addr;

impl<O: Output> Pass<'_, O> {
    /// Whether a packet that must not be cut may be too large for one of the paths.
    pub(super) fn is_narrow_for(&self, network: &NetworkIndex, packet: &Packet<'_>) -> bool {
        let overhead = usize::from(network.policy.overhead());
        packet.ip.dont_fragment && packet.largest() + overhead > usize::from(self.seals.least_path_mtu())
    }

    /// Tells the sender of a packet that must not be cut what would have fitted (RFC 1191 §4). `quote` is of the packet
    /// as it was sent, before a VIP became its backend: the sender knows no other.
    ///
    /// TCP is cut all the same, as its super-frames are: what a published port's client is told may be dropped by the
    /// next firewall, and a segment that is sent a second time comes alone.
    pub(super) fn fit_path(
        &mut self,
        network: &NetworkIndex,
        port: PortId,
        packet: &mut Packet<'_>,
        vtep: Ipv4Addr,
        quote: &Quote,
    ) -> Result<(), DropReason> {
        let limit = path_limit(self.seals, network, vtep);
        if packet.largest() <= limit || packet.becomes_stream() {
            return Ok(());
        }
        let fits = Error::FragmentationNeeded(u16::try_from(limit).unwrap_or(u16::MAX));
        self.tell(port, quote, network.gateway, fits);
        Err(DropReason::FragmentationNeeded)
    }
}
