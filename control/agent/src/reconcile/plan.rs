//! From what is wanted and what was done to what is left to do. Pure.
//!
//! The order: host objects and interfaces first, then forwarding, then names, then tasks that rely on all
//! of it; what is no longer wanted goes last, in reverse. A name never means what can't be reached yet.

#[cfg(test)]
mod tests;

use crate::host::MeshPlan;
use skep_dataplane::snapshot::Snapshot;
use skep_dns::View;
use skep_dns::records::Records;
use skep_model::TaskId;
use std::collections::{BTreeMap, BTreeSet};

/// Names a sandbox on this node: a task's or a container's id.
pub(crate) type SandboxId = String;
/// Names a container's resolver; several attachments of one namespace share one.
pub(crate) type ResolverId = String;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// None: as it is.
    pub(crate) mesh: Option<MeshPlan>,
    /// Sandboxes whose interfaces exist.
    pub(crate) sandboxes: BTreeSet<SandboxId>,
    pub(crate) snapshot: Snapshot,
    pub(crate) records: Records,
    pub(crate) views: BTreeMap<ResolverId, View>,
    pub(crate) tasks: BTreeMap<TaskId, TaskWanted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskWanted {
    Run,
    /// It is to stop once no node sends it new connections any more.
    Drain,
    Stop,
}

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Done {
    pub(crate) mesh: Option<MeshPlan>,
    /// Sandboxes whose interfaces the engine serves.
    pub(crate) sandboxes: BTreeSet<SandboxId>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) records: Option<Records>,
    pub(crate) views: BTreeMap<ResolverId, View>,
    pub(crate) tasks: BTreeMap<TaskId, TaskDone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskDone {
    Started,
    Stopping,
    /// It isn't started again: a task is one-shot.
    Ended,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    ApplyMesh(MeshPlan),
    Attach(SandboxId),
    Publish(Snapshot),
    PublishNames(Records),
    SetView(ResolverId, View),
    Start(TaskId),
    /// Never started here, and not to be any more.
    Decline(TaskId),
    Stop(TaskId),
    EndView(ResolverId),
    Detach(SandboxId),
    /// The manager knows that it ended.
    Forget(TaskId),
}

/// What to do, in order. Empty when everything wanted was done.
pub(crate) fn plan(done: &Done, wanted: &Wanted) -> Vec<Action> {
    let mut actions = Vec::new();
    actions.extend(
        wanted.mesh.iter().filter(|mesh| done.mesh.as_ref() != Some(mesh)).cloned().map(Action::ApplyMesh),
    );
    actions.extend(wanted.sandboxes.difference(&done.sandboxes).cloned().map(Action::Attach));
    if done.snapshot.as_ref() != Some(&wanted.snapshot) {
        actions.push(Action::Publish(wanted.snapshot.clone()));
    }
    if done.records.as_ref() != Some(&wanted.records) {
        actions.push(Action::PublishNames(wanted.records.clone()));
    }
    let changed = wanted.views.iter().filter(|(id, view)| done.views.get(*id) != Some(view));
    actions.extend(changed.map(|(id, view)| Action::SetView(id.clone(), view.clone())));

    actions.extend(wanted.tasks.iter().filter_map(|(id, wanted)| bring(id, *wanted, done.tasks.get(id))));
    let gone = done.tasks.iter().filter(|(id, _)| !wanted.tasks.contains_key(*id));
    actions.extend(gone.filter_map(|(id, state)| take_away(id, *state)));

    let ended = done.views.keys().filter(|id| !wanted.views.contains_key(*id));
    actions.extend(ended.cloned().map(Action::EndView));
    actions.extend(done.sandboxes.difference(&wanted.sandboxes).cloned().map(Action::Detach));
    actions
}

fn bring(id: &TaskId, wanted: TaskWanted, done: Option<&TaskDone>) -> Option<Action> {
    match (wanted, done) {
        (TaskWanted::Run, None) => Some(Action::Start(id.clone())),
        (TaskWanted::Drain | TaskWanted::Stop, None) => Some(Action::Decline(id.clone())),
        (TaskWanted::Stop, Some(TaskDone::Started)) => Some(Action::Stop(id.clone())),
        (TaskWanted::Run | TaskWanted::Drain, Some(_))
        | (TaskWanted::Stop, Some(TaskDone::Stopping | TaskDone::Ended)) => None,
    }
}

fn take_away(id: &TaskId, done: TaskDone) -> Option<Action> {
    match done {
        TaskDone::Started => Some(Action::Stop(id.clone())),
        TaskDone::Stopping => None,
        TaskDone::Ended => Some(Action::Forget(id.clone())),
    }
}

impl Done {
    /// `action` was done.
    pub(crate) fn note(&mut self, action: Action) {
        match action {
            Action::ApplyMesh(mesh) => self.mesh = Some(mesh),
            Action::Attach(id) => _ = self.sandboxes.insert(id),
            Action::Publish(snapshot) => self.snapshot = Some(snapshot),
            Action::PublishNames(records) => self.records = Some(records),
            Action::SetView(id, view) => _ = self.views.insert(id, view),
            Action::Start(id) => _ = self.tasks.insert(id, TaskDone::Started),
            Action::Decline(id) => _ = self.tasks.insert(id, TaskDone::Ended),
            Action::Stop(id) => _ = self.tasks.insert(id, TaskDone::Stopping),
            Action::EndView(id) => _ = self.views.remove(&id),
            Action::Detach(id) => _ = self.sandboxes.remove(&id),
            Action::Forget(id) => _ = self.tasks.remove(&id),
        }
    }

    /// A started task has ended, whyever.
    pub(crate) fn task_ended(&mut self, id: &TaskId) {
        if let Some(task) = self.tasks.get_mut(id) {
            *task = TaskDone::Ended;
        }
    }
}
