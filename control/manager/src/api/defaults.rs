//! What a service spec means where it says nothing, in Swarm's values.

use serde_json::{Value, json};

/// Fills in what `insertDefaults` asks for.
pub fn insert(spec: &mut Value) {
    let update = json!({
        "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0,
        "Order": "stop-first",
    });
    lay_under(
        spec,
        json!({
            "UpdateConfig": update,
            "RollbackConfig": update,
            "TaskTemplate": {
                "RestartPolicy": { "Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0 },
                "ContainerSpec": { "StopGracePeriod": 10_000_000_000_i64, "DNSConfig": {} },
            },
        }),
    );
}

/// Sets what `value` leaves out.
fn lay_under(value: &mut Value, default: Value) {
    match (value, default) {
        (Value::Object(fields), Value::Object(defaults)) => {
            for (name, default) in defaults {
                lay_under(fields.entry(name).or_insert(Value::Null), default);
            }
        }
        (value, default) if value.is_null() => *value = default,
        _ => {}
    }
}
