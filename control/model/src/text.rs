//! Text of strangers, made fit for people's tables and terminals.

use std::borrow::Cow;

/// Stands for what was left out.
const GAP: &str = " … ";

/// `text` as one line of `max` bytes at most. What steers a terminal or turns the direction of writing becomes a
/// space; of a longer text the start and the end are kept, for remedies come last.
pub fn line(text: &str, max: usize) -> Cow<'_, str> {
    let short = shortened(text, max);
    match short.contains(steers) {
        true => Cow::Owned(short.replace(steers, " ")),
        false => short,
    }
}

fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let half = max.saturating_sub(GAP.len()) / 2;
    let start = &text[..text.floor_char_boundary(half)];
    let end = &text[text.ceil_char_boundary(text.len() - half)..];
    Cow::Owned(format!("{start}{GAP}{end}"))
}

/// Control characters, line and paragraph separators, and Unicode's marks of direction (UAX #9 §2).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_and_plain_stays() {
        assert!(matches!(line("bienenstöcke 蜂", 64), Cow::Borrowed("bienenstöcke 蜂")));
        assert_eq!(line("", 0), "");
    }

    #[test]
    fn nothing_steers_and_nothing_is_long() {
        assert_eq!(line("a\nb\u{1b}[2J\u{202e}c\0", 64), "a b [2J c ");
        assert_eq!(line(&"é".repeat(100), 21), "éééé … éééé");
        let bee = format!("{} say less", "x".repeat(1000));
        assert_eq!(line(&bee, 25), "xxxxxxxxxx … x say less");
        for max in 5..40 {
            assert!(line(&"🐝".repeat(50), max).len() <= max.max(GAP.len()));
        }
    }
}
