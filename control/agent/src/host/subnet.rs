//! Which subnet the egress bridge gets.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// VPNs write their default route in parts (`0.0.0.0/1`, `128.0.0.0/1`). A destination this wide says
/// nothing about which addresses are in use.
const SHORTEST_MEANINGFUL_PREFIX: u8 = 8;

/// The first candidate that overlaps none of `taken`. The candidates are Docker's local pools:
/// 172.18.0.0/16 to 172.31.0.0/16 (172.17 is Docker's own bridge), then 192.168.0.0/16 in /20s.
pub(super) fn pick(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    candidates().find(|candidate| !taken.iter().any(|taken| collides(taken, candidate)))
}

fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let sixteens = (18..=31).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..16).map(|n| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, n * 16, 0), 20));
    sixteens.chain(twenties)
}

fn collides(taken: &Ipv4Net, candidate: &Ipv4Net) -> bool {
    taken.prefix_len() >= SHORTEST_MEANINGFUL_PREFIX
        && (taken.contains(candidate) || candidate.contains(taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn an_ordinary_host_gets_the_first_candidate() {
        assert_eq!(pick(&[net("192.168.77.0/24"), net("172.17.0.0/16")]), Some(net("172.18.0.0/16")));
    }

    #[test]
    fn a_host_that_routes_all_of_172_16_gets_one_from_192_168() {
        assert_eq!(pick(&[net("172.16.0.0/12"), net("192.168.3.0/24")]), Some(net("192.168.16.0/20")));
    }

    #[test]
    fn a_default_route_in_parts_is_still_a_default_route() {
        assert_eq!(pick(&[net("0.0.0.0/1"), net("128.0.0.0/1")]), Some(net("172.18.0.0/16")));
    }

    #[test]
    fn nothing_is_left_when_everything_is_routed() {
        assert_eq!(pick(&[net("172.16.0.0/12"), net("192.168.0.0/16")]), None);
    }

    prop_compose! {
        /// Biased towards the ranges the candidates come from.
        fn route()(
            wide in any::<bool>(), a in any::<u8>(), b in 16u8..32, c in any::<u8>(), len in 8u8..=32,
        ) -> Ipv4Net {
            let addr = if wide { Ipv4Addr::new(192, 168, a, c) } else { Ipv4Addr::new(172, b, a, c) };
            Ipv4Net::new_assert(addr, len).trunc()
        }
    }

    proptest! {
        #[test]
        fn a_picked_subnet_shares_no_address_with_a_route(routes in prop::collection::vec(route(), 0..40)) {
            // Two prefixes share an address exactly if the first address of one is in the other.
            let shares = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
            let free = |c: &Ipv4Net| !routes.iter().any(|route| shares(route, c));
            match pick(&routes) {
                Some(picked) => prop_assert!(free(&picked)),
                None => prop_assert!(!candidates().any(|candidate| free(&candidate))),
            }
        }
    }
}
