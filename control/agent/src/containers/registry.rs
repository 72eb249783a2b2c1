//! The containers a member has: created, running, and ended ones until they are removed.

use super::streams::{self, FarEnds};
use super::{ContainerConfig, ContainerError, ContainerInfo, ContainerState, ContainerStreams};
use crate::executor::{Process, ProcessExecutor, Terminal, TerminalSize};
use crate::host::HostFacts;
use crate::places::Places;
use crate::sandboxes::Sandboxes;
use crate::tasks::{image_refusal, short_id};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use rand::Rng;
use skep_model::hostname;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Containers of one node, ended ones included: what an operator still looks through.
pub(super) const MAX_CONTAINERS: usize = 512;
/// Hexadecimal, as Docker has it.
pub(super) const ID_DIGITS: usize = 64;
/// The kernel's limit for all of it is 2 MiB; each container's is kept as long as the container.
pub(super) const MAX_COMMAND_BYTES: usize = 1 << 20;
/// A name is a DNS label, RFC 1035 §2.3.4.
const MAX_NAME_BYTES: usize = 63;

#[derive(Clone)]
pub(crate) struct LocalContainers {
    pub(super) sandboxes: Sandboxes,
    pub(super) places: Places,
    pub(super) executor: ProcessExecutor,
    pub(super) facts: watch::Receiver<Arc<HostFacts>>,
    registry: Arc<Mutex<Registry>>,
}

struct Registry {
    containers: BTreeMap<String, Arc<Container>>,
    /// False once the node is no member any more.
    open: bool,
}

pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) config: ContainerConfig,
    created: Timestamp,
    pub(super) state: watch::Sender<ContainerState>,
    pub(super) inside: Mutex<Inside>,
}

/// What changes in the course of a container's life besides its state.
#[derive(Default)]
pub(super) struct Inside {
    pub(super) is_started: bool,
    pub(super) far_ends: Option<FarEnds>,
    pub(super) process: Option<Arc<Process>>,
    /// While somebody is attached to it.
    pub(super) terminal: Weak<Terminal>,
    pub(super) networks: Vec<(String, Ipv4Net)>,
}

impl LocalContainers {
    pub(crate) fn new(
        sandboxes: Sandboxes,
        places: Places,
        executor: ProcessExecutor,
        facts: watch::Receiver<Arc<HostFacts>>,
    ) -> Self {
        let registry = Arc::new(Mutex::new(Registry { containers: BTreeMap::new(), open: true }));
        Self { sandboxes, places, executor, facts, registry }
    }

    pub(super) fn create(&self, config: ContainerConfig) -> Result<String, ContainerError> {
        check(&config)?;
        let id = random_id();
        let name = if config.name.is_empty() { short_id(&id).to_owned() } else { config.name.clone() };
        let mut registry = self.registry();
        if !registry.open {
            return Err(ContainerError::NotAMember);
        }
        if registry.containers.len() >= MAX_CONTAINERS {
            return Err(ContainerError::TooMany);
        }
        if let Some(other) = registry.containers.values().find(|container| container.name == name) {
            return Err(ContainerError::NameTaken { name, id: other.id.clone() });
        }
        let (state, inside) = (watch::Sender::new(ContainerState::Created), Mutex::default());
        let container = Container { id: id.clone(), name, config, created: Timestamp::now(), state, inside };
        registry.containers.insert(id.clone(), Arc::new(container));
        Ok(id)
    }

    /// From here on the container is under way.
    pub(super) fn begin(&self, container: &Container) -> Result<(), ContainerError> {
        // Held meanwhile, so that a container either isn't started or is seen by `close`.
        let registry = self.registry();
        if !registry.open {
            return Err(ContainerError::NotAMember);
        }
        match std::mem::replace(&mut container.inside().is_started, true) {
            true => Err(ContainerError::AlreadyStarted(container.id.clone())),
            false => Ok(()),
        }
    }

