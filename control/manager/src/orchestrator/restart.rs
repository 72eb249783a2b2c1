//! What follows when a task ends by itself.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use skep_model::service::TaskSpec;
use skep_model::task::{Task, TaskState};

/// Of a [`TaskSpec`], whose other fields it travels among.
pub(crate) const FIELD: &str = "RestartPolicy";
/// Swarm's default restart delay.
const DEFAULT_DELAY: SignedDuration = SignedDuration::from_secs(5);
/// The delay counts from the node's own report of the end. A node's clock may be wrong: more than this
/// is never taken off the delay, so that a failing task cannot be restarted in a tight loop.
const MAX_REPORT_LAG: SignedDuration = SignedDuration::from_secs(1);
/// Attempts are counted in the tasks kept as history, which must stay bounded.
pub(crate) const MAX_ATTEMPTS: u64 = 100;
/// A place starts one task in this time at most, whatever its delay: what fails as soon as it starts would
/// otherwise keep managers and node busy with nothing else.
const MIN_PERIOD: SignedDuration = SignedDuration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestartPolicy {
    condition: Condition,
    delay: SignedDuration,
    /// 0: without limit.
    max_attempts: u64,
    /// Attempts count only if they ended within this long before the last one; zero: all count.
    window: SignedDuration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Condition {
    #[default]
    #[serde(alias = "")]
    Any,
    OnFailure,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("invalid RestartPolicy: {0}")]
    Malformed(String),
    #[error("invalid RestartPolicy: {0} must not be negative")]
    Negative(&'static str),
    #[error("invalid RestartPolicy: MaxAttempts must be {MAX_ATTEMPTS} or fewer, or 0 for no limit")]
    TooManyAttempts,
}

/// Docker's shape; durations in nanoseconds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct Wire {
    condition: Option<Condition>,
    delay: Option<i64>,
    max_attempts: Option<u64>,
    window: Option<i64>,
}

impl RestartPolicy {
    pub(crate) fn of(spec: &TaskSpec) -> Result<Self, PolicyError> {
        let wire = spec.extra.get(FIELD).cloned().unwrap_or_default();
        let wire: Option<Wire> =
            serde_json::from_value(wire).map_err(|error| PolicyError::Malformed(error.to_string()))?;
        let wire = wire.unwrap_or_default();
        let max_attempts = wire.max_attempts.unwrap_or(0);
        if max_attempts > MAX_ATTEMPTS {
            return Err(PolicyError::TooManyAttempts);
        }
        Ok(Self {
            condition: wire.condition.unwrap_or_default(),
            delay: duration("Delay", wire.delay)?.unwrap_or(DEFAULT_DELAY),
            max_attempts,
            window: duration("Window", wire.window)?.unwrap_or_default(),
        })
    }

    /// The API refuses what cannot be read, so that the default stands in only for damaged objects.
    fn of_or_default(spec: &TaskSpec) -> Self {
        let default = Self {
            condition: Condition::Any,
            delay: DEFAULT_DELAY,
            max_attempts: 0,
            window: SignedDuration::ZERO,
        };
        Self::of(spec).unwrap_or(default)
    }

    fn allows(&self, place: &[&Task], ended: &Task) -> bool {
        match self.condition {
            Condition::None => false,
            Condition::OnFailure if ended.status.state == TaskState::Complete => false,
            Condition::OnFailure | Condition::Any => {
                self.max_attempts == 0 || self.attempts(place, ended) <= self.max_attempts
            }
        }
    }

    /// How many tasks of the place ended by themselves, up to and with `ended`.
    fn attempts(&self, place: &[&Task], ended: &Task) -> u64 {
        let end = ended.status.timestamp;
        let counts = |task: &&&Task| {
            let age = end.duration_since(task.status.timestamp);
            // Attempts at what an update has replaced say nothing about what replaced it.
            let same = task.spec == ended.spec;
            ended_by_itself(task) && same && (self.window.is_zero() || age <= self.window)
        };
        place.iter().filter(counts).count() as u64
    }
}

