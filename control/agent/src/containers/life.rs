//! A container from its start to its end.

use super::registry::{Container, LocalContainers};
use super::{ContainerError, ContainerNetwork, ContainerState};
use crate::executor::{Process, ProcessIo, ProcessSpec, StartError};
use crate::explain::explain;
use crate::host::{Sandbox, SandboxNetns};
use crate::places::PlaceRequest;
use crate::project::{Place, Sandboxing};
use crate::sandboxes::SandboxRequest;
use crate::tasks::{hosts_file, resolv_conf, short_id};
use jiff::Timestamp;
use skep_model::TaskId;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

/// Docker's exit codes for a container that did not start.
const NOT_STARTED: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NO_COMMAND: i32 = 127;

/// What a container has while it runs.
struct Equipment {
    sandbox: Sandbox,
    places: Vec<TaskId>,
}

/// Why it did not start, and Docker's code for that.
struct NotStarted {
    code: i32,
    why: String,
}

impl From<String> for NotStarted {
    fn from(why: String) -> Self {
        Self { code: NOT_STARTED, why }
    }
}

impl LocalContainers {
    /// Returns when the command runs, or with the reason why it doesn't.
    pub(super) async fn start(&self, container: Arc<Container>) -> Result<(), ContainerError> {
        self.begin(&container)?;
        match self.bring_up(&container).await {
            Ok(equipment) => {
                let this = self.clone();
                tokio::spawn(async move { this.see_through(&container, equipment).await });
                Ok(())
            }
            Err(NotStarted { code, why }) => {
                self.ended(&container, code, why.clone());
                Err(ContainerError::Start(why))
            }
        }
    }

    async fn bring_up(&self, container: &Container) -> Result<Equipment, NotStarted> {
        let mut places = Vec::new();
        for network in &container.config.networks {
            match self.take_place(container, network).await {
                Ok(place) => places.push(place),
                Err(why) => {
                    self.give_back(places.into_iter().map(|place| place.task).collect()).await;
                    return Err(why.into());
                }
            }
        }
        let tasks: Vec<TaskId> = places.iter().map(|place| place.task.clone()).collect();
        let networks = places.iter().map(|place| (place.network.name.clone(), place.addr)).collect();
        container.inside().networks = networks;
        match self.bring_up_in(container, places).await {
            Ok(sandbox) => Ok(Equipment { sandbox, places: tasks }),
            Err(not_started) => {
                self.give_back(tasks).await;
                Err(not_started)
            }
        }
    }

    async fn take_place(&self, container: &Container, network: &ContainerNetwork) -> Result<Place, String> {
        let wanted = PlaceRequest {
            network: &network.network,
            name: &container.config.name,
            addr: network.addr,
            container: &container.id,
        };
        self.places.take(wanted).await
    }

    async fn bring_up_in(&self, container: &Container, places: Vec<Place>) -> Result<Sandbox, NotStarted> {
        let first = places.first().map(|place| place.addr);
        let request = SandboxRequest {
            id: container.id.clone(),
            netns: SandboxNetns::New,
            sandboxing: Sandboxing::of(places),
            resolver: container.id.clone(),
            new_resolver: true,
        };
        let sandbox = self.sandboxes.create(request).await.map_err(|error| explain(&error))?;
        match self.launch(container, &sandbox, first).await {
            Ok(process) => {
                let (pid, started) = (process.pid(), Timestamp::now());
                container.inside().process = Some(Arc::new(process));
                container.state.send_replace(ContainerState::Running { pid, started });
                Ok(sandbox)
            }
            Err(not_started) => {
                self.sandboxes.remove(sandbox).await;
                Err(not_started)
            }
        }
    }

    async fn launch(
        &self,
        container: &Container,
        sandbox: &Sandbox,
        first: Option<ipnet::Ipv4Net>,
    ) -> Result<Process, NotStarted> {
        let netns = sandbox.netns.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
        let hostname = match container.config.hostname.as_str() {
            "" => short_id(&container.id).to_owned(),
            hostname => hostname.to_owned(),
        };
        let far_ends = container.inside().far_ends.take();
        let spec = ProcessSpec {
            id: container.id.clone(),
            netns,
            args: container.config.args.clone(),
            env: container.config.env.clone(),
            resolv_conf: resolv_conf(&self.facts.borrow()),
            hosts: hosts_file(&hostname, first),
            hostname,
            dir: container.config.dir.clone(),
            user: container.config.user.clone(),
            terminal: container.config.terminal,
            io: if far_ends.is_some() { ProcessIo::Attached } else { ProcessIo::Log },
        };
        let mut process = self.executor.start(spec).await.map_err(|error| not_started(&error))?;
        if let (Some(far), Some(streams)) = (far_ends, process.take_streams()) {
            container.inside().terminal = far.connect(streams);
        }
        Ok(process)
    }

    /// Until it has ended and everything it had was given back.
    async fn see_through(&self, container: &Container, equipment: Equipment) {
        let process = container.inside().process.clone();
        let code = match process {
            Some(process) => process.wait().await.code,
            None => NOT_STARTED,
        };
        self.sandboxes.remove(equipment.sandbox).await;
        self.give_back(equipment.places).await;
        self.ended(container, code, String::new());
    }

    async fn give_back(&self, places: Vec<TaskId>) {
        for task in places {
            self.places.give_back(task).await;
        }
    }

    fn ended(&self, container: &Container, code: i32, error: String) {
        {
            let mut inside = container.inside();
            inside.process = None;
            inside.terminal = Weak::new();
            inside.far_ends = None;
            inside.networks.clear();
        }
        if container.config.auto_remove {
            self.forget(container);
        }
        let started = match *container.state.borrow() {
            ContainerState::Running { started, .. } => Some(started),
            ContainerState::Created | ContainerState::Exited { .. } => None,
        };
        let finished = Timestamp::now();
        container.state.send_replace(ContainerState::Exited { code, started, finished, error });
    }
}

fn not_started(error: &StartError) -> NotStarted {
    // Docker's words: its clients find their exit code in them.
    match error {
        StartError::NoSuchCommand(command) if command.contains('/') => {
            NotStarted { code: NO_COMMAND, why: format!("exec: \"{command}\": no such file or directory") }
        }
        StartError::NoSuchCommand(command) => {
            let why = format!("exec: \"{command}\": executable file not found in $PATH");
            NotStarted { code: NO_COMMAND, why }
        }
        StartError::NotExecutable { command, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            NotStarted { code: NOT_EXECUTABLE, why: format!("exec: \"{command}\": permission denied") }
        }
        StartError::NotExecutable { .. } => NotStarted { code: NOT_EXECUTABLE, why: explain(error) },
        _ => NotStarted { code: NOT_STARTED, why: explain(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_start_says_so_in_the_words_dockers_clients_look_for() {
        let said = |error: StartError| {
            let NotStarted { code, why } = not_started(&error);
            (code, why)
        };
        let none = said(StartError::NoSuchCommand("nope".into()));
        assert_eq!(none, (127, "exec: \"nope\": executable file not found in $PATH".to_owned()));
        let none = said(StartError::NoSuchCommand("/nope".into()));
        assert_eq!(none, (127, "exec: \"/nope\": no such file or directory".to_owned()));
        let refused = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            said(StartError::NotExecutable { command: "/etc".into(), source })
        };
        assert_eq!(refused(libc::EACCES), (126, "exec: \"/etc\": permission denied".to_owned()));
        assert_eq!(refused(libc::ENOEXEC).0, 126);
        assert_eq!(said(StartError::TooMany).0, 125);
    }
}
