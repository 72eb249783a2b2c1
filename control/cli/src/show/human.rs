//! Times, sizes and ids as docker writes them.

use std::cmp::Ordering;

use jiff::Timestamp;

/// `18 seconds ago`, rounded as docker's go-units rounds.
pub(crate) fn ago(since: &str, now: Timestamp) -> String {
    match age(since, now) {
        age if age.is_empty() => age,
        age => format!("{age} ago"),
    }
}

/// `18 seconds`; empty for what is no time.
pub(crate) fn age(since: &str, now: Timestamp) -> String {
    let since = since.parse::<Timestamp>();
    since.map_or_else(
        |_| String::new(),
        |since| duration((now - since).total(jiff::Unit::Second).unwrap_or(0.0)),
    )
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    // go-units rounds hours, and only hours, to the nearest.
    let (minutes, hours) = (seconds / 60, (seconds + 1_800) / 3_600);
    match (seconds, minutes, hours) {
        (0, _, _) => "less than a second".into(),
        (1, _, _) => "1 second".into(),
        (..60, _, _) => format!("{seconds} seconds"),
        (_, 1, _) => "about a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "about an hour".into(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1_440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `23.54GiB`
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    // Four significant digits without trailing zeros, as %.4g prints.
    let digits = if size >= 1000.0 { 0 } else { 3 - (size.max(1.0).log10().floor() as usize).min(3) };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// The first 12 characters, which docker shows of an id.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

/// `running` → `Running`
pub(crate) fn capitalized(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map_or(String::new(), |first| first.to_uppercase().chain(rest).collect())
}

/// `web.2` before `web.10`: runs of digits compare as numbers.
pub(crate) fn natural_order(a: &str, b: &str) -> Ordering {
    chunks(a).cmp(chunks(b)).then_with(|| a.cmp(b))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Chunk<'a> {
    /// Digits without leading zeros: the longer number is the larger one.
    Number(usize, &'a str),
    Text(&'a str),
}

fn chunks(text: &str) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let digit = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(end);
        rest = after;
        let number = chunk.trim_start_matches('0');
        Some(if digit { Chunk::Number(number.len(), number) } else { Chunk::Text(chunk) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_dockers() {
        let day = 24.0 * 3_600.0;
        for (seconds, text) in [
            (-3.0, "less than a second"),
            (0.9, "less than a second"),
            (1.0, "1 second"),
            (59.9, "59 seconds"),
            (60.0, "about a minute"),
            (120.0, "2 minutes"),
            (3_599.0, "59 minutes"),
            (3_600.0, "about an hour"),
            (5_399.0, "about an hour"),
            (5_400.0, "2 hours"),
            (47.0 * 3_600.0, "47 hours"),
            (2.0 * day, "2 days"),
            (14.0 * day, "2 weeks"),
            (60.0 * day, "2 months"),
            (800.0 * day, "2 years"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
        let now = "2026-11-21T04:36:46Z".parse().unwrap();
        assert_eq!(ago("2026-11-21T04:36:27.821139097Z", now), "18 seconds ago");
        assert_eq!(ago("", now), "");
    }

    #[test]
    fn sizes_have_four_digits() {
        for (size, text) in
            [(0, "0B"), (512, "512B"), (1_536, "1.5KiB"), (67_108_864, "64MiB"), (25_275_674_624, "23.54GiB")]
        {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["web.10", "web.2", "db.1", "web.1", "web", "web.02", ""];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["", "db.1", "web", "web.1", "web.02", "web.2", "web.10"]);
    }
}
