//! [`PathMtu`]: the largest outer packet that arrives at a peer (RFC 8899, with the probes of the session).
//!
//! Nothing is believed that a router says, for anybody can say it, and nothing is guessed: a size is used when a
//! question of that size was answered. All usual sizes are asked for at once, then the gap above the largest that
//! arrived is narrowed. While large packets travel the size is asked for again and again, so that a path that has
//! become narrower is noticed also where nobody says so.

/// RFC 8899 §5.1.2: used before anything is known, in bytes.
pub(super) const BASE: u16 = 1_200;

/// What links and tunnels usually carry, in bytes; 576 is what every IPv4 host takes (RFC 1122 §3.3.3).
const USUAL: [u16; 13] =
    [576, 1_024, 1_200, 1_280, 1_400, 1_450, 1_492, 1_500, 4_352, 8_192, 9_000, 16_384, 32_768];

/// A gap that is not worth more questions, in bytes.
const CLOSE: u16 = 8;

/// How long an answer is waited for, in milliseconds, and in which bounds twice the path's round trip may change that.
const PATIENCE: u64 = 100;
const MAX_PATIENCE: u64 = 1_000;

/// Questions of a size before it counts as too large while it is searched for, and while it is in use: there a wrong
/// judgement costs more, and of five lost questions few are lost by chance.
const SEARCH_TRIES: u32 = 2;
const USE_TRIES: u32 = 5;

/// A size in use is asked for this often while large packets travel, in milliseconds: with the tries above, one that no
/// longer arrives is found within a second.
const CHECK_EVERY: u64 = 500;

/// The path may have become wider, in milliseconds (RFC 8899 §5.1.1 has ten minutes).
const RAISE_EVERY: u64 = 60_000;

/// Between searches that nothing came of.
const SEARCH_AGAIN: u64 = 1_000;

/// Questions whose answer is still known.
const OPEN: usize = 48;

#[derive(Clone, Copy, Default)]
struct Question {
    nonce: u64,
    size: u16,
    /// The lower half of the time: every peer has many of these.
    at: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All usual sizes that are larger than what is known.
    Search {
        tries: u32,
    },
    /// One in the middle between what is known and what is too large.
    Narrow {
        size: u16,
        too_large: u16,
        tries: u32,
    },
    Found,
    /// The size in use.
    Check {
        tries: u32,
        since: u64,
    },
}

#[derive(Clone)]
pub(super) struct PathMtu {
    /// Of the interface.
    most: u16,
    known: Option<u16>,
    phase: Phase,
    next: u64,
    patience: u64,
    checked: u64,
    raise_at: u64,
    open: [Question; OPEN],
    asked: usize,
}

impl PathMtu {
    pub(super) fn new(most: u16, now: u64) -> Self {
        Self {
            most,
            known: None,
            phase: Phase::Search { tries: 0 },
            next: now,
            patience: PATIENCE,
            checked: now,
            raise_at: now + RAISE_EVERY,
            open: [Question::default(); OPEN],
            asked: 0,
        }
    }

    /// Tries for more by another clock than paths of another `phase`: a thousand peers' large questions at once would be
    /// twelve megabytes in a millisecond, of which most get lost.
    pub(super) fn in_phase(mut self, phase: u64) -> Self {
        self.raise_at -= phase % RAISE_EVERY;
        self
    }

    /// The largest outer packet to send, in bytes.
    pub(super) fn limit(&self) -> u16 {
        self.known.unwrap_or(BASE).min(self.most)
    }

    /// Whether the search has come to an end.
    pub(super) fn is_measured(&self) -> bool {
        matches!(self.phase, Phase::Found | Phase::Check { .. })
    }

    /// The interface has another MTU.
    pub(super) fn set_most(&mut self, most: u16, now: u64) {
        if most != self.most {
            let known = self.known.map(|known| known.min(most));
            *self = Self { known, raise_at: self.raise_at, ..Self::new(most, now) };
        }
    }

    /// When it has a question, or has waited long enough for an answer.
    pub(super) fn due(&self) -> u64 {
        self.next
    }

    /// There is no session to ask in.
    pub(super) fn postpone(&mut self, now: u64) {
        self.next = now + PATIENCE;
    }