fn duration(name: &'static str, nanos: Option<i64>) -> Result<Option<SignedDuration>, PolicyError> {
    match nanos {
        Some(nanos) if nanos < 0 => Err(PolicyError::Negative(name)),
        nanos => Ok(nanos.map(SignedDuration::from_nanos)),
    }
}

fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Tasks a place keeps so that attempts can be counted.
pub(crate) fn history_needed(spec: &TaskSpec) -> usize {
    match RestartPolicy::of_or_default(spec).max_attempts {
        0 => 0,
        attempts => usize::try_from(attempts).unwrap_or(0) + 1,
    }
}

/// When the successor of `ended` may start; None: there is none. `place` are the tasks of its slot or node.
pub(crate) fn successor(spec: &TaskSpec, place: &[&Task], ended: &Task, now: Timestamp) -> Option<Timestamp> {
    let policy = RestartPolicy::of_or_default(spec);
    if !policy.allows(place, ended) {
        return None;
    }
    let earliest = now.checked_sub(MAX_REPORT_LAG).unwrap_or(now);
    let end = ended.status.timestamp.clamp(earliest, now);
    let delayed = end.checked_add(policy.delay).unwrap_or(Timestamp::MAX);
    let started = ended.meta.created_at.max(ended.not_before.unwrap_or(Timestamp::MIN));
    let paced = started.checked_add(MIN_PERIOD).unwrap_or(Timestamp::MAX);
    Some(delayed.max(paced))
}

/// The latest moment a wait that has begun by `now` ends.
pub(crate) fn delayed(spec: &TaskSpec, now: Timestamp) -> Timestamp {
    now.checked_add(RestartPolicy::of_or_default(spec).delay.max(MIN_PERIOD)).unwrap_or(Timestamp::MAX)
}

/// Whether a slot or node, whose tasks are `place` (oldest first), is served or done for good.
pub(crate) fn is_filled(spec: &TaskSpec, place: &[&Task]) -> bool {
    let finished =
        |last: &Task| ended_by_itself(last) && !RestartPolicy::of_or_default(spec).allows(place, last);
    place.iter().any(|task| task.is_wanted()) || place.last().is_some_and(|last| finished(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(policy: Value) -> TaskSpec {
        let mut spec = TaskSpec::default();
        spec.extra.insert("RestartPolicy".to_owned(), policy);
        spec
    }

    #[test]
    fn what_clients_send_is_understood() {
        let default = RestartPolicy::of(&TaskSpec::default()).unwrap();
        assert_eq!(
            (default.condition, default.delay, default.max_attempts),
            (Condition::Any, DEFAULT_DELAY, 0)
        );
        for same in [Value::Null, json!({}), json!({"Condition": "any", "Delay": 5_000_000_000_i64})] {
            assert_eq!(RestartPolicy::of(&spec(same)).unwrap(), default);
        }
        let policy =
            json!({"Condition": "on-failure", "Delay": 0, "MaxAttempts": 3, "Window": 60_000_000_000_i64});
        let policy = RestartPolicy::of(&spec(policy)).unwrap();
        assert_eq!(policy.condition, Condition::OnFailure);
        assert_eq!((policy.delay.as_secs(), policy.max_attempts, policy.window.as_secs()), (0, 3, 60));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refusal = |policy| RestartPolicy::of(&spec(policy)).unwrap_err().to_string();
        assert!(refusal(json!({"Condition": "sometimes"})).contains("unknown variant `sometimes`"));
        assert_eq!(refusal(json!({"Delay": -1})), "invalid RestartPolicy: Delay must not be negative");
        assert!(refusal(json!({"MaxAttempts": 101})).contains("100 or fewer"));
        assert!(refusal(json!({"Jitter": 1})).contains("unknown field `Jitter`"));
    }
}
