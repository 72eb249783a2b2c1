//! What a service's tasks run, checked field by field.

use super::ApiError;
use super::service_spec::labels_too_long;
use serde_json::Value;
use skep_model::hostname;
use skep_model::service::ContainerSpec;

/// Command and environment travel in every assignment of the task; a message holds 16 MiB.
const MAX_COMMAND_BYTES: usize = 64 << 10;
pub(super) const MAX_LABEL_BYTES: usize = 64 << 10;
/// The one image this release runs: a command of the host's own file system.
const IMAGES: [&str; 2] = ["host", "host:latest"];
/// The kernel's PATH_MAX.
const MAX_DIR_BYTES: usize = 4096;
/// useradd(8) stops at 256 for each of user and group.
const MAX_USER_BYTES: usize = 513;

pub(super) fn check(container: &ContainerSpec) -> Result<(), ApiError> {
    check_image(&container.image)?;
    check_command(container)?;
    check_hostname(&container.hostname)?;
    check_dir(&container.dir)?;
    check_user(&container.user)?;
    check_stop(container)?;
    check_labels(container.extra.get("Labels"))
}

fn check_labels(labels: Option<&Value>) -> Result<(), ApiError> {
    let Some(Value::Object(labels)) = labels else { return Ok(()) };
    if let Some((name, _)) = labels.iter().find(|(_, value)| !value.is_string()) {
        return Err(refuse(&format!("the value of label {name} has to be a text")));
    }
    let bytes = labels.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len));
    if bytes.sum::<usize>() > MAX_LABEL_BYTES { Err(labels_too_long()) } else { Ok(()) }
}

fn refuse(why: &str) -> ApiError {
    ApiError::invalid(format!("ContainerSpec: {why}"))
}

fn check_image(image: &str) -> Result<(), ApiError> {
    if image.is_empty() {
        return Err(refuse("image reference must be provided"));
    }
    match IMAGES.contains(&image) {
        true => Ok(()),
        false => Err(ApiError::invalid(format!(
            "image {image} is not available: this release runs commands of the host, as image \"host\""
        ))),
    }
}

fn check_command(container: &ContainerSpec) -> Result<(), ApiError> {
    let command: Vec<&String> = container.command.iter().chain(&container.args).collect();
    if command.first().is_none_or(|program| program.is_empty()) {
        return Err(refuse("image \"host\" has no command of its own: say what to run"));
    }
    let has_name = |entry: &&String| entry.split('=').next().is_some_and(|name| !name.is_empty());
    if let Some(entry) = container.env.iter().find(|entry| !has_name(entry)) {
        return Err(ApiError::invalid(format!("invalid environment variable: {entry}")));
    }
    let words = command.into_iter().chain(&container.env);
    if words.clone().any(|word| word.contains('\0')) {
        return Err(refuse("command and environment must not contain NUL bytes"));
    }
    if words.map(|word| word.len() + 1).sum::<usize>() > MAX_COMMAND_BYTES {
        return Err(refuse(&format!("command and environment are longer than {MAX_COMMAND_BYTES} bytes")));
    }
    Ok(())
}

fn check_hostname(text: &str) -> Result<(), ApiError> {
    if text.is_empty() || hostname::is_valid(text) {
        return Ok(());
    }
    let rule = format!(
        "invalid hostname: use letters, digits, '-' and '.', {} characters at most \
         (templates such as {{{{.Node.Hostname}}}} are not filled in by this release)",
        hostname::MAX_BYTES
    );
    Err(refuse(&rule))
}

fn check_dir(dir: &str) -> Result<(), ApiError> {
    let is_path = dir.starts_with('/') && dir.len() < MAX_DIR_BYTES && !dir.contains('\0');
    match dir.is_empty() || is_path {
        true => Ok(()),
        false => Err(refuse("invalid working directory: name an absolute path, such as /srv")),
    }
}

fn check_user(user: &str) -> Result<(), ApiError> {
    let is_name = |name: &str| {
        !name.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace() || "/:".contains(c))
    };
    let (name, group) = user.split_once(':').unwrap_or((user, "0"));
    let is_user = is_name(name) && is_name(group) && user.len() <= MAX_USER_BYTES;
    match user.is_empty() || is_user {
        true => Ok(()),
        false => Err(refuse("invalid user: write USER or USER:GROUP, each by name or number")),
    }
}

fn check_stop(container: &ContainerSpec) -> Result<(), ApiError> {
    container.stop_signal().map_err(|error| refuse(&error.to_string()))?;
    match container.stop_grace_period {
        Some(nanos) if nanos < 0 => Err(refuse("StopGracePeriod must not be negative")),
        _ => Ok(()),
    }
}
