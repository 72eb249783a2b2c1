//! Which upstreams were silent lately, so that not every question waits for a dead one. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::view::MAX_UPSTREAMS;

/// How often a silent upstream is asked again. Soon: it may only have been slow about one name.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(2);

/// How many silent upstreams are remembered. A host has [`MAX_UPSTREAMS`] that are asked, others while its resolv.conf
/// changes; beyond it the one longest silent is forgotten, which costs one question a wait.
const SUSPECTS: usize = 2 * MAX_UPSTREAMS + 2;

/// The silent upstreams of all containers: these have the same, the host's. Copied on every change, and read without
/// a lock; changes are as rare as resolvers die.
#[derive(Debug, Default)]
pub(crate) struct Health {
    suspects: ArcSwap<Vec<Suspect>>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    upstream: SocketAddr,
    probe_at: Instant,
}

/// Whom to ask one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Each once, those that answered lately first, in the order of the view; the flag says which were silent.
    pub(crate) order: Vec<(SocketAddr, bool)>,
    /// To be asked besides, so as to learn whether they are back: their answers aren't waited for.
    pub(crate) probes: Vec<SocketAddr>,
}

impl Health {
    pub(crate) fn plan(&self, upstreams: &[SocketAddr], now: Instant) -> Plan {
        let suspects = self.suspects.load();
        let is_suspect = |at: &SocketAddr| suspects.iter().any(|suspect| suspect.upstream == *at);
        let each = upstreams.iter().enumerate().filter(|(i, at)| !upstreams[..*i].contains(at));
        let (silent, sound): (Vec<_>, Vec<_>) = each.map(|(_, at)| *at).partition(is_suspect);
        // Where none is sound, all are asked anyway.
        let probes = if sound.is_empty() || silent.is_empty() { Vec::new() } else { self.due(&silent, now) };
        let order = sound.into_iter().map(|at| (at, false)).chain(silent.into_iter().map(|at| (at, true)));
        Plan { order: order.collect(), probes }
    }

    /// Those whose probe is due; it is the caller's to make and nobody else's.
    fn due(&self, silent: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let mut claimed = Vec::new();
        self.suspects.rcu(|suspects| {
            claimed.clear();
            let mut suspects = Vec::clone(suspects);
            for suspect in suspects.iter_mut().filter(|s| silent.contains(&s.upstream) && s.probe_at <= now) {
                claimed.push(suspect.upstream);
                suspect.probe_at = now + PROBE_EVERY;
            }
            suspects
        });
        claimed
    }

    pub(crate) fn silent(&self, upstream: SocketAddr, now: Instant) {
        self.suspects.rcu(|suspects| {
            let mut suspects = Vec::clone(suspects);
            if !suspects.iter().any(|suspect| suspect.upstream == upstream) {
                if suspects.len() == SUSPECTS {
                    suspects.remove(0);
                }
                suspects.push(Suspect { upstream, probe_at: now + PROBE_EVERY });
            }
            suspects
        });
    }

    /// Whatever it answered: it is there.
    pub(crate) fn answered(&self, upstream: SocketAddr) {
        if self.suspects.load().iter().any(|suspect| suspect.upstream == upstream) {
            self.suspects.rcu(|suspects| {
                suspects.iter().copied().filter(|suspect| suspect.upstream != upstream).collect::<Vec<_>>()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 53))
    }

    #[test]
    fn a_silent_upstream_comes_last_and_is_probed_by_one_question_at_a_time() {
        let (health, start) = (Health::default(), Instant::now());
        let all = [at(1), at(2)];
        assert_eq!(health.plan(&all, start).order, [(at(1), false), (at(2), false)]);
        health.silent(at(1), start);
        let plan = health.plan(&all, start);
        assert_eq!(plan, Plan { order: vec![(at(2), false), (at(1), true)], probes: vec![] });

        let later = start + PROBE_EVERY;
        assert_eq!(health.plan(&all, later).probes, [at(1)]);
        assert_eq!(health.plan(&all, later).probes, [], "one probe is on its way");
        assert_eq!(health.plan(&all, later + PROBE_EVERY).probes, [at(1)]);
        health.answered(at(1));
        assert_eq!(health.plan(&all, later).order, [(at(1), false), (at(2), false)]);
    }

    #[test]
    fn where_all_were_silent_all_are_asked() {
        let (health, start) = (Health::default(), Instant::now());
        health.silent(at(1), start);
        let plan = health.plan(&[at(1)], start + PROBE_EVERY);
        assert_eq!(plan, Plan { order: vec![(at(1), true)], probes: vec![] });
    }

    #[test]
    fn no_more_than_a_few_are_remembered() {
        let (health, now) = (Health::default(), Instant::now());
        for last in 0..=u8::MAX {
            health.silent(at(last), now);
            health.silent(at(last), now);
        }
        assert_eq!(health.suspects.load().len(), SUSPECTS);
        assert!(health.plan(&[at(255)], now).order[0].1, "the latest is");
    }
}
