//! Tasks of services on this node: one controller each, from assignment to end.

mod controller;
mod ended;
mod spec;
mod status;

pub(crate) use spec::{container_id, hosts_file, image_refusal, resolv_conf, short_id};

use crate::desired::DesiredFile;
use crate::executor::ProcessExecutor;
use crate::host::HostFacts;
use crate::project::{Sandboxing, UnknownNetwork};
use crate::reconcile::Carrier;
use crate::sandboxes::Sandboxes;
use crate::session::Link;
use ended::EndedLogs;
use skep_model::TaskId;
use skep_model::assign::TaskAssignment;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// What controllers work with.
#[derive(Clone)]
pub(crate) struct TaskContext {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) carrier: Carrier,
    pub(crate) executor: ProcessExecutor,
    pub(crate) link: Arc<Link>,
    pub(crate) facts: watch::Receiver<Arc<HostFacts>>,
    /// What ended while no manager could be told must not be started by a restarted daemon.
    pub(crate) desired: DesiredFile,
    ended: EndedLogs,
}

/// Why a task is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The manager no longer wants it.
    Wanted,
    /// In this release tasks end with their daemon; the manager has to replace them.
    DaemonStops,
}

/// The controllers that run.
pub(crate) struct Tasks {
    context: TaskContext,
    stops: BTreeMap<TaskId, watch::Sender<Option<StopReason>>>,
}

impl TaskContext {
    pub(crate) fn new(
        sandboxes: Sandboxes,
        carrier: Carrier,
        executor: ProcessExecutor,
        link: Arc<Link>,
        facts: watch::Receiver<Arc<HostFacts>>,
        desired: DesiredFile,
    ) -> Self {
        let ended = EndedLogs::new(executor.clone());
        Self { sandboxes, carrier, executor, link, facts, desired, ended }
    }
}

impl Tasks {
    pub(crate) fn new(context: TaskContext) -> Self {
        Self { context, stops: BTreeMap::new() }
    }

    pub(crate) fn start(&mut self, task: TaskAssignment, sandboxing: Result<Sandboxing, UnknownNetwork>) {
        let (stop, stopped) = watch::channel(None);
        self.stops.insert(task.id.clone(), stop);
        self.context.link.holdings().running.insert(task.id.clone());
        tokio::spawn(controller::run(self.context.clone(), task, sandboxing, stopped));
    }

    pub(crate) fn stop(&self, id: &TaskId, reason: StopReason) {
        if let Some(stop) = self.stops.get(id) {
            stop.send_replace(Some(reason));
        }
    }

    /// The manager gave the task up before it started here.
    pub(crate) fn decline(&self, id: &TaskId) {
        self.context.link.reports.report(id.clone(), status::shut_down(None));
    }

    pub(crate) fn forget_controller(&mut self, id: &TaskId) {
        self.stops.remove(id);
    }
}
