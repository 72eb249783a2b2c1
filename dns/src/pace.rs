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

    /// Takes the places of so many questions at `now`, counted from any fixed instant: how long to wait before taking
    /// the next one, if at all.
    pub(crate) fn take(&self, questions: u32, now: Duration) -> Option<Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let nanos = self.interval_nanos.saturating_mul(questions.into());
        let due_after = |due: u64| due.max(now).saturating_add(nanos);
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
        assert!((0..10).all(|_| pace.take(1, start).is_none()));
        assert_eq!(pace.take(1, start), Some(Duration::from_millis(1)));
        assert_eq!(pace.take(1, start + Duration::from_millis(1)), Some(Duration::from_millis(1)));
        assert_eq!(pace.take(1, start + Duration::from_millis(3)), None);
        assert!((0..10).all(|_| pace.take(1, start + Duration::from_secs(1)).is_none()), "rested");
    }

    #[test]
    fn several_at_once_count_as_if_they_came_one_by_one() {
        let [together, apart] = [(); 2].map(|()| Pace::new(1_000, 10));
        let start = Duration::from_secs(5);
        assert_eq!(together.take(10, start), None);
        assert!((0..10).all(|_| apart.take(1, start).is_none()));
        assert_eq!(together.take(7, start), Some(Duration::from_millis(7)));
        assert_eq!((0..7).filter_map(|_| apart.take(1, start)).last(), Some(Duration::from_millis(7)));
    }

    #[test]
    fn who_waits_as_told_gets_the_rate_and_no_more() {
        let pace = Pace::new(20_000, 2_000);
        let (mut now, mut asked) = (Duration::ZERO, 0);
        while now < Duration::from_secs(1) {
            asked += 1;
            // Timers of the runtime have a resolution of a millisecond.
            now += pace.take(1, now).map_or(Duration::ZERO, |wait| wait.max(Duration::from_millis(1)));
        }
        assert!((20_000..=22_100).contains(&asked), "{asked}");
    }
}
