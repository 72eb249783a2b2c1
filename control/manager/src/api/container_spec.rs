//! What a service's tasks run, checked field by field.

use super::ApiError;
use super::service_spec::labels_too_long;
use skep_model::service::ContainerSpec;

/// Command and environment travel in every assignment of the task; a message holds 16 MiB.
const MAX_COMMAND_BYTES: usize = 64 << 10;
pub(super) const MAX_LABEL_BYTES: usize = 64 << 10;
/// The one image this release runs: a command of the host's own file system.
const IMAGES: [&str; 2] = ["host", "host:latest"];
/// The kernel's HOST_NAME_MAX.
const MAX_HOSTNAME_BYTES: usize = 64;
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
    let labels = container.extra.get("Labels").map_or(0, |labels| labels.to_string().len());
    if labels > MAX_LABEL_BYTES { Err(labels_too_long()) } else { Ok(()) }
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

/// RFC 1123 §2.1, in labels of RFC 1035 §2.3.4.
fn check_hostname(hostname: &str) -> Result<(), ApiError> {
    let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && letters(label) && !label.starts_with('-') && !label.ends_with('-')
    };
    if hostname.is_empty() || hostname.len() <= MAX_HOSTNAME_BYTES && hostname.split('.').all(is_label) {
        return Ok(());
    }
    let rule = format!(
        "invalid hostname: use letters, digits, '-' and '.', {MAX_HOSTNAME_BYTES} characters at most \
         (templates such as {{{{.Node.Hostname}}}} are not filled in by this release)"
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
