//! Durations on the command line, as docker writes them.

use jiff::SignedDuration;

/// Nanoseconds of `10s`, `1m30s`, `1.5h`. For clap.
pub(crate) fn nanoseconds(text: &str) -> Result<i64, String> {
    let refuse =
        || format!("write a duration such as 10s, 1m30s or 500ms, 292 years at most, not \"{text}\"");
    if text == "0" {
        return Ok(0);
    }
    let duration: SignedDuration = text.parse().map_err(|_| refuse())?;
    match i64::try_from(duration.as_nanos()) {
        Ok(nanos) if nanos >= 0 => Ok(nanos),
        Ok(_) => Err("a duration can't be negative".into()),
        Err(_) => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_spellings_are_read_and_others_refused() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            ("100us", 100_000),
        ] {
            assert_eq!(nanoseconds(text), Ok(nanos), "{text}");
        }
        for text in ["", "10", "-5s", "ten", "9999999999999h", "1e3s", "s"] {
            assert!(nanoseconds(text).is_err(), "{text}");
        }
    }
}
