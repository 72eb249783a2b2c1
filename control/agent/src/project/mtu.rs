//! How large the packets of a network may be. Pure.

use skep_dataplane::PathStats;
use skep_dataplane::snapshot::Policy;

/// IPv4's least (RFC 791 §3.1) keeps a nonsensical underlay from making a nonsensical network.
const LEAST: u32 = 68;
/// What every host has to take (RFC 791 §3.2): a path that claims to carry less is not believed.
const LEAST_PATH: u16 = 576;

/// The largest IP packet, in bytes, that fits the underlay's interface once it is encapsulated. RFC 7348 §4.3 forbids
/// VTEPs to fragment.
pub(crate) fn network_mtu(underlay: u32, policy: Policy) -> u16 {
    u16::try_from(underlay.saturating_sub(policy.overhead().into()).max(LEAST)).unwrap_or(u16::MAX)
}

/// Of a container's interface on a network: what the widest of this node's paths carries, for no path carries more.
/// Peers behind narrower ones are the engine's to tell of, packet by packet. What is used before a path was measured says
/// nothing of it.
pub(crate) fn container_mtu(underlay: u32, policy: Policy, paths: &[PathStats]) -> u16 {
    let interface = network_mtu(underlay, policy);
    let known = paths.iter().filter(|path| !path.silent && path.is_measured);
    match known.map(|path| path.mtu).max() {
        Some(widest) => network_mtu(widest.max(LEAST_PATH).into(), policy).min(interface),
        None => interface,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_dataplane::SessionStats;
    use std::net::Ipv4Addr;

    fn path(mtu: u16) -> PathStats {
        let (peer, last_heard, session) = (Ipv4Addr::LOCALHOST, None, SessionStats::default());
        PathStats { peer, asked: 0, answered: 0, last_heard, silent: false, mtu, is_measured: true, session }
    }

    #[test]
    fn a_network_leaves_room_for_what_its_policy_adds() {
        for (underlay, plain, sealed) in [
            (1280, 1230, 1198),
            (1500, 1450, 1418),
            (1420, 1370, 1338),
            (9000, 8950, 8918),
            (0, 68, 68),
            (100_000, u16::MAX, u16::MAX),
        ] {
            assert_eq!(network_mtu(underlay, Policy::Plain), plain, "{underlay}");
            assert_eq!(network_mtu(underlay, Policy::Sealed), sealed, "{underlay}");
        }
    }

    #[test]
    fn a_container_can_send_what_the_widest_path_carries() {
        let sealed = |underlay, paths: &[PathStats]| container_mtu(underlay, Policy::Sealed, paths);
        assert_eq!(sealed(1500, &[]), 1418, "nothing is known yet");
        assert_eq!(sealed(1500, &[path(1400), path(1280)]), 1318);
        assert_eq!(sealed(9000, &[path(1500)]), 1418, "jumbo frames end at the host's own wire");
        assert_eq!(sealed(1500, &[path(9000)]), 1418, "the interface carries no more");
        assert_eq!(container_mtu(1500, Policy::Plain, &[path(1400)]), 1350);
    }

    #[test]
    fn paths_that_are_down_or_not_measured_yet_say_nothing() {
        let silent = PathStats { silent: true, ..path(1500) };
        let strange = PathStats { is_measured: false, ..path(1200) };
        assert_eq!(container_mtu(1500, Policy::Sealed, &[silent.clone(), path(1300)]), 1218);
        assert_eq!(container_mtu(1500, Policy::Sealed, &[silent, strange]), 1418);
    }

    #[test]
    fn no_path_is_so_narrow_that_nothing_fits() {
        assert_eq!(container_mtu(1500, Policy::Sealed, &[path(0)]), 576 - 82);
        assert_eq!(container_mtu(1500, Policy::Plain, &[path(100)]), 576 - 50);
    }
}
