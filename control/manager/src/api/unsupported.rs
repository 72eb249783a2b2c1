//! Finds what a spec asks for and this release does not do. Clients send many fields that ask for
//! nothing (`Init: false`, `Resources: {}`): these pass, and so do values that say what happens anyway.

use super::ApiError;
use serde_json::{Map, Value, json};
use skep_model::service::ServiceSpec;

pub(super) fn check(spec: &ServiceSpec) -> Result<(), ApiError> {
    for (mode, value) in &spec.mode.extra {
        if !value.is_null() {
            return Err(refuse(&format!("mode {mode}"), "use replicated or global"));
        }
    }
    refuse_extra("", &spec.extra, is_default_update)?;
    let task = &spec.task_template;
    refuse_extra("TaskTemplate.", &task.extra, is_harmless_task_field)?;
    if let Some(placement) = &task.placement {
        // The CLI copies the platforms of the image from its registry.
        refuse_extra("TaskTemplate.Placement.", &placement.extra, |name, _| name == "Platforms")?;
    }
    for config in &task.networks {
        refuse_extra("TaskTemplate.Networks.", &config.extra, |_, _| false)?;
    }
    match &task.container_spec {
        Some(container) => {
            refuse_extra("TaskTemplate.ContainerSpec.", &container.extra, is_harmless_container_field)
        }
        None => Ok(()),
    }
}

fn refuse_extra(
    path: &str,
    fields: &Map<String, Value>,
    harmless: impl Fn(&str, &Value) -> bool,
) -> Result<(), ApiError> {
    let asks = |(name, value): &(&String, &Value)| !asks_nothing(value) && !harmless(name, value);
    match fields.iter().find(asks) {
        Some((name, _)) => Err(refuse(&format!("{path}{name}"), "leave it out")),
        None => Ok(()),
    }
}

fn refuse(what: &str, remedy: &str) -> ApiError {
    ApiError::unimplemented(format!("{what} is not supported in this release: {remedy}"))
}

/// Whether a value is what Go clients send for a field nobody set.
pub(super) fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(asks_nothing),
    }
}

/// Updates replace nothing yet, so that only the settings nobody changed may be stored.
fn is_default_update(name: &str, value: &Value) -> bool {
    let defaults = json!({
        "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64, "Order": "stop-first",
    });
    let is_default =
        |(name, value): (&String, &Value)| asks_nothing(value) || defaults.get(name) == Some(value);
    let update = matches!(name, "UpdateConfig" | "RollbackConfig");
    update && value.as_object().is_some_and(|fields| fields.iter().all(is_default))
}

fn is_harmless_task_field(name: &str, value: &Value) -> bool {
    match name {
        // Read by the orchestrator, which refuses what it does not know.
        "RestartPolicy" => true,
        "Runtime" => value == "container",
        _ => false,
    }
}

fn is_harmless_container_field(name: &str, value: &Value) -> bool {
    match name {
        "Labels" => value.is_object(),
        "Isolation" => value == "default",
        "Healthcheck" => *value == json!({"Test": ["NONE"]}),
        _ => false,
    }
}
