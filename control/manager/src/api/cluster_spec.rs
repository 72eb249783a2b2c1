//! The cluster's spec as clients send and read it. Most of it says what cannot be changed: a client sends
//! back what it read, so that the values in force pass and every other one is refused by name.

use super::unsupported::asks_nothing;
use super::{ApiError, service_spec};
use serde_json::{Map, Value, json};
use skep_model::cluster::{Cluster, ClusterSpec};
use std::collections::BTreeMap;

/// Swarm's name for the only cluster there is.
const NAME: &str = "default";
/// Tasks kept per slot at most: the store has to stay bounded.
const MAX_HISTORY: i64 = 100;

/// What a client may set. None: not given, stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    labels: Option<BTreeMap<String, String>>,
    /// Tasks kept per slot, the current one included.
    history: Option<i64>,
}

/// The values in force where nobody chose others, as Docker names them.
fn defaults() -> Value {
    json!({
        "Name": NAME,
        "Labels": {},
        "Orchestration": { "TaskHistoryRetentionLimit": 5 },
        "Raft": {},
        "Dispatcher": { "HeartbeatPeriod": 5_000_000_000_i64 },
        "CAConfig": { "NodeCertExpiry": 7_776_000_000_000_000_i64 },
        "TaskDefaults": {},
        "EncryptionConfig": { "AutoLockManagers": false },
    })
}

/// The whole spec with the values in force.
pub fn in_force(cluster: &Cluster) -> Value {
    let mut spec = defaults();
    let stored = serde_json::to_value(&cluster.spec).unwrap_or_default();
    for (key, value) in stored.as_object().into_iter().flatten() {
        let empty = value.is_null() || value == "" || value.as_object().is_some_and(Map::is_empty);
        if !empty {
            spec[key.as_str()] = value.clone();
        }
    }
    spec
}

/// Refuses what a new cluster cannot be given.
pub fn check(spec: &ClusterSpec) -> Result<(), ApiError> {
    read(spec).map(drop)
}

pub(crate) fn read(spec: &ClusterSpec) -> Result<Settings, ApiError> {
    if !matches!(spec.name.as_str(), "" | NAME) {
        return Err(ApiError::invalid("modification of cluster name is not allowed"));
    }
    let mut settings = Settings::default();
    let fixed = defaults();
    for (name, value) in &spec.extra {
        match name.as_str() {
            "Labels" => settings.labels = labels(value)?,
            "Orchestration" => settings.history = history(value)?,
            _ => check_fixed(name, value, fixed.get(name))?,
        }
    }
    Ok(settings)
}

fn labels(value: &Value) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    let labels: Option<BTreeMap<String, String>> = serde_json::from_value(value.clone())
        .map_err(|_not_a_map| ApiError::invalid("Labels has to be an object of texts"))?;
    labels.iter().try_for_each(service_spec::check_labels)?;
    Ok(labels)
}

fn history(value: &Value) -> Result<Option<i64>, ApiError> {
    if !value.is_object() && !value.is_null() {
        return Err(ApiError::invalid("Orchestration has to be an object"));
    }
    let fields = value.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| name.as_str() != "TaskHistoryRetentionLimit") {
        check_fixed(&format!("Orchestration.{name}"), value, None)?;
    }
    match value.get("TaskHistoryRetentionLimit").unwrap_or(&Value::Null) {
        Value::Null => Ok(None),
        limit => match limit.as_i64().filter(|limit| (0..=MAX_HISTORY).contains(limit)) {
            Some(limit) => Ok(Some(limit)),
            None => Err(ApiError::invalid(format!(
                "TaskHistoryRetentionLimit is {limit}: it has to be a number from 0 to {MAX_HISTORY}"
            ))),
        },
    }
}

/// Refuses a value other than the one in force.
fn check_fixed(path: &str, value: &Value, fixed: Option<&Value>) -> Result<(), ApiError> {
    match value {
        value if asks_nothing(value) || Some(value) == fixed => Ok(()),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            check_fixed(&format!("{path}.{name}"), value, fixed.and_then(|fixed| fixed.get(name)))
        }),
        value => Err(ApiError::unimplemented(format!(
            "{path} cannot be {value} in this release: leave it out or as it is"
        ))),
    }
}

impl Settings {
    pub(super) fn lay_over(&self, spec: &mut ClusterSpec) {
        if let Some(labels) = &self.labels {
            spec.extra.insert("Labels".to_owned(), json!(labels));
        }
        if let Some(limit) = self.history {
            let orchestration = json!({ "TaskHistoryRetentionLimit": limit });
            spec.extra.insert("Orchestration".to_owned(), orchestration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(spec: Value) -> Result<Settings, String> {
        let spec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
        read(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_read_may_be_sent_back() {
        let mut read = defaults();
        assert_eq!(settings(read.clone()).unwrap().history, Some(5));
        read["Raft"] = json!({"ElectionTick": 0, "HeartbeatTick": 0});
        read["Labels"] = Value::Null;
        read["Orchestration"] = json!({});
        assert_eq!(settings(read), Ok(Settings::default()));
    }

    #[test]
    fn what_cannot_be_changed_is_refused_by_name() {
        for (spec, says) in [
            (json!({"Name": "other"}), "modification of cluster name is not allowed"),
            (json!({"Raft": {"SnapshotInterval": 5}}), "Raft.SnapshotInterval cannot be 5 in this release"),
            (json!({"Dispatcher": {"HeartbeatPeriod": 1}}), "Dispatcher.HeartbeatPeriod cannot be 1"),
            (json!({"CAConfig": {"ForceRotate": 1}}), "CAConfig.ForceRotate cannot be 1"),
            (
                json!({"EncryptionConfig": {"AutoLockManagers": true}}),
                "EncryptionConfig.AutoLockManagers cannot",
            ),
            (
                json!({"Orchestration": {"TaskHistoryRetentionLimit": 101}}),
                "TaskHistoryRetentionLimit is 101: it has",
            ),
            (
                json!({"Orchestration": {"TaskHistoryRetentionLimit": -1}}),
                "TaskHistoryRetentionLimit is -1: it has",
            ),
            (
                json!({"Orchestration": {"TaskHistoryRetentionLimit": "x"}}),
                "TaskHistoryRetentionLimit is \"x\"",
            ),
            (json!({"Labels": [1]}), "Labels has to be an object"),
            (json!({"Labels": {"a": "x".repeat(70_000)}}), "labels are longer than"),
            (json!({"Orchestration": 5}), "Orchestration has to be an object"),
            (json!({"Raft": "x"}), "Raft cannot be \"x\""),
            (json!({"Unheard": [1]}), "Unheard cannot be [1]"),
        ] {
            let refusal = settings(spec.clone()).unwrap_err();
            assert!(refusal.contains(says), "{spec}: {refusal}");
        }
    }
}
