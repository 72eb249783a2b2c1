//! [`Freshness`]: how an initiation shows that it is no recording, without clocks and without a memory that outlives the
//! process.
//!
//! Each node gives each peer a *token*, and answers an initiation only if it repeats the newest one. A restarted node has
//! neither tokens nor memory, so that nothing recorded before is of use against it; it learns its peer's token from the
//! peer's own initiation, which it does not answer but takes as the reason to make one. Only a node without any token of
//! the peer learns one that way: recordings cannot unsettle nodes that know each other.

use super::entropy::Entropy;
use crate::verdict::DropReason;
use crate::wire::sealed::handshake::{PAYLOAD_1_LEN, PAYLOAD_2_LEN};

/// What an initiation says under its seal. Zero stands for no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Which of its sender's lives it is of, as far as its receiver is concerned: random.
    pub(crate) life: u64,
    /// Milliseconds since that start. Rises with every initiation to the same peer.
    pub(crate) time: u64,
    /// What the receiver has to repeat in its own initiations.
    pub(crate) token: u64,
    /// The receiver's token, as far as the sender knows.
    pub(crate) repeated: u64,
}

impl Claim {
    pub(crate) fn to_bytes(self) -> [u8; PAYLOAD_1_LEN] {
        let mut bytes = [0; PAYLOAD_1_LEN];
        let words = [self.life, self.time, self.token, self.repeated];
        for (place, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; PAYLOAD_1_LEN]) -> Self {
        let word = |at: usize| {
            let mut word = [0; size_of::<u64>()];
            word.copy_from_slice(&bytes[at..at + size_of::<u64>()]);
            u64::from_be_bytes(word)
        };
        Self { life: word(0), time: word(8), token: word(16), repeated: word(24) }
    }
}

/// What is known of one peer's tokens, and given to it.
pub(crate) struct Freshness {
    /// What the peer has to repeat.
    ours: u64,
    /// What it had to before: its next initiation may still, if our response was lost.
    ours_before: u64,
    theirs: u64,
    /// A response or an accepted initiation brought it, so it was the peer's newest.
    is_confirmed: bool,
    /// Which of the peer's lives it is in, as far as it has shown.
    their_life: Option<u64>,
    /// Life and time of the newest initiation that was accepted.
    accepted: Option<(u64, u64)>,
    /// Of our own newest initiation.
    last_time: u64,
}

/// What an authentic initiation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// New: to be answered. `is_restarted`: the peer has forgotten what it knew, our token included.
    Fresh { is_restarted: bool },
    /// Not to be answered, but its sender's token was learned: an initiation of our own is worth making.
    Introduced,
    /// Not to be answered.
    Stale(DropReason),
}

impl Freshness {
    pub(crate) fn new(entropy: &mut Entropy) -> Self {
        Self {
            ours: entropy.nonzero_u64(),
            ours_before: 0,
            theirs: 0,
            is_confirmed: false,
            their_life: None,
            accepted: None,
            last_time: 0,
        }
    }

    /// For an initiation of ours.
    pub(crate) fn claim(&mut self, life: u64, now: u64) -> Claim {
        self.last_time = now.max(self.last_time + 1);
        Claim { life, time: self.last_time, token: self.ours, repeated: self.theirs }
    }

    pub(crate) fn judge(&mut self, claim: &Claim, entropy: &mut Entropy) -> Verdict {
        let continues = self.accepted.is_some_and(|(life, _)| life == claim.life);
        let is_newer = self.accepted.is_none_or(|(life, time)| life != claim.life || claim.time > time);
        if !is_newer {
            return Verdict::Stale(DropReason::HandshakeReplayed);
        }
        let is_newest = claim.repeated == self.ours;
        let is_second_try = continues && claim.repeated != 0 && claim.repeated == self.ours_before;
        if is_newest || is_second_try {
            let is_restarted = self.their_life.is_some_and(|life| life != claim.life);
            self.accept(claim, is_newest, entropy);
            return Verdict::Fresh { is_restarted };
        }
        if self.is_confirmed || claim.token == 0 {
            return Verdict::Stale(DropReason::HandshakeStale);
        }
        self.theirs = claim.token;
        Verdict::Introduced
    }

    fn accept(&mut self, claim: &Claim, is_newest: bool, entropy: &mut Entropy) {
        self.accepted = Some((claim.life, claim.time));
        self.their_life = Some(claim.life);
        self.theirs = claim.token;
        self.is_confirmed = true;
        if is_newest {
            (self.ours_before, self.ours) = (self.ours, entropy.nonzero_u64());
        }
    }

    /// What our response says: the token to repeat next time, and which of our lives this is.
    pub(crate) fn response(&self, life: u64) -> [u8; PAYLOAD_2_LEN] {
        let mut bytes = [0; PAYLOAD_2_LEN];
        bytes[..size_of::<u64>()].copy_from_slice(&self.ours.to_be_bytes());
        bytes[size_of::<u64>()..].copy_from_slice(&life.to_be_bytes());
        bytes
    }

    /// There is no session any more: whatever went wrong, a token may be learned again.
    pub(crate) fn doubt(&mut self) {
        self.is_confirmed = false;
    }

