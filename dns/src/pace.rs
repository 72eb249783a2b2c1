//! How fast one container may ask. Pure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The generic cell rate algorithm (ITU-T I.371 Annex A, "virtual scheduling"): one number tells when the questions
/// asked so far would all have been due, so that UDP and every TCP connection of a container share it without a lock.
#[derive(Debug)]
pub(crate) struct Pace {
    interval_nanos: u64,
    tolerance_nanos: u64,
    due_nanos: AtomicU64,
}

impl Pace {
    /// `per_second` questions a second, and `burst` at once after a rest.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let interval_nanos = 1_000_000_000 / u64::from(per_second.max(1));
        let tolerance_nanos = interval_nanos * u64::from(burst.max(1));
        Self { interval_nanos, tolerance_nanos, due_nanos: AtomicU64::new(0) }
    }

    /// Takes the place of one question at `now`, counted from any fixed instant: how long to wait before taking the
    /// next one, if at all.
    pub(crate) fn take(&self, now: Duration) -> Option<Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let due_after = |due: u64| due.max(now).saturating_add(self.interval_nanos);
        let due =
            self.due_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| Some(due_after(due)));
        let (Ok(due) | Err(due)) = due;
        let ahead = due_after(due) - now;
        (ahead > self.tolerance_nanos).then(|| Duration::from_nanos(ahead - self.tolerance_nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_questions_come_at_their_rate() {
        let pace = Pace::new(1_000, 10);
        let start = Duration::from_secs(5);
        assert!((0..10).all(|_| pace.take(start).is_none()));
        assert_eq!(pace.take(start), Some(Duration::from_millis(1)));
        assert_eq!(pace.take(start + Duration::from_millis(1)), Some(Duration::from_millis(1)));
        assert_eq!(pace.take(start + Duration::from_millis(3)), None);
        assert!((0..10).all(|_| pace.take(start + Duration::from_secs(1)).is_none()), "rested");
    }

    #[test]
    fn who_waits_as_told_gets_the_rate_and_no_more() {
        let pace = Pace::new(20_000, 2_000);
        let (mut now, mut asked) = (Duration::ZERO, 0);
        while now < Duration::from_secs(1) {
            asked += 1;
            // Timers of the runtime have a resolution of a millisecond.
            now += pace.take(now).map_or(Duration::ZERO, |wait| wait.max(Duration::from_millis(1)));
        }
        assert!((20_000..=22_100).contains(&asked), "{asked}");
    }
}
