//! Signals as Docker's clients name them: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.

use std::fmt;

/// Names and numbers on every architecture Skep runs on (signal(7), column "x86/ARM").
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// Real-time signals as the C library counts them: the kernel's first two are its own.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// A signal there is, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}: use a name such as SIGTERM, or a number from 1 to {RT_MAX}")]
pub struct InvalidSignal(String);

impl Signal {
    pub const TERM: Self = Self(15);

    pub fn number(self) -> i32 {
        self.0
    }
}

impl std::str::FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        // What a client sent may be long; the sentence quotes its beginning.
        let refuse = || InvalidSignal(text.chars().take(32).collect());
        if let Ok(number) = text.parse::<i32>() {
            return (1..=RT_MAX).contains(&number).then_some(Self(number)).ok_or_else(refuse);
        }
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        named.or_else(|| real_time(name)).map(Self).ok_or_else(refuse)
    }
}

/// `RTMIN`, `RTMIN+1` … and `RTMAX`, `RTMAX-1` …
fn real_time(name: &str) -> Option<i32> {
    let (from, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => return Some(RT_MIN),
        (_, Some("")) => return Some(RT_MAX),
        (Some(offset), _) if offset.starts_with('+') => (RT_MIN, offset),
        (_, Some(offset)) if offset.starts_with('-') => (RT_MAX, offset),
        _ => return None,
    };
    let number = from.checked_add(offset.parse().ok()?)?;
    (RT_MIN..=RT_MAX).contains(&number).then_some(number)
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<i32> {
        text.parse().ok().map(Signal::number)
    }

    #[test]
    fn names_and_numbers_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("SigKill", 9),
            ("15", 15),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("CLD", 17),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "-9", "65", "SIG", "SIGNOPE", "RTMIN+31", "RTMIN-1", "RTMAX+1", "9 ", "RTMIN+x"]
        {
            assert_eq!(number(text), None, "{text:?}");
        }
        let long = "x".repeat(1 << 20).parse::<Signal>().unwrap_err().to_string();
        assert!(long.len() < 200, "{}", long.len());
    }
}