    /// The peer answered.
    pub(crate) fn answered(&mut self, payload: [u8; PAYLOAD_2_LEN]) {
        let (words, _) = payload.as_chunks::<{ size_of::<u64>() }>();
        let [token, life] = [0, 1].map(|at| u64::from_be_bytes(words[at]));
        self.theirs = token;
        self.their_life = Some(life);
        self.is_confirmed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    /// One side of a pair.
    struct Side {
        life: u64,
        now: u64,
        entropy: Entropy,
        fresh: Freshness,
    }

    impl Side {
        fn new(life: u8) -> Self {
            let mut entropy = Entropy::new(&Zeroizing::new([life; 32]));
            let fresh = Freshness::new(&mut entropy);
            Self { life: u64::from(life), now: 0, entropy, fresh }
        }

        fn initiate(&mut self) -> Claim {
            self.now += 250;
            self.fresh.claim(self.life, self.now)
        }

        fn response(&self) -> [u8; PAYLOAD_2_LEN] {
            self.fresh.response(self.life)
        }

        fn is_fresh(&mut self, claim: Claim) -> bool {
            matches!(self.judge(claim), Verdict::Fresh { .. })
        }

        fn judge(&mut self, claim: Claim) -> Verdict {
            self.fresh.judge(&claim, &mut self.entropy)
        }
    }

    const FRESH: Verdict = Verdict::Fresh { is_restarted: false };
    const REPLAYED: Verdict = Verdict::Stale(DropReason::HandshakeReplayed);
    const STALE: Verdict = Verdict::Stale(DropReason::HandshakeStale);

    /// Everything either ever sent.
    fn meet(a: &mut Side, b: &mut Side) -> Vec<Claim> {
        let first = a.initiate();
        assert_eq!(b.judge(first), Verdict::Introduced);
        let second = b.initiate();
        assert_eq!(a.judge(second), FRESH);
        b.fresh.answered(a.response());
        vec![first, second]
    }

    #[test]
    fn strangers_need_one_message_more_and_friends_none() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        meet(&mut a, &mut b);
        for _ in 0..3 {
            let claim = a.initiate();
            assert_eq!(b.judge(claim), FRESH);
            a.fresh.answered(b.response());
            let claim = b.initiate();
            assert_eq!(a.judge(claim), FRESH);
            b.fresh.answered(a.response());
        }
    }

    #[test]
    fn a_lost_response_is_made_up_for_by_the_next_try() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        meet(&mut a, &mut b);
        for _ in 0..3 {
            let lost = a.initiate();
            assert_eq!(b.judge(lost), FRESH);
            assert_eq!(b.judge(lost), REPLAYED);
        }
        let claim = a.initiate();
        assert_eq!(b.judge(claim), FRESH);
        a.fresh.answered(b.response());
        let claim = a.initiate();
        assert_eq!(b.judge(claim), FRESH);
    }

    #[test]
    fn recordings_of_any_life_are_never_answered() {
        let mut sides = [Side::new(1), Side::new(2)];
        let mut recorded: Vec<(usize, Claim)> = Vec::new();
        for life in 3..20u8 {
            let [a, b] = &mut sides;
            for (from, claim) in meet_again(a, b) {
                recorded.push((1 - from, claim));
            }
            for (receiver, claim) in &recorded {
                assert!(!sides[*receiver].is_fresh(*claim), "life {life}");
            }
            sides[usize::from(life % 2)] = Side::new(life);
            for (receiver, claim) in &recorded {
                assert!(!sides[*receiver].is_fresh(*claim), "after the restart of {life}");
            }
        }
    }

    /// Both try until one is answered, in whatever state they are.
    fn meet_again(a: &mut Side, b: &mut Side) -> Vec<(usize, Claim)> {
        let mut sent = Vec::new();
        for _ in 0..8 {
            let claim = a.initiate();
            sent.push((0, claim));
            if b.is_fresh(claim) {
                a.fresh.answered(b.response());
                return sent;
            }
            let claim = b.initiate();
            sent.push((1, claim));
            if a.is_fresh(claim) {
                b.fresh.answered(a.response());
                return sent;
            }
        }
        panic!("they never met: {sent:?}");
    }

    #[test]
    fn whoever_forgot_or_restarted_is_met_again() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        meet(&mut a, &mut b);
        a = Side::new(3);
        meet_again(&mut a, &mut b);
        b = Side::new(4);
        meet_again(&mut a, &mut b);
        (a, b) = (Side::new(5), Side::new(6));
        meet_again(&mut a, &mut b);
    }

    #[test]
    fn recordings_do_not_unsettle_those_who_know_each_other() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        let recorded = meet(&mut a, &mut b);
        b = Side::new(3);
        let later = meet_again(&mut a, &mut b);
        for claim in recorded.iter().chain(later.iter().map(|(_, claim)| claim)) {
            assert!(matches!(a.judge(*claim), Verdict::Stale(_)));
            assert!(matches!(b.judge(*claim), Verdict::Stale(_)));
        }
        let claim = a.initiate();
        assert_eq!(b.judge(claim), FRESH);
        assert_eq!(b.judge(Claim { repeated: 0, time: u64::MAX, ..claim }), STALE);
    }
}
