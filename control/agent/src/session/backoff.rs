//! How long to wait before the next try.

use rand::RngExt;
use std::time::Duration;

/// A restarted manager is found again at once.
const FIRST: Duration = Duration::from_millis(100);
/// A node knows the cluster's state again within 5 s of the end of an outage: this, one connection attempt that
/// was about to be given up, and the session's first messages. A thousand nodes make 400 tries a second together.
const LONGEST: Duration = Duration::from_secs(3);

/// Doubles from try to try. The wait is a random part of the bound, so that the nodes of a cluster whose
/// manager was away don't come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { bound: FIRST }
    }
}

impl Backoff {
    /// The wait before the next try: between half the bound and all of it.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.bound.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.bound = (self.bound * 2).min(LONGEST);
        wait
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.wait()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits[19] <= LONGEST && waits[19] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
