//! Which of the ways to cross in large pieces are taken. All of them, outside tests.

use std::sync::LazyLock;

/// A list of words, separated by commas: the ways not to take. For tests, which have to pass either way.
const VARIABLE: &str = "SKEP_TEST_WITHOUT";

/// Ways that only save work: what arrives is the same with and without each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPaths {
    /// The kernel hands over super-frames, and frames without a checksum (TUNSETOFFLOAD).
    pub offloads: bool,
    /// The kernel cuts a run of datagrams (UDP_SEGMENT).
    pub segment: bool,
    /// The kernel hands over runs of datagrams (UDP_GRO).
    pub gro: bool,
    /// Frames that continue each other are put together for a TAP.
    pub merge: bool,
}

impl FastPaths {
    pub const ALL: Self = Self { offloads: true, segment: true, gro: true, merge: true };

    /// What the environment of this process chose when it was first asked.
    pub fn chosen() -> Self {
        static CHOSEN: LazyLock<FastPaths> = LazyLock::new(|| {
            let without = std::env::var(VARIABLE).unwrap_or_default();
            let (chosen, unknown) = FastPaths::without(&without);
            if let Some(word) = unknown {
                tracing::error!("{VARIABLE} has `{word}`: there are offloads, segment, gro and merge");
            }
            chosen
        });
        *CHOSEN
    }

    /// All but those listed, and the first word that is none of them.
    fn without(list: &str) -> (Self, Option<&str>) {
        let (mut chosen, mut unknown) = (Self::ALL, None);
        for word in list.split(',').filter(|word| !word.is_empty()) {
            match word {
                "offloads" => chosen.offloads = false,
                "segment" => chosen.segment = false,
                "gro" => chosen.gro = false,
                "merge" => chosen.merge = false,
                other => unknown = unknown.or(Some(other)),
            }
        }
        (chosen, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_off() {
        assert_eq!(FastPaths::without(""), (FastPaths::ALL, None));
        let expected = FastPaths { segment: false, merge: false, ..FastPaths::ALL };
        assert_eq!(FastPaths::without("merge,segment"), (expected, None));
        assert_eq!(FastPaths::without("gso,gro"), (FastPaths { gro: false, ..FastPaths::ALL }, Some("gso")));
    }
}