    /// The sizes to ask for now. `is_large`: larger packets than [`BASE`] were sent since the last call. `heard`: when
    /// the peer was heard last.
    pub(super) fn turn(
        &mut self,
        now: u64,
        is_large: bool,
        heard: Option<u64>,
    ) -> impl Iterator<Item = u16> + use<> {
        let mut asked = Asked::Nothing;
        match self.phase {
            Phase::Search { tries } if tries < SEARCH_TRIES => {
                self.wait(Phase::Search { tries: tries + 1 }, now);
                asked = Asked::Above(self.known.unwrap_or_default());
            }
            Phase::Search { .. } => asked = self.narrow(now),
            Phase::Narrow { size, too_large, tries } if tries < SEARCH_TRIES => {
                self.wait(Phase::Narrow { size, too_large, tries: tries + 1 }, now);
                asked = Asked::One(size);
            }
            Phase::Narrow { size, .. } => asked = self.narrow_below(size, now),
            Phase::Found if now >= self.raise_at => {
                let missed = (now - self.raise_at) / RAISE_EVERY;
                self.raise_at += (missed + 1) * RAISE_EVERY;
                self.wait(Phase::Search { tries: 1 }, now);
                asked = Asked::Above(self.known.unwrap_or_default());
            }
            Phase::Found if is_large && now >= self.checked + CHECK_EVERY => {
                self.wait(Phase::Check { tries: 1, since: now }, now);
                asked = Asked::One(self.limit());
            }
            Phase::Found => self.next = now + CHECK_EVERY,
            Phase::Check { tries, since } if tries < USE_TRIES => {
                self.wait(Phase::Check { tries: tries + 1, since }, now);
                asked = Asked::One(self.limit());
            }
            // Who was not heard at all says nothing about sizes.
            Phase::Check { since, .. } if heard.is_none_or(|heard| heard < since) => self.find(now),
            Phase::Check { .. } => {
                let Self { patience, raise_at, .. } = *self;
                *self = Self { patience, raise_at, ..Self::new(self.most, now) };
                self.wait(Phase::Search { tries: 1 }, now);
                asked = Asked::Above(0);
            }
        }
        sizes(asked, self.most)
    }

    fn wait(&mut self, phase: Phase, now: u64) {
        self.phase = phase;
        self.next = now + self.patience;
    }

    fn find(&mut self, now: u64) {
        self.checked = now;
        self.phase = Phase::Found;
        self.next = now + CHECK_EVERY;
    }

    /// After a search: the smallest size that nobody answered for is too large.
    fn narrow(&mut self, now: u64) -> Asked {
        let Some(known) = self.known else {
            // Nobody there, or a session that is no more.
            self.phase = Phase::Search { tries: 0 };
            self.next = now + SEARCH_AGAIN;
            return Asked::Nothing;
        };
        let above = sizes(Asked::Above(known), self.most).next();
        match above {
            Some(too_large) => self.narrow_below(too_large, now),
            None => {
                self.find(now);
                Asked::Nothing
            }
        }
    }

    fn narrow_below(&mut self, too_large: u16, now: u64) -> Asked {
        let known = self.known.unwrap_or_default();
        if too_large.saturating_sub(known) <= CLOSE {
            self.find(now);
            return Asked::Nothing;
        }
        let size = known + (too_large - known) / 2;
        self.wait(Phase::Narrow { size, too_large, tries: 1 }, now);
        Asked::One(size)
    }

    pub(super) fn note_asked(&mut self, nonce: u64, size: u16, now: u64) {
        self.open[self.asked % OPEN] = Question { nonce, size, at: now as u32 };
        self.asked += 1;
    }

    /// Whether it was one of its questions that was answered.
    pub(super) fn answer(&mut self, nonce: u64, now: u64) -> bool {
        let Some(question) = self.open.iter_mut().find(|open| open.nonce == nonce && open.size > 0) else {
            return false;
        };
        let Question { size, at, .. } = std::mem::take(question);
        self.patience = (2 * u64::from((now as u32).wrapping_sub(at))).clamp(PATIENCE, MAX_PATIENCE);
        match self.phase {
            // A size that is no longer thought to arrive did: what was asked before the path changed.
            _ if size > self.most => {}
            Phase::Check { .. } if Some(size) == self.known => self.find(now),
            _ => self.known = Some(self.known.map_or(size, |known| known.max(size))),
        }
        match self.phase {
            Phase::Search { .. } if self.known == Some(self.most) => self.find(now),
            Phase::Narrow { size: asked, too_large, .. } if size >= asked => {
                // The next turn, which is now, halves what is left.
                self.phase = Phase::Narrow { size: too_large.max(size), too_large, tries: SEARCH_TRIES };
                self.next = now;
            }
            _ => {}
        }
        true
    }
}

#[derive(Clone, Copy)]
enum Asked {
    Nothing,
    One(u16),
    /// Each usual size that is larger, and the interface's.
    Above(u16),
}

