//! [`Answers`]: how many errors and resets the engine sends of its own accord (RFC 1812 §4.3.2.8).
//!
//! A token bucket for each port, so that one container's mistakes cost another no answer, and one for all of them, so
//! that their sum costs the node little. What an answer was about has been dropped and counted already; a suppressed
//! answer is counted too.

use crate::prepared::Carried;

/// To one port: a client that meets a closed port tries again a few times a second; a thousand of them at once are told.
const PER_PORT: Rate = Rate { per_milli: 1, burst: 1_000 };

/// To all ports of the node. Linux gives its ICMP errors as much (icmp_msgs_per_sec).
const IN_ALL: Rate = Rate { per_milli: 10, burst: 10_000 };

struct Rate {
    per_milli: u64,
    burst: u64,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: u64,
    filled_at: u64,
}

pub(crate) struct Answers {
    all: Bucket,
    /// One per port of the index, in its order.
    ports: Vec<Bucket>,
}

impl Answers {
    pub(crate) fn new() -> Self {
        Self { all: Bucket::full(&IN_ALL), ports: Vec::new() }
    }

    /// Keeps the buckets of the ports that stay.
    pub(crate) fn follow(&mut self, carried: &Carried) {
        let kept =
            |before: &Option<usize>| before.map_or_else(|| Bucket::full(&PER_PORT), |at| self.ports[at]);
        self.ports = carried.ports.iter().map(kept).collect();
    }

    /// Whether one more may be sent to the port at this place of the index.
    pub(crate) fn allow(&mut self, at: usize, now: u64) -> bool {
        self.ports[at].take(&PER_PORT, now) && self.all.take(&IN_ALL, now)
    }
}

impl Bucket {
    fn full(rate: &Rate) -> Self {
        Self { left: rate.burst, filled_at: 0 }
    }

    fn take(&mut self, rate: &Rate, now: u64) -> bool {
        let earned = now.saturating_sub(self.filled_at).saturating_mul(rate.per_milli);
        self.left = self.left.saturating_add(earned).min(rate.burst);
        self.filled_at = self.filled_at.max(now);
        let has_one = self.left > 0;
        self.left -= u64::from(has_one);
        has_one
    }
}
