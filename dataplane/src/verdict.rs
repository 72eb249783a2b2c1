//! What becomes of a frame, and why some go no further.

use crate::ids::PortId;
use std::fmt;
use std::net::Ipv4Addr;

/// Where a frame goes on, if it does; else there is a [`DropReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To a port of this host's switch.
    Deliver(PortId),
    /// To the VTEP that owns the destination.
    Encapsulate(Ipv4Addr),
    /// The engine spoke for the destination.
    Answered,
    /// Kept for a moment: a fragment that overtook its first.
    Held,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame went no further. Displays as its metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// A frame from a port that no endpoint of the snapshot is on.
    UnknownPort = "unknown_port",
    /// Shorter than its headers say.
    Truncated = "truncated",
    /// Neither IPv4 nor ARP nor IPv6.
    UnknownEthertype = "unknown_ethertype",
    /// IPv6, which overlays do not carry.
    Ipv6 = "ipv6",
    /// To the broadcast address; nothing is flooded.
    Broadcast = "broadcast",
    /// To a multicast group; nothing is flooded.
    Multicast = "multicast",

    /// The source MAC is not the port's, or not one the sending VTEP owns.
    SpoofedMac = "spoofed_mac",
    /// The source address is not the port's, or not one the sending VTEP owns.
    SpoofedSource = "spoofed_source",
    /// A client of a published port claims an address of an overlay, VIP or gateway range.
    ReservedSource = "reserved_source",
    /// From the outside or a node itself to an endpoint of the ingress network, past its VIP.
    ForeignSource = "foreign_source",
    /// From one task to another, or to a VIP, by the ingress network, which only leads in from outside.
    IngressBetweenTasks = "ingress_between_tasks",

    /// Not an Ethernet/IPv4 ARP request or reply (RFC 826).
    ArpMalformed = "arp_malformed",
    /// An ARP probe (RFC 5227 §2.1.1): an answer would tell the prober its address is taken.
    ArpProbe = "arp_probe",
    /// An announcement, or a question for the asker's own address.
    ArpGratuitous = "arp_gratuitous",
    /// An ARP reply: nobody asked, the snapshot is the only truth.
    ArpUnsolicited = "arp_unsolicited",
    /// No endpoint, VIP or gateway has the address asked for.
    ArpUnknownAddress = "arp_unknown_address",

    /// No endpoint, VIP or gateway has the destination MAC.
    UnknownDestination = "unknown_destination",
    /// The destination address does not belong to the destination MAC.
    WrongDestination = "wrong_destination",
    /// A VTEP sent a frame whose destination is not on this node.
    NotLocal = "not_local",
    /// A VTEP sent a frame to a VIP or gateway: the client's own engine answers for those.
    VipFromPeer = "vip_from_peer",
    /// Off the subnet, where no flow says how to go on.
    NoRoute = "no_route",
    /// TCP or UDP to the gateway, which serves neither.
    GatewayRefused = "gateway_refused",

    /// The IPv4 header is malformed (RFC 791 §3.1).
    IpHeader = "ip_header",
    /// The IPv4 header checksum is wrong.
    IpChecksum = "ip_checksum",
    /// TTL zero on arrival.
    TtlZero = "ttl_zero",
    /// TTL ran out at the gateway; the sender was told.
    TimeExceeded = "time_exceeded",
    /// Larger than the network's MTU with DF set; the sender was told.
    FragmentationNeeded = "fragmentation_needed",
    /// Reaches past 65,535 bytes, is cut at an odd place (RFC 791 §3.2), or begins within a TCP header (RFC 1858 §3.2).
    FragmentMalformed = "fragment_malformed",
    /// A fragment whose first one never came.
    FragmentOrphaned = "fragment_orphaned",
    /// Brings bytes that another fragment of its packet has brought, and more: nothing of the packet goes on.
    FragmentOverlap = "fragment_overlap",
    /// Brings only bytes that have come already.
    FragmentRepeated = "fragment_repeated",
    /// No room to hold a fragment that came before its first one.
    FragmentHoldFull = "fragment_hold_full",

    /// A virtio header whose segmentation type does not match the packet.
    OffloadType = "offload_type",
    /// A virtio header with a segment size of zero or absurdly many segments, or a peer's super-frame of
    /// datagrams, whose size nothing tells.
    OffloadSegmentSize = "offload_segment_size",
    /// A virtio header whose checksum place is not the transport header's.
    OffloadChecksum = "offload_checksum",

    /// The VXLAN flags are not exactly the I flag (RFC 7348 §5).
    VxlanFlags = "vxlan_flags",
    /// The reserved byte after the VNI is none that is sent.
    VxlanMark = "vxlan_mark",
    /// Sealed, and this node knows the network as a plain one.
    VxlanSealed = "vxlan_sealed",
    /// Plain, and the network is a sealed one.
    Unsealed = "unsealed",
    /// No network of the snapshot has the VNI.
    UnknownVni = "unknown_vni",
    /// The sender is no VTEP of the network.
    UnknownVtep = "unknown_vtep",

    /// A frame for a VTEP that is no peer, which there is no session with.
    PeerUnknown = "peer_unknown",
    /// A frame that waited for a session for too long.
    NoSession = "no_session",
    /// A frame that was one too many to wait for a session.
    BridgeFull = "bridge_full",
    /// Sealed from an address that is no peer's VTEP.
    SealStranger = "seal_stranger",
    /// Sealed in a session that this node does not have with the sender: one of before a restart, or none at all.
    SessionUnknown = "session_unknown",
    /// Sealed in a session that is past its time.
    SessionExpired = "session_expired",
    /// Sealed with a counter that has come already, or too far behind the newest.
    Replayed = "replayed",
    /// Not what the peer sealed.
    SealBroken = "seal_broken",
    /// Sealed by the peer, and nothing that an engine seals.
    SealMalformed = "seal_malformed",

    /// Marked as a handshake, and none that an engine sends.
    HandshakeMalformed = "handshake_malformed",
    /// A handshake from an address that is no peer's VTEP.
    HandshakeStranger = "handshake_stranger",
    /// A handshake by somebody who does not know this node's key.
    HandshakeMac = "handshake_mac",
    /// One handshake too many: the sender is asked to prove its address, or to wait.
    HandshakeLimited = "handshake_limited",
    /// A handshake that the peer of this address did not make.
    HandshakeForged = "handshake_forged",
    /// An initiation that has come already, or is older than one that has.
    HandshakeReplayed = "handshake_replayed",
    /// An initiation that does not show that it is new: of before this node's start, or the first after its sender's.
    HandshakeStale = "handshake_stale",
    /// A response or a cookie to an initiation that is not under way.
    HandshakeUnasked = "handshake_unasked",

    /// The answer to a path probe that was not sent to this peer, was answered before, or is long past.
    ProbeUnasked = "probe_unasked",

    /// The TCP, UDP or ICMP header is malformed.
    TransportMalformed = "transport_malformed",
    /// Neither TCP, UDP nor ping, to a VIP.
    UnsupportedProtocol = "unsupported_protocol",
    /// The service has no backend that takes new flows.
    NoBackend = "no_backend",
    /// The service does not publish the port.
    PortClosed = "port_closed",
    /// In the middle of a connection nobody knows.
    NoFlow = "no_flow",
    /// Every flow slot is held by a live flow.
    FlowTableFull = "flow_table_full",
    /// The client has as many live flows as it leaves slots for others.
    FlowShare = "flow_share",
    /// No client port is left that keeps the reply distinguishable.
    ClientPortsExhausted = "client_ports_exhausted",
    /// A reset or ICMP error of the engine's own that was one too many.
    AnswerSuppressed = "answer_suppressed",
    /// An ICMP error about a packet of no known flow.
    IcmpErrorNoFlow = "icmp_error_no_flow",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }

    #[test]
    fn a_reason_is_its_place_in_the_list() {
        for (at, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
        }
    }
}
