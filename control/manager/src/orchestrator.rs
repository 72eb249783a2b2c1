//! Decides which tasks there have to be: one per slot of a replicated service, one per node of a
//! global one. A task runs once; whatever ends early is replaced by a new task in the same place.
//!
//! Every decision is a list of [`Action`]s made from the state alone.

mod global;
mod reaper;
mod replicated;
mod restart;

pub(crate) use reaper::run as reap;
pub(crate) use restart::{FIELD as RESTART_POLICY, RestartPolicy};

use crate::draft::{Draft, TaskIds};
use crate::placement::Placement;
use crate::state::State;
use jiff::{SignedDuration, Timestamp};
use skep_model::cluster::Meta;
use skep_model::node::{Availability, Node, NodeState};
use skep_model::service::{Service, TaskSpec};
use skep_model::task::{Task, TaskState, TaskStatus};
use skep_model::{NodeId, ServiceId, TaskId};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Create(Place),
    /// Stop the task and keep it as history.
    ShutDown(TaskId),
    /// Stop the task, whose node no longer meets the constraints, and keep it as history.
    Reject(TaskId),
    /// Stop the task and forget it.
    Remove(TaskId),
}

/// Where a new task goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    service: ServiceId,
    /// 0 for a global service.
    slot: u64,
    /// Only for a global service: the scheduler chooses otherwise.
    node: Option<NodeId>,
    not_before: Option<Timestamp>,
}

/// Swarm's words.
const REJECTED: &str = "assigned node no longer meets constraints";

/// One look at all services: ended and evicted tasks first, then the number of tasks.
pub(crate) fn run(draft: &mut Draft<'_>, ids: TaskIds<'_>) {
    release_delayed(draft);
    for decide in [replacements, numbers] {
        let (actions, newest) = (decide(draft), newest_ahead(draft));
        for action in actions {
            apply(draft, ids, action, &newest);
        }
    }
    adopt_changes(draft);
}

fn replacements(draft: &mut Draft<'_>) -> Vec<Action> {
    let (state, now) = (draft.state(), draft.now());
    let decide = |(service, tasks): (&Service, &[&Task])| match service.spec.mode.is_global() {
        true => global::replacements(state, service, tasks, now),
        false => replicated::replacements(state, service, tasks, now),
    };
    each_service(state, &by_service(state)).flat_map(decide).collect()
}

fn numbers(draft: &mut Draft<'_>) -> Vec<Action> {
    let state = draft.state();
    let tasks = by_service(state);
    let abandoned = tasks.iter().filter(|(service, _)| !state.services.contains_key(**service));
    let abandoned = abandoned.flat_map(|(_, tasks)| tasks);
    let mut actions: Vec<Action> = abandoned.map(|task| Action::Remove(task.id.clone())).collect();
    actions.extend(each_service(state, &tasks).flat_map(
        |(service, tasks)| match service.spec.mode.is_global() {
            true => global::numbers(state, service, tasks),
            false => replicated::numbers(service, tasks),
        },
    ));
    actions
}

type ByService<'a> = BTreeMap<&'a ServiceId, Vec<&'a Task>>;

/// Every service's tasks, oldest first; attachments belong to none.
fn by_service(state: &State) -> ByService<'_> {
    let mut tasks = ByService::new();
    for task in state.tasks.values().filter(|task| !task.is_attachment()) {
        tasks.entry(&task.service_id).or_default().push(task);
    }
    for tasks in tasks.values_mut() {
        tasks.sort_by_key(|task| age(task));
    }
    tasks
}

/// Sorts tasks of one place by when they were made.
fn age(task: &Task) -> (Timestamp, Option<Timestamp>, &TaskId) {
    (task.meta.created_at, task.not_before, &task.id)
}

