//! Flags of `service create` about how a task is restarted and stopped, and as whom it runs.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::duration::nanoseconds;

/// Swarm's default restart delay; docker sends it whenever it sends a policy.
const DEFAULT_DELAY: i64 = 5_000_000_000;

#[derive(Args, Debug)]
pub(super) struct RestartArgs {
    /// When a task that ended is replaced (any)
    #[arg(long, value_name = "none|on-failure|any", hide_possible_values = true)]
    restart_condition: Option<Condition>,
    /// How long after a task's end its successor starts (5s)
    #[arg(long, value_parser = nanoseconds, value_name = "DURATION", allow_hyphen_values = true)]
    restart_delay: Option<i64>,
    /// How often a task is replaced before the cluster gives its slot up (0: always)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    restart_max_attempts: Option<u64>,
    /// Within which time the attempts count (0: always)
    #[arg(long, value_parser = nanoseconds, value_name = "DURATION", allow_hyphen_values = true)]
    restart_window: Option<i64>,
}

#[derive(Args, Debug)]
pub(super) struct LifeArgs {
    /// What asks a task to end, by name or number (SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How long a task may take to end before it is killed (10s)
    #[arg(long, value_parser = nanoseconds, value_name = "DURATION", allow_hyphen_values = true)]
    stop_grace_period: Option<i64>,
    /// Host name within the tasks
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Where the command starts
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// Whom the command runs as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Look at no task's health; nothing does
    #[arg(long)]
    no_healthcheck: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Condition {
    None,
    OnFailure,
    Any,
}

impl RestartArgs {
    pub(super) fn are_asked(&self) -> bool {
        let times = [self.restart_delay, self.restart_window];
        self.restart_condition.is_some()
            || self.restart_max_attempts.is_some()
            || times.iter().any(Option::is_some)
    }

    /// The policy with what was asked for; `policy` is null where there is none.
    pub(super) fn lay_over(&self, policy: &Value) -> Value {
        let mut policy = policy.as_object().cloned().unwrap_or_else(|| {
            Map::from_iter([
                ("Condition".to_owned(), json!("any")),
                ("Delay".to_owned(), json!(DEFAULT_DELAY)),
                ("MaxAttempts".to_owned(), json!(0)),
            ])
        });
        let condition = self.restart_condition.map(|condition| match condition {
            Condition::None => "none",
            Condition::OnFailure => "on-failure",
            Condition::Any => "any",
        });
        let asked = [
            ("Condition", condition.map(Value::from)),
            ("Delay", self.restart_delay.map(Value::from)),
            ("MaxAttempts", self.restart_max_attempts.map(Value::from)),
            ("Window", self.restart_window.map(Value::from)),
        ];
        for (field, value) in asked {
            if let Some(value) = value {
                policy.insert(field.into(), value);
            }
        }
        Value::Object(policy)
    }
}

impl LifeArgs {
    pub(super) fn add_to_container(&self, container: &mut Map<String, Value>) {
        let texts = [
            ("Hostname", &self.hostname),
            ("Dir", &self.workdir),
            ("User", &self.user),
            ("StopSignal", &self.stop_signal),
        ];
        for (field, value) in texts {
            if let Some(value) = value {
                container.insert(field.into(), json!(value));
            }
        }
        if let Some(grace) = self.stop_grace_period {
            container.insert("StopGracePeriod".into(), json!(grace));
        }
        if self.no_healthcheck {
            container.insert("Healthcheck".into(), json!({"Test": ["NONE"]}));
        }
    }
}
