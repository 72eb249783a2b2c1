//! How often one address may try to join: guessing tokens and floods of certificate requests cost the manager
//! signatures and disk syncs. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Far more than a script that makes machines needs, far less than a manager bears.
pub(crate) const PER_SECOND: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);
/// Addresses counted at a time. Beyond it further ones wait until a second is over for others.
const MAX_ADDRESSES: usize = 1_024;

/// Attempts of each address within the second that began with its first one.
#[derive(Debug, Default)]
pub(crate) struct JoinRate {
    seconds: BTreeMap<IpAddr, (Instant, u32)>,
}

impl JoinRate {
    /// Counts an attempt; false if it is one too many.
    pub(crate) fn admits(&mut self, from: IpAddr, now: Instant) -> bool {
        let runs = |began: &Instant| now.saturating_duration_since(*began) < SECOND;
        if self.seconds.len() >= MAX_ADDRESSES && !self.seconds.contains_key(&from) {
            self.seconds.retain(|_, (began, _)| runs(began));
            if self.seconds.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let (began, attempts) = self.seconds.entry(from).or_insert((now, 0));
        if !runs(began) {
            (*began, *attempts) = (now, 0);
        }
        *attempts = attempts.saturating_add(1);
        *attempts <= PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn addr(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    #[test]
    fn each_address_has_its_own_second() {
        let (mut rate, start) = (JoinRate::default(), Instant::now());
        let admitted = |rate: &mut JoinRate, n, now| (0..50).filter(|_| rate.admits(addr(n), now)).count();
        assert_eq!(admitted(&mut rate, 1, start), 20);
        assert_eq!(admitted(&mut rate, 1, start + SECOND / 2), 0);
        assert_eq!(admitted(&mut rate, 2, start + SECOND / 2), 20);
        assert_eq!(admitted(&mut rate, 1, start + SECOND), 20);
    }

    #[test]
    fn the_table_is_bounded_and_frees_itself() {
        let (mut rate, start) = (JoinRate::default(), Instant::now());
        let admitted = (0..5_000).filter(|n| rate.admits(addr(*n), start)).count();
        assert_eq!((admitted, rate.seconds.len()), (MAX_ADDRESSES, MAX_ADDRESSES));
        assert!(rate.admits(addr(0), start), "who is counted goes on");
        assert!(rate.admits(addr(9_999), start + SECOND));
        assert_eq!(rate.seconds.len(), 1);
    }
}