fn each_service<'a>(
    state: &'a State,
    tasks: &'a ByService<'a>,
) -> impl Iterator<Item = (&'a Service, &'a [&'a Task])> {
    let mut services: Vec<&Service> = state.services.values().collect();
    services.sort_by_key(|service| (service.meta.created_at, &service.id));
    services.into_iter().map(|service| (service, tasks.get(&service.id).map_or(&[][..], Vec::as_slice)))
}

/// Whether a task may stay on the node. A node whose state is not known yet keeps what it has.
fn keeps_tasks(node: &Node) -> bool {
    node.status.state != NodeState::Down && node.spec.availability != Availability::Drain
}

/// Whether new tasks may go to the node.
pub(crate) fn takes_tasks(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

/// Why a task cannot stay on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eviction {
    /// The node is drained, down or no member any more.
    Node,
    /// It no longer meets the service's constraints.
    Constraints,
}

impl Eviction {
    fn of(state: &State, task: &Task, placement: &Placement) -> Option<Self> {
        if task.node_id.as_str().is_empty() {
            return None;
        }
        match state.nodes.get(&task.node_id).filter(|node| keeps_tasks(node)) {
            None => Some(Self::Node),
            Some(node) => (!placement.allows(node)).then_some(Self::Constraints),
        }
    }

    fn action(self, task: &Task) -> Action {
        match self {
            Self::Node => Action::ShutDown(task.id.clone()),
            Self::Constraints => Action::Reject(task.id.clone()),
        }
    }
}

/// A task stays as it is when its service's restart policy changes, or its placement and its node still fits: what
/// the scheduler and the users see of it is the new one.
fn adopt_changes(draft: &mut Draft<'_>) {
    let state = draft.state();
    let outdated = |task: &&Task| {
        let service = state.services.get(&task.service_id);
        task.is_wanted() && service.is_some_and(|s| differs(&s.spec.task_template, &task.spec))
    };
    let outdated: Vec<Task> = state.tasks.values().filter(outdated).cloned().collect();
    for mut task in outdated {
        if let Some(service) = draft.state().services.get(&task.service_id) {
            let template = &service.spec.task_template;
            task.spec.placement.clone_from(&template.placement);
            match template.extra.get(RESTART_POLICY) {
                Some(policy) => _ = task.spec.extra.insert(RESTART_POLICY.to_owned(), policy.clone()),
                None => _ = task.spec.extra.remove(RESTART_POLICY),
            }
            draft.put_task(task);
        }
    }
}

fn differs(template: &TaskSpec, task: &TaskSpec) -> bool {
    template.placement != task.placement
        || template.extra.get(RESTART_POLICY) != task.extra.get(RESTART_POLICY)
}

/// Tasks that waited out their restart delay may run.
fn release_delayed(draft: &mut Draft<'_>) {
    let delayed = |task: &&Task| task.desired_state == TaskState::Ready;
    let waiting: Vec<Task> = draft.state().tasks.values().filter(delayed).cloned().collect();
    for task in waiting {
        match task.not_before {
            Some(time) if time > draft.now() => {
                // A clock that was set back makes no wait longer than the policy's.
                let time = time.min(restart::delayed(&task.spec, draft.now()));
                draft.edit_task(&task.id, |task| task.not_before = Some(time));
                draft.wake_at(time);
            }
            _ => draft.edit_task(&task.id, |task| task.desired_state = TaskState::Running),
        }
    }
}

fn apply(draft: &mut Draft<'_>, ids: TaskIds<'_>, action: Action, newest: &Newest) {
    match action {
        Action::Create(place) => create(draft, ids, place, newest),
        Action::ShutDown(id) => {
            draft.edit_task(&id, |task| task.desired_state = task.desired_state.max(TaskState::Shutdown));
        }
        Action::Reject(id) => draft.edit_task(&id, |task| {
            task.desired_state = task.desired_state.max(TaskState::Shutdown);
            task.status.err = REJECTED.to_owned();
        }),
        Action::Remove(id) => draft.edit_task(&id, |task| task.desired_state = TaskState::Remove),
    }
}

fn create(draft: &mut Draft<'_>, ids: TaskIds<'_>, place: Place, newest: &Newest) {
    let Some(service) = draft.state().services.get(&place.service) else { return };
    let now = draft.now();
    let made = made_at(&place, newest, now);
    let delayed = place.not_before.is_some_and(|time| time > now);
    let task = Task {
        id: ids(),
        meta: Meta { updated_at: now, ..Meta::new(made) },
        spec: service.spec.task_template.clone(),
        service_id: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot: place.slot,
        node_id: place.node.unwrap_or_default(),
        status: TaskStatus {
            timestamp: now,
            state: TaskState::New,
            message: "created".to_owned(),
            err: String::new(),
            container_status: None,
        },
        desired_state: if delayed { TaskState::Ready } else { TaskState::Running },
        not_before: place.not_before,
        attachments: Vec::new(),
    };
    draft.put_task(task);
}

/// When the newest task of a place was made.
type Newest = BTreeMap<(ServiceId, u64, Option<NodeId>), Timestamp>;

/// The places whose newest task is not older than now: somebody has set the clock back.
fn newest_ahead(draft: &Draft<'_>) -> Newest {
    let mut newest = Newest::new();
    let ahead = |task: &&Task| task.meta.created_at >= draft.now() && !task.is_attachment();
    for task in draft.state().tasks.values().filter(ahead) {
        let node = (task.slot == 0).then(|| task.node_id.clone());
        let made = newest.entry((task.service_id.clone(), task.slot, node)).or_insert(task.meta.created_at);
        *made = task.meta.created_at.max(*made);
    }
    newest
}

/// When a new task of the place is made: later than the others there, for their order says which one counts.
fn made_at(place: &Place, newest: &Newest, now: Timestamp) -> Timestamp {
    let newest = newest.get(&(place.service.clone(), place.slot, place.node.clone()));
    newest.and_then(|newest| newest.checked_add(SignedDuration::from_nanos(1)).ok()).unwrap_or(now)
}
