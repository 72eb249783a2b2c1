//! [`Window`]: which of the newest counters of a session have come (RFC 6479).

/// Counters that may still come behind the newest: more than any path reorders.
pub(crate) const SIZE: u64 = 8_192;

const BITS: u64 = u64::BITS as u64;
/// Any `SIZE` counters in a row lie in so many words.
const WORDS: u64 = SIZE / BITS + 1;

/// A counter that came before, or is older than the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replay;

pub(crate) struct Window {
    /// One more than the greatest counter that came.
    next: u64,
    /// A bit for each counter, in a ring.
    came: [u64; WORDS as usize],
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { next: 0, came: [0; WORDS as usize] }
    }

    /// Whether a counter may be new. It is marked only when what it came with has proved authentic: until then anybody
    /// may have written it.
    pub(crate) fn check(&self, counter: u64) -> Result<(), Replay> {
        if counter >= self.next {
            return Ok(());
        }
        let is_old = self.next - counter > SIZE;
        if is_old || self.came[word(counter)] & bit(counter) != 0 { Err(Replay) } else { Ok(()) }
    }

    /// Notes a counter that passed [`Self::check`].
    pub(crate) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            let (last, newest) = (self.next.saturating_sub(1) / BITS, counter / BITS);
            for at in 1..=(newest - last).min(WORDS) {
                self.came[((last + at) % WORDS) as usize] = 0;
            }
            self.next = counter.saturating_add(1);
        }
        self.came[word(counter)] |= bit(counter);
    }
}

fn word(counter: u64) -> usize {
    (counter / BITS % WORDS) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The whole history, and the rule in its own words.
    #[derive(Default)]
    struct Model {
        came: BTreeSet<u64>,
    }

    impl Model {
        fn take(&mut self, counter: u64) -> Result<(), Replay> {
            let is_old = self.came.last().is_some_and(|newest| newest.saturating_sub(counter) >= SIZE);
            if is_old || self.came.contains(&counter) {
                return Err(Replay);
            }
            self.came.insert(counter);
            Ok(())
        }
    }

    fn take(window: &mut Window, counter: u64) -> Result<(), Replay> {
        window.check(counter)?;
        window.mark(counter);
        Ok(())
    }

    proptest! {
        #[test]
        fn takes_what_a_full_history_would(
            start in prop_oneof![Just(0), any::<u64>().prop_map(|n| n >> 1), Just(u64::MAX - 3 * SIZE)],
            steps in prop::collection::vec(
                prop_oneof![4 => -200i64..200, 2 => -9_000i64..9_000, 1 => -300_000i64..300_000], 1..400),
        ) {
            let (mut window, mut model) = (Window::new(), Model::default());
            let mut at = start;
            for step in steps {
                // The last one is never sent.
                at = at.saturating_add_signed(step).min(u64::MAX - 1);
                prop_assert_eq!(take(&mut window, at), model.take(at), "counter {}", at);
            }
        }
    }

    #[test]
    fn eight_thousand_may_overtake_one() {
        let mut window = Window::new();
        take(&mut window, 8_000).unwrap();
        for late in (0..8_000).rev() {
            assert_eq!(take(&mut window, late), Ok(()), "{late}");
            assert_eq!(take(&mut window, late), Err(Replay), "{late} again");
        }
        take(&mut window, SIZE + 8_000).unwrap();
        assert_eq!(window.check(8_001), Ok(()));
        assert_eq!(window.check(8_000), Err(Replay));
    }
}
