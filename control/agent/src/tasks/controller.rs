//! One task, step by step. Every way out reports how it ended and leaves nothing behind.

use super::{StopReason, TaskContext, spec, status};
use crate::executor::Process;
use crate::explain::explain;
use crate::host::{Sandbox, SandboxNetns};
use crate::project::{Sandboxing, UnknownNetwork};
use crate::sandboxes::SandboxRequest;
use ipnet::Ipv4Net;
use skep_model::assign::TaskAssignment;
use skep_model::service::{ContainerSpec, DEFAULT_STOP_GRACE};
use skep_model::signal::Signal;
use skep_model::task::TaskStatus;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::sync::watch;

/// A daemon that ends waits no longer than this for its tasks, whatever their grace: Docker's for a container.
const DAEMON_GRACE: Duration = DEFAULT_STOP_GRACE;

/// Set when the task is to end.
type Stop = watch::Receiver<Option<StopReason>>;

pub(super) async fn run(
    context: TaskContext,
    task: TaskAssignment,
    sandboxing: Result<Sandboxing, UnknownNetwork>,
    mut stop: Stop,
) {
    let controller = Controller { context, task };
    let end = controller.live(sandboxing, &mut stop).await;
    tracing::info!(task = %controller.task.name, state = %end.state, err = end.err, "task ended");
    let Controller { context, task } = controller;
    context.ended.keep(task.id.clone());
    let is_taken_along = *stop.borrow() == Some(StopReason::DaemonStops);
    if !is_taken_along && context.link.state.borrow().connected.is_none() {
        context.desired.save_without(task.id.clone()).await;
    }
    // Reported first: a session that begins in between must not find the task missing.
    context.link.reports.report(task.id.clone(), end);
    context.link.holdings().running.remove(&task.id);
    context.carrier.task_ended(task.id).await;
}

struct Controller {
    context: TaskContext,
    task: TaskAssignment,
}

impl Controller {
    /// From Preparing to the terminal status that is returned.
    async fn live(&self, sandboxing: Result<Sandboxing, UnknownNetwork>, stop: &mut Stop) -> TaskStatus {
        self.report(status::preparing());
        let container = match self.container() {
            Ok(container) => container,
            Err(why) => return status::rejected(why),
        };
        let sandboxing = match sandboxing {
            Ok(sandboxing) => sandboxing,
            Err(unknown) => return status::rejected(unknown.to_string()),
        };
        let first = sandboxing.places.first().map(|place| place.addr);
        let sandbox = match self.sandbox(sandboxing).await {
            Ok(sandbox) => sandbox,
            Err(why) => return status::rejected(why),
        };
        let end = self.live_in(&sandbox, container, first, stop).await;
        self.context.sandboxes.remove(sandbox).await;
        end
    }

    fn container(&self) -> Result<&ContainerSpec, String> {
        let container = self.task.container.as_ref().ok_or("the task has nothing to run")?;
        match spec::image_refusal(&container.image) {
            Some(refusal) => Err(refusal),
            None => Ok(container),
        }
    }

    async fn sandbox(&self, sandboxing: Sandboxing) -> Result<Sandbox, String> {
        let id = self.task.id.0.clone();
        let request = SandboxRequest {
            resolver: id.clone(),
            id,
            netns: SandboxNetns::New,
            sandboxing,
            new_resolver: true,
        };
        self.context.sandboxes.create(request).await.map_err(|error| explain(&error))
    }

    async fn live_in(
        &self,
        sandbox: &Sandbox,
        container: &ContainerSpec,
        first: Option<Ipv4Net>,
        stop: &mut Stop,
    ) -> TaskStatus {
        let asked_to_stop = *stop.borrow_and_update();
        if let Some(reason) = asked_to_stop {
            return status::stopped(&self.task.id, reason, None);
        }
        self.report(status::starting());
        match self.process(sandbox, container, first).await {
            Ok(process) => self.watch(process, stop).await,
            Err(why) => status::not_started(why),
        }
    }

    async fn process(
        &self,
        sandbox: &Sandbox,
        container: &ContainerSpec,
        first: Option<Ipv4Net>,
    ) -> Result<Process, String> {
        let netns: OwnedFd = sandbox.netns.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
        let facts = self.context.facts.borrow().clone();
        let spec = spec::process(self.task.id.as_str(), container, netns, first, &facts);
        self.context.executor.start(spec).await.map_err(|error| explain(&error))
    }

    /// Until the process ends, by itself or because it is stopped.
    async fn watch(&self, process: Process, stop: &mut Stop) -> TaskStatus {
        let (id, pid) = (&self.task.id, process.pid());
        tracing::info!(task = %self.task.name, pid, "task runs");
        self.report(status::running(id, pid));
        let reason = tokio::select! {
            exit = process.wait() => return status::exited(id, pid, &exit),
            reason = stop_reason(stop) => reason,
        };
        let (signal, grace) = self.farewell(reason);
        let exit = process.stop(signal, grace).await;
        status::stopped(id, reason, Some((pid, &exit)))
    }

    /// What a stop begins with, and how long it may take.
    fn farewell(&self, reason: StopReason) -> (Signal, Duration) {
        let default = (Signal::TERM, DEFAULT_STOP_GRACE);
        let (signal, grace) = self.task.container.as_ref().map_or(default, |container| {
            // The manager refuses what is no signal.
            (container.stop_signal().unwrap_or(Signal::TERM), container.stop_grace())
        });
        match reason {
            StopReason::Wanted => (signal, grace),
            StopReason::DaemonStops => (signal, grace.min(DAEMON_GRACE)),
        }
    }

    fn report(&self, status: TaskStatus) {
        self.context.link.reports.report(self.task.id.clone(), status);
    }
}

async fn stop_reason(stop: &mut Stop) -> StopReason {
    match stop.wait_for(Option::is_some).await.map(|reason| *reason) {
        Ok(Some(reason)) => reason,
        // Nobody is left who could ask: the daemon ends.
        Ok(None) | Err(_) => StopReason::DaemonStops,
    }
}
