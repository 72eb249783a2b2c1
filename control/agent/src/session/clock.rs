//! Two clocks compared. Certificates bear a day; what suffers first is the order of events for whoever reads logs.

use jiff::{SignedDuration, Timestamp, Unit};

/// Below it nobody reads a log wrong, and a slow answer makes some of it.
const TOLERATED: SignedDuration = SignedDuration::from_secs(60);

/// What to tell the operator of a node whose clock shows `own` while its manager's shows `manager`, if anything.
pub(super) fn difference(own: Timestamp, manager: Timestamp) -> Option<String> {
    let ahead = own.duration_since(manager);
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    let minutes = ahead.abs().round(Unit::Minute).unwrap_or(ahead.abs());
    (ahead.abs() > TOLERATED).then(|| {
        format!(
            "this host's clock is {minutes:#} {direction} the manager's: set one of them; beyond a day certificates are refused"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_by_a_day_is_told_and_one_that_is_close_is_not() {
        let manager = Timestamp::from_second(1_800_000_000).unwrap();
        let (day, minute) = (SignedDuration::from_hours(24), SignedDuration::from_mins(1));
        assert_eq!(difference(manager + minute, manager), None);
        assert_eq!(difference(manager - minute, manager), None);
        let ahead = difference(manager + day, manager).unwrap();
        assert!(ahead.starts_with("this host's clock is 24h ahead of the manager's"), "{ahead}");
        let behind = difference(manager - day, manager).unwrap();
        assert!(behind.contains("24h behind the manager's"), "{behind}");
    }
}
