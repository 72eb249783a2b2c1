//! Puts pending tasks on nodes that may take them: spread over the groups the service prefers, then by the
//! number of the service's tasks, then of all tasks.

#[cfg(test)]
mod tests;

use crate::draft::Draft;
use crate::orchestrator::takes_tasks;
use crate::placement::Placement;
use crate::state::State;
use jiff::{SignedDuration, Timestamp};
use skep_model::node::Node;
use skep_model::task::{Task, TaskState, TaskStatus};
use skep_model::{NodeId, ServiceId, TaskId};
use std::cmp::Reverse;
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
    let picked = {
        let mut nodes = Nodes::of(draft.state(), draft.now());
        let pick = |task: Task| (nodes.pick(&task), task);
        waiting.into_iter().map(pick).collect::<Vec<_>>()
    };
    for (picked, task) in picked {
        match picked {
            Ok(node) => assign(draft, task, node),
            Err(obstacles) => explain(draft, task, &obstacles),
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

fn explain(draft: &mut Draft<'_>, mut task: Task, obstacles: &Obstacles) {
    let err = obstacles.to_string();
    if task.status.err != err {
        task.status.err = err;
        task.status.timestamp = draft.now();
        draft.put_task(task);
    }
}

/// What keeps a task from a node, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    NotAvailable,
    Constraints,
    MaxPerNode,
}

/// How many nodes each obstacle rules out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Obstacles(BTreeMap<Obstacle, usize>);

/// Swarm's words: what rules out most nodes comes first.
impl std::fmt::Display for Obstacles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut obstacles: Vec<_> = self.0.iter().collect();
        obstacles.sort_by_key(|(_, count)| Reverse(**count));
        let said = |(obstacle, count): (&Obstacle, &usize)| {
            let nodes = if *count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
            match obstacle {
                Obstacle::NotAvailable => format!("{nodes} not available for new tasks"),
                Obstacle::Constraints => format!("scheduling constraints not satisfied on {nodes}"),
                Obstacle::MaxPerNode => "max replicas per node limit exceed".to_owned(),
            }
        };
        match obstacles.into_iter().map(said).collect::<Vec<_>>().join("; ").as_str() {
            "" => f.write_str("no suitable node"),
            parts => write!(f, "no suitable node ({parts})"),
        }
    }
}

/// The nodes' loads while tasks are handed out.
struct Nodes<'s> {
    /// In the order in which the nodes joined, which breaks ties.
    loads: Vec<Load<'s>>,
}

struct Load<'s> {
    node: &'s Node,
    tasks: usize,
    by_service: BTreeMap<ServiceId, usize>,
    failures: BTreeMap<ServiceId, usize>,
}

impl<'s> Nodes<'s> {
    fn of(state: &'s State, now: Timestamp) -> Self {
        let mut nodes: Vec<&Node> = state.nodes.values().collect();
        nodes.sort_by_key(|node| (node.meta.created_at, &node.id));
        let mut loads: Vec<Load<'s>> = nodes.into_iter().map(Load::none).collect();
        let index: BTreeMap<&NodeId, usize> =
            loads.iter().enumerate().map(|(index, load)| (&load.node.id, index)).collect();
        for task in state.tasks.values() {
            if let Some(index) = index.get(&task.node_id) {
                loads[*index].count(task, now);
            }
        }
        Self { loads }
    }

    /// The best node for the task, which counts as being there from then on.
    fn pick(&mut self, task: &Task) -> Result<NodeId, Obstacles> {
        let placement = Placement::of_or_nowhere(&task.spec);
        let (mut obstacles, mut open) = (Obstacles::default(), Vec::new());
        let may_be = |load: &Load<'_>| task.node_id.as_str().is_empty() || load.node.id == task.node_id;
        for (index, load) in self.loads.iter().enumerate().filter(|(_, load)| may_be(load)) {
            match load.obstacle(task, &placement) {
                Some(obstacle) => *obstacles.0.entry(obstacle).or_default() += 1,
                None => open.push(index),
            }
        }
        let groups = self.group_sizes(&task.service_id, &placement);
        let rank = |index: &usize| {
            let load = &self.loads[*index];
            (group_ranks(&placement, load.node, &groups), load.rank(&task.service_id))
        };
        let best = open.into_iter().min_by_key(rank).ok_or(obstacles)?;
        self.loads[best].add(&task.service_id);
        Ok(self.loads[best].node.id.clone())
    }

    /// How many tasks of the service each group holds; a group is named by its values from the widest on.
    fn group_sizes(&self, service: &ServiceId, placement: &Placement) -> BTreeMap<Vec<&'s str>, usize> {
        let mut sizes = BTreeMap::new();
        for load in &self.loads {
            let groups = placement.groups(load.node);
            for depth in 1..=groups.len() {
                *sizes.entry(groups[..depth].to_vec()).or_default() += load.of_service(service);
            }
        }
        sizes
    }
}

/// How full the node's groups are, the widest first.
fn group_ranks(placement: &Placement, node: &Node, sizes: &BTreeMap<Vec<&str>, usize>) -> Vec<usize> {
    let groups = placement.groups(node);
    (1..=groups.len()).map(|depth| sizes.get(&groups[..depth]).copied().unwrap_or(0)).collect()
}

impl<'s> Load<'s> {
    fn none(node: &'s Node) -> Self {
        Self { node, tasks: 0, by_service: BTreeMap::new(), failures: BTreeMap::new() }
    }

    fn count(&mut self, task: &Task, now: Timestamp) {
        if task.is_wanted() && (TaskState::Assigned..=TaskState::Running).contains(&task.status.state) {
            self.add(&task.service_id);
        }
        // When the manager noted it: nodes' clocks may be wrong, and its own may have been set back since.
        let lately = now.duration_since(task.meta.updated_at).abs() <= FAILURE_WINDOW;
        if lately && matches!(task.status.state, TaskState::Failed | TaskState::Rejected) {
            *self.failures.entry(task.service_id.clone()).or_default() += 1;
        }
    }

    fn add(&mut self, service: &ServiceId) {
        self.tasks += 1;
        *self.by_service.entry(service.clone()).or_default() += 1;
    }

    fn of_service(&self, service: &ServiceId) -> usize {
        self.by_service.get(service).copied().unwrap_or(0)
    }

    fn obstacle(&self, task: &Task, placement: &Placement) -> Option<Obstacle> {
        let is_full = |max| self.of_service(&task.service_id) >= max;
        if !takes_tasks(self.node) {
            Some(Obstacle::NotAvailable)
        } else if !placement.allows(self.node) {
            Some(Obstacle::Constraints)
        } else {
            placement.max_per_node.is_some_and(is_full).then_some(Obstacle::MaxPerNode)
        }
    }

    fn rank(&self, service: &ServiceId) -> (usize, usize, usize) {
        let failures = self.failures.get(service).copied().filter(|n| *n >= MAX_FAILURES).unwrap_or(0);
        (failures, self.of_service(service), self.tasks)
    }
}
