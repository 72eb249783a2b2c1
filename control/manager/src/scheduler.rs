//! Puts pending tasks on nodes: spread by the number of the service's tasks, then of all tasks.

use crate::draft::Draft;
use crate::orchestrator::takes_tasks;
use crate::state::State;
use jiff::{SignedDuration, Timestamp};
use skep_model::node::Node;
use skep_model::task::{Task, TaskState, TaskStatus};
use skep_model::{NodeId, ServiceId, TaskId};
use std::collections::BTreeMap;

/// A node where a service failed this often lately comes last. Swarm's figure is 5 (`scheduler.go`), but
/// failures are counted in the tasks kept as history, where four fit beside the current one.
const MAX_FAILURES: usize = 4;
const FAILURE_WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// Assigns every pending task that may run; the others say why they wait.
pub(crate) fn run(draft: &mut Draft<'_>) {
    let mut waiting: Vec<Task> =
        draft.state().tasks.values().filter(|task| is_waiting(task)).cloned().collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by(|a, b| key(a).cmp(&key(b)));
    let mut nodes = Nodes::of(draft.state(), draft.now());
    for task in waiting {
        match nodes.pick(&task) {
            Some(node) => assign(draft, task, node),
            None => explain(draft, task, &nodes),
        }
    }
}

/// A task of desired state `Ready` waits out its restart delay first.
fn is_waiting(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.desired_state == TaskState::Running
}

fn key(task: &Task) -> (Timestamp, &str, u64, &TaskId) {
    (task.meta.created_at, &task.service_name, task.slot, &task.id)
}

fn assign(draft: &mut Draft<'_>, mut task: Task, node: NodeId) {
    let message = match task.node_id.as_str().is_empty() {
        true => "scheduler assigned task to node",
        false => "scheduler confirmed task can run on preassigned node",
    };
    task.node_id = node;
    task.status = TaskStatus {
        timestamp: draft.now(),
        state: TaskState::Assigned,
        message: message.to_owned(),
        err: String::new(),
        container_status: None,
    };
    draft.put_task(task);
}

fn explain(draft: &mut Draft<'_>, mut task: Task, nodes: &Nodes) {
    let err = match nodes.not_available(&task) {
        0 => "no suitable node".to_owned(),
        1 => "no suitable node (1 node not available for new tasks)".to_owned(),
        n => format!("no suitable node ({n} nodes not available for new tasks)"),
    };
    if task.status.err != err {
        task.status.err = err;
        task.status.timestamp = draft.now();
        draft.put_task(task);
    }
}

/// The nodes' loads while tasks are handed out.
struct Nodes {
    /// In the order in which the nodes joined, which breaks ties.
    open: Vec<Load>,
    closed: usize,
}

struct Load {
    node: NodeId,
    tasks: usize,
    by_service: BTreeMap<ServiceId, usize>,
    failures: BTreeMap<ServiceId, usize>,
}

impl Nodes {
    fn of(state: &State, now: Timestamp) -> Self {
        let mut nodes: Vec<&Node> = state.nodes.values().filter(|node| takes_tasks(node)).collect();
        nodes.sort_by_key(|node| (node.meta.created_at, &node.id));
        let open: Vec<Load> = nodes.into_iter().map(|node| Load::none(&node.id)).collect();
        let mut nodes = Self { closed: state.nodes.len() - open.len(), open };
        let index: BTreeMap<NodeId, usize> =
            nodes.open.iter().enumerate().map(|(index, load)| (load.node.clone(), index)).collect();
        for task in state.tasks.values() {
            if let Some(index) = index.get(&task.node_id) {
                nodes.open[*index].count(task, now);
            }
        }
        nodes
    }

    fn pick(&mut self, task: &Task) -> Option<NodeId> {
        let fits = |load: &&mut Load| task.node_id.as_str().is_empty() || load.node == task.node_id;
        let best = self.open.iter_mut().filter(fits).min_by_key(|load| load.rank(&task.service_id))?;
        best.add(&task.service_id);
        Some(best.node.clone())
    }

    fn not_available(&self, task: &Task) -> usize {
        if task.node_id.as_str().is_empty() { self.closed } else { 1 }
    }
}

impl Load {
    fn none(node: &NodeId) -> Self {
        Self { node: node.clone(), tasks: 0, by_service: BTreeMap::new(), failures: BTreeMap::new() }
    }

    fn count(&mut self, task: &Task, now: Timestamp) {
        if task.is_wanted() && (TaskState::Assigned..=TaskState::Running).contains(&task.status.state) {
            self.add(&task.service_id);
        }
        let lately = now.duration_since(task.status.timestamp) <= FAILURE_WINDOW;
        if lately && matches!(task.status.state, TaskState::Failed | TaskState::Rejected) {
            *self.failures.entry(task.service_id.clone()).or_default() += 1;
        }
    }

    fn add(&mut self, service: &ServiceId) {
        self.tasks += 1;
        *self.by_service.entry(service.clone()).or_default() += 1;
    }

    fn rank(&self, service: &ServiceId) -> (usize, usize, usize) {
        let of = |counts: &BTreeMap<ServiceId, usize>| counts.get(service).copied().unwrap_or(0);
        let failures = Some(of(&self.failures)).filter(|n| *n >= MAX_FAILURES).unwrap_or(0);
        (failures, of(&self.by_service), self.tasks)
    }
}
