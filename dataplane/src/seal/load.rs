//! [`Load`]: how many handshakes are worked on. A node that is asked for more wants to see a cookie first.

/// Handshakes with the right MAC1 that may come at once, and how many more a millisecond earns, in quarters: 250 a
/// second, some 5 % of a processor.
const BURST: u64 = 64;
const PARTS: u64 = 4;

/// A node that was asked for too many wants cookies for this long, in milliseconds (WireGuard's `UNDER_LOAD_AFTER_TIME`).
const UNDER_LOAD: u64 = 1_000;

/// Of one peer, whose address is proved: WireGuard's 20 a second, 5 at once; as parts of a handshake per millisecond.
pub(crate) const PEER_BURST: u64 = 5;
pub(crate) const PEER_PARTS: u64 = 50;

/// Filled with `parts` handshakes' worth each millisecond.
#[derive(Clone, Copy)]
pub(crate) struct Bucket {
    parts: u64,
    capacity: u64,
    /// In parts: as many make one handshake.
    left: u64,
    filled_at: u64,
}

impl Bucket {
    pub(crate) fn new(burst: u64, parts: u64) -> Self {
        Self { parts, capacity: burst * parts, left: burst * parts, filled_at: 0 }
    }

    pub(crate) fn take(&mut self, now: u64) -> bool {
        self.left = (self.left + now.saturating_sub(self.filled_at)).min(self.capacity);
        self.filled_at = self.filled_at.max(now);
        let has_one = self.left >= self.parts;
        if has_one {
            self.left -= self.parts;
        }
        has_one
    }
}

pub(crate) struct Load {
    bucket: Bucket,
    until: u64,
    /// Answers that ask for a cookie's proof: as many as handshakes.
    cookies: Bucket,
}

impl Load {
    pub(crate) fn new() -> Self {
        let bucket = Bucket::new(BURST, PARTS);
        Self { bucket, until: 0, cookies: bucket }
    }

    /// Counts a handshake, and says whether there are too many.
    pub(crate) fn is_heavy(&mut self, now: u64) -> bool {
        if !self.bucket.take(now) {
            self.until = now + UNDER_LOAD;
        }
        now < self.until
    }

    pub(crate) fn may_give_cookie(&mut self, now: u64) -> bool {
        self.cookies.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_begins_after_a_burst_and_ends_a_second_after_the_last_excess() {
        let mut load = Load::new();
        let light = (0..1_000).take_while(|_| !load.is_heavy(5_000)).count();
        assert_eq!(light as u64, BURST);
        assert!(load.is_heavy(5_999));
        assert!(!load.is_heavy(6_000));
    }

    #[test]
    fn two_hundred_and_fifty_a_second_are_no_load() {
        let mut load = Load::new();
        assert!((0..2_500).all(|nth| !load.is_heavy(nth * 4)));
        assert!((0..1_000).any(|nth| load.is_heavy(10_000 + nth * 2)));
    }

    #[test]
    fn one_peer_has_twenty_a_second() {
        let mut bucket = Bucket::new(PEER_BURST, PEER_PARTS);
        let taken = (0..10_000).filter(|now| bucket.take(*now)).count();
        assert_eq!(taken, 204);
    }
}