/// In rising order.
fn sizes(asked: Asked, most: u16) -> impl Iterator<Item = u16> {
    let (one, above) = match asked {
        Asked::Nothing => (None, u16::MAX),
        Asked::One(size) => (Some(size), u16::MAX),
        Asked::Above(size) => (None, size),
    };
    let usual = USUAL.into_iter().filter(move |size| *size < most).chain([most]);
    one.into_iter().chain(usual.filter(move |size| *size > above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::scramble;
    use proptest::prelude::*;

    /// A path of a certain width, and questions on it.
    struct Path {
        mtu: PathMtu,
        width: u16,
        delay: u64,
        now: u64,
        nonce: u64,
        answers: Vec<(u64, u64)>,
        /// Of so many questions one arrives.
        loss: u64,
    }

    impl Path {
        fn new(most: u16, width: u16) -> Self {
            let mtu = PathMtu::new(most, 0);
            Self { mtu, width, delay: 1, now: 0, nonce: 0, answers: Vec::new(), loss: 1 }
        }

        /// Plays until `until`, with large packets all the time.
        fn play(&mut self, until: u64) {
            while self.now < until {
                self.now += 1;
                let (now, arrived): (_, Vec<_>) =
                    (self.now, self.answers.extract_if(.., |(at, _)| *at <= self.now).collect());
                for (_, nonce) in arrived {
                    assert!(self.mtu.answer(nonce, now));
                }
                if self.mtu.due() > now {
                    continue;
                }
                for size in self.mtu.turn(now, true, Some(now)) {
                    self.nonce += 1;
                    self.mtu.note_asked(self.nonce, size, now);
                    if size <= self.width && self.nonce.is_multiple_of(self.loss) {
                        self.answers.push((now + self.delay, self.nonce));
                    }
                }
            }
        }
    }

    #[test]
    fn the_usual_path_is_known_after_one_round_trip() {
        let mut path = Path::new(1_500, 1_500);
        assert_eq!((path.mtu.limit(), path.mtu.is_measured()), (BASE, false));
        path.play(3);
        assert_eq!((path.mtu.limit(), path.mtu.is_measured()), (1_500, true));
    }

    #[test]
    fn a_path_that_becomes_narrower_is_found_within_a_second_and_a_half() {
        let mut path = Path::new(1_500, 1_500);
        path.play(5_000);
        for width in [1_400, 1_300, 1_280, 1_000, 576] {
            path.width = width;
            let since = path.now;
            path.play(since + 1_200);
            assert!(path.mtu.limit() <= width, "{width}: {}", path.mtu.limit());
            path.play(since + 3_000);
            assert!(path.mtu.limit() > width - 16, "{width}: {}", path.mtu.limit());
        }
        path.width = 1_500;
        let since = path.now;
        path.play(since + RAISE_EVERY + 2_000);
        assert_eq!(path.mtu.limit(), 1_500);
    }

    #[test]
    fn a_slow_path_is_measured_as_well() {
        let mut path = Path { delay: 400, ..Path::new(9_000, 1_472) };
        path.play(10_000);
        assert!((1_464..=1_472).contains(&path.mtu.limit()), "{}", path.mtu.limit());
    }

    #[test]
    fn half_of_all_questions_lost_does_not_make_a_path_narrow() {
        let mut path = Path { loss: 2, ..Path::new(1_500, 1_500) };
        path.play(300_000);
        assert_eq!(path.mtu.limit(), 1_500);
    }

    #[test]
    fn a_peer_that_is_silent_altogether_keeps_its_size() {
        let mut path = Path::new(1_500, 1_500);
        path.play(5_000);
        path.width = 0;
        let heard = path.now;
        for now in heard..heard + 20_000 {
            let _ = path.mtu.turn(now, true, Some(heard)).count();
        }
        assert_eq!(path.mtu.limit(), 1_500);
    }

    /// How many of so many paths are tried for more in the same half second, at most, after the first searches.
    fn tried_at_once(paths: u64) -> usize {
        let mut tries = std::collections::BTreeMap::new();
        for phase in 0..paths {
            let mut mtu = PathMtu::new(9_000, 0).in_phase(scramble(0, phase));
            let mut nonce = 0;
            while mtu.due() < 5 * RAISE_EVERY {
                let now = mtu.due();
                for size in mtu.turn(now, false, Some(now)) {
                    nonce += 1;
                    mtu.note_asked(nonce, size, now);
                    if size <= 1_500 {
                        mtu.answer(nonce, now);
                    } else if size == 9_000 && now > 10_000 {
                        *tries.entry(now / CHECK_EVERY).or_insert(0) += 1;
                    }
                }
            }
            assert_eq!(mtu.limit(), 1_500);
        }
        assert!(tries.values().sum::<usize>() as u64 >= 4 * paths, "each once a minute");
        tries.into_values().max().unwrap()
    }

    #[test]
    fn many_paths_are_not_tried_for_more_at_once() {
        let most = tried_at_once(1_000);
        assert!(most < 50, "{most}");
    }

    #[test]
    fn another_interface_is_another_search() {
        let mut path = Path::new(1_500, 9_000);
        path.play(1_000);
        path.mtu.set_most(9_000, path.now);
        assert_eq!(path.mtu.limit(), 1_500, "what was known still arrives");
        path.play(2_000);
        assert_eq!(path.mtu.limit(), 9_000);
        path.mtu.set_most(1_400, path.now);
        assert_eq!(path.mtu.limit(), 1_400);
    }

    proptest! {
        #[test]
        fn every_width_is_found_to_within_a_few_bytes(most in 576u16..=u16::MAX, part in 0u16..=1000, delay in 0u64..90) {
            let width = 576 + ((u64::from(most - 576) * u64::from(part)) / 1000) as u16;
            let mut path = Path { delay, ..Path::new(most, width) };
            path.play(6_000);
            let limit = path.mtu.limit();
            prop_assert!(limit <= width && limit + CLOSE >= width.min(most), "{} of {}", limit, width);
        }
    }
}