    /// By id, name or the first digits of an id.
    pub(super) fn find(&self, reference: &str) -> Result<Arc<Container>, ContainerError> {
        let registry = self.registry();
        let all = &registry.containers;
        let named = || all.values().find(|container| container.name == reference);
        if let Some(container) = all.get(reference).or_else(named) {
            return Ok(container.clone());
        }
        let mut prefixed = all.values().filter(|c| !reference.is_empty() && c.id.starts_with(reference));
        match (prefixed.next(), prefixed.next()) {
            (Some(container), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(ContainerError::Ambiguous(reference.to_owned())),
            (None, _) => Err(ContainerError::NotFound(reference.to_owned())),
        }
    }

    pub(super) async fn remove(&self, container: &Container, force: bool) -> Result<(), ContainerError> {
        if container.is_under_way() {
            if !force {
                return Err(ContainerError::StillRuns(container.id.clone()));
            }
            container.stop(Some(Duration::ZERO)).await;
        }
        self.forget(container);
        Ok(())
    }

    pub(super) fn forget(&self, container: &Container) {
        self.registry().containers.remove(&container.id);
        let (executor, id) = (self.executor.clone(), container.id.clone());
        // Nobody waits for files to be removed.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = executor.remove(&id) {
                tracing::warn!(container = id, %error, "files of a container could not be removed");
            }
        }));
    }

    pub(super) fn list(&self) -> Vec<ContainerInfo> {
        let mut all: Vec<_> = self.registry().containers.values().map(|container| container.info()).collect();
        all.sort_by_key(|info| std::cmp::Reverse(info.created));
        all
    }

    /// The node is no member any more: containers end with it.
    pub(crate) async fn close(&self) {
        let all: Vec<Arc<Container>> = {
            let mut registry = self.registry();
            registry.open = false;
            registry.containers.values().cloned().collect()
        };
        let ends = all.iter().map(|container| async {
            if container.is_under_way() {
                container.stop(Some(Duration::ZERO)).await;
            }
        });
        futures_util::future::join_all(ends).await;
    }

    /// A map is whole after every call.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Container {
    pub(super) fn attach(&self) -> Result<ContainerStreams, ContainerError> {
        let mut inside = self.inside();
        if inside.is_started || inside.far_ends.is_some() {
            return Err(ContainerError::AlreadyAttached(self.id.clone()));
        }
        let (near, far) = streams::pair();
        inside.far_ends = Some(far);
        Ok(near)
    }

    /// Started and not ended.
    pub(super) fn is_under_way(&self) -> bool {
        self.inside().is_started && !matches!(*self.state.borrow(), ContainerState::Exited { .. })
    }

    pub(super) async fn exit_code(&self) -> i32 {
        let mut states = self.state.subscribe();
        loop {
            if let ContainerState::Exited { code, .. } = *states.borrow_and_update() {
                return code;
            }
            // The sender is a field of `self`, so that waiting cannot fail.
            let _ = states.changed().await;
        }
    }

    pub(super) fn signal(&self, signal: i32) -> Result<(), ContainerError> {
        match &self.inside().process {
            Some(process) => process.signal(signal),
            None => return Err(ContainerError::NotRunning(self.id.clone())),
        }
        Ok(())
    }

    pub(super) fn resize(&self, size: TerminalSize) -> Result<(), ContainerError> {
        let (terminal, runs) = {
            let inside = self.inside();
            (inside.terminal.upgrade(), inside.process.is_some())
        };
        match terminal {
            Some(terminal) => {
                terminal.resize(size).map_err(|error| ContainerError::Resize(error.to_string()))
            }
            None if runs => Err(ContainerError::NoTerminal(self.id.clone())),
            None => Err(ContainerError::NotRunning(self.id.clone())),
        }
    }

    /// Within the grace of its config if none is given. No effect on one that doesn't run.
    pub(super) async fn stop(&self, grace: Option<Duration>) {
        if !self.is_under_way() {
            return;
        }
        // One that is only starting is stopped as soon as it runs.
        let mut states = self.state.subscribe();
        let started = states.wait_for(|state| *state != ContainerState::Created).await.is_ok();
        let process = self.inside().process.clone();
        if let Some(process) = process.filter(|_| started) {
            process.stop(self.config.stop_signal, grace.unwrap_or(self.config.stop_grace)).await;
        }
        self.exit_code().await;
    }

    pub(super) fn info(&self) -> ContainerInfo {
        ContainerInfo {
            id: self.id.clone(),
            name: self.name.clone(),
            config: self.config.clone(),
            created: self.created,
            state: self.state.borrow().clone(),
            networks: self.inside().networks.clone(),
        }
    }

    /// No statement that changes it can panic half-way.
    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(config: &ContainerConfig) -> Result<(), ContainerError> {
    if let Some(refusal) = image_refusal(&config.image) {
        return Err(ContainerError::Image(refusal));
    }
    if config.args.first().is_none_or(String::is_empty) {
        return Err(ContainerError::NoCommand);
    }
    if !config.name.is_empty() && !is_valid_name(&config.name) {
        return Err(ContainerError::InvalidName(config.name.clone()));
    }
    if !config.hostname.is_empty() && !hostname::is_valid(&config.hostname) {
        return Err(ContainerError::InvalidHostname(config.hostname.clone()));
    }
    let words = config.args.iter().chain(&config.env);
    let bytes = words.clone().map(|word| word.len() + 1).sum::<usize>();
    match bytes > MAX_COMMAND_BYTES || words.clone().any(|word| word.contains('\0')) {
        true => Err(ContainerError::Command),
        false => Ok(()),
    }
}

/// Docker's rule, and short enough for DNS.
fn is_valid_name(name: &str) -> bool {
    let follows = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(follows)
}

fn random_id() -> String {
    let mut bytes = [0u8; ID_DIGITS / 2];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().fold(String::with_capacity(ID_DIGITS), |mut id, byte| {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ContainerConfig {
        let args = vec!["true".to_owned()];
        ContainerConfig { image: "host".to_owned(), args, ..ContainerConfig::default() }
    }

    #[test]
    fn what_cannot_run_is_refused_before_anything_is_taken() {
        assert!(check(&config()).is_ok());
        let nginx = ContainerConfig { image: "nginx".to_owned(), ..config() };
        assert!(matches!(check(&nginx), Err(ContainerError::Image(_))));
        let nothing = ContainerConfig { args: Vec::new(), ..config() };
        assert!(matches!(check(&nothing), Err(ContainerError::NoCommand)));
        for name in ["-web", "we b", "", "wéb", &"x".repeat(64)] {
            assert!(!is_valid_name(name), "{name}");
        }
        assert!(is_valid_name("web-1_a.b"));
    }

    #[test]
    fn a_hostname_is_one_word_of_the_hosts_file() {
        let named = |hostname: &str| check(&ContainerConfig { hostname: hostname.to_owned(), ..config() });
        assert!(named("front-1.example").is_ok());
        for hostname in skep_hostile::strings().iter().filter(|text| named(text).is_ok() && !text.is_empty())
        {
            let hosts = crate::tasks::hosts_file(hostname, Some("10.0.1.3/24".parse().unwrap()));
            let entries: Vec<_> =
                hosts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
            assert_eq!(entries[2..], [["10.0.1.3", hostname]], "{hostname:?}");
        }
    }

    #[test]
    fn a_command_is_words_of_bounded_length_without_nul() {
        let words = |word: &str| check(&ContainerConfig { env: vec![word.to_owned()], ..config() });
        assert!(words("A=a\nb").is_ok());
        assert!(matches!(words("A=\0"), Err(ContainerError::Command)));
        assert!(matches!(words(&"x".repeat(MAX_COMMAND_BYTES)), Err(ContainerError::Command)));
    }

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let (a, b) = (random_id(), random_id());
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
    }
}
