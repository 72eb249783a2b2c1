//! A state being worked on: what one transaction is going to write. Reads see what was put before;
//! at the end only the objects that really differ become changes.

use crate::state::{Change, State};
use jiff::Timestamp;
use skep_model::cluster::{Cluster, Meta};
use skep_model::network::Network;
use skep_model::node::Node;
use skep_model::service::Service;
use skep_model::task::Task;
use skep_model::{NetworkId, NodeId, ServiceId, TaskId};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Makes the ids of new tasks; tests count, the manager draws lots.
pub(crate) type TaskIds<'a> = &'a mut dyn FnMut() -> TaskId;

pub(crate) struct Draft<'a> {
    base: &'a State,
    /// Copied at the first write only: most runs of the control loop write nothing.
    state: Cow<'a, State>,
    now: Timestamp,
    touched: BTreeSet<Key>,
    dirty: bool,
    wakeup: Option<Timestamp>,
    problems: BTreeSet<String>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Cluster,
    Node(NodeId),
    Network(NetworkId),
    Service(ServiceId),
    Task(TaskId),
}

impl<'a> Draft<'a> {
    pub(crate) fn new(base: &'a State, now: Timestamp) -> Self {
        Self {
            base,
            state: Cow::Borrowed(base),
            now,
            touched: BTreeSet::new(),
            dirty: false,
            wakeup: None,
            problems: BTreeSet::new(),
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn put_cluster(&mut self, cluster: Cluster) {
        if self.state.cluster.as_ref() != Some(&cluster) {
            self.touch(Key::Cluster).cluster = Some(cluster);
        }
    }

    pub(crate) fn put_node(&mut self, node: Node) {
        if self.state.nodes.get(&node.id) != Some(&node) {
            self.touch(Key::Node(node.id.clone())).nodes.insert(node.id.clone(), node);
        }
    }

    pub(crate) fn put_network(&mut self, network: Network) {
        if self.state.networks.get(&network.id) != Some(&network) {
            self.touch(Key::Network(network.id.clone())).networks.insert(network.id.clone(), network);
        }
    }

    pub(crate) fn put_service(&mut self, service: Service) {
        if self.state.services.get(&service.id) != Some(&service) {
            self.touch(Key::Service(service.id.clone())).services.insert(service.id.clone(), service);
        }
    }

    pub(crate) fn put_task(&mut self, task: Task) {
        if self.state.tasks.get(&task.id) != Some(&task) {
            self.touch(Key::Task(task.id.clone())).tasks.insert(task.id.clone(), task);
        }
    }

    pub(crate) fn delete_task(&mut self, id: &TaskId) {
        if self.state.tasks.contains_key(id) {
            self.touch(Key::Task(id.clone())).tasks.remove(id);
        }
    }

    /// Changes a task in place, if it is there.
    pub(crate) fn edit_task(&mut self, id: &TaskId, edit: impl FnOnce(&mut Task)) {
        if let Some(mut task) = self.state.tasks.get(id).cloned() {
            edit(&mut task);
            self.put_task(task);
        }
    }

    /// Look again at this time, even if nothing changes until then.
    pub(crate) fn wake_at(&mut self, time: Timestamp) {
        self.wakeup = Some(self.wakeup.map_or(time, |earlier| earlier.min(time)));
    }

    pub(crate) fn wakeup(&self) -> Option<Timestamp> {
        self.wakeup
    }

    /// Notes an object that should not be possible and was skipped.
    pub(crate) fn report(&mut self, problem: String) {
        self.problems.insert(problem);
    }

    pub(crate) fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems).into_iter().collect()
    }

    /// Begins another look at everything, which asks for its own wakeups.
    pub(crate) fn start_pass(&mut self) {
        (self.dirty, self.wakeup) = (false, None);
        self.problems.clear();
    }

    /// Whether this pass wrote anything.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What to write so that `base` becomes this draft.
    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.touched.iter().filter_map(|key| self.change(key)).collect()
    }

    fn touch(&mut self, key: Key) -> &mut State {
        self.dirty = true;
        self.touched.insert(key);
        self.state.to_mut()
    }

    fn change(&self, key: &Key) -> Option<Change> {
        let (old, new) = (self.base, self.state());
        match key {
            Key::Cluster => {
                let changed = differing(old.cluster.as_ref(), new.cluster.as_ref())?;
                Some(Change::PutCluster(Box::new(Cluster { meta: self.stamp(changed.meta), ..changed })))
            }
            Key::Node(id) => match new.nodes.get(id) {
                None => old.nodes.contains_key(id).then(|| Change::DeleteNode(id.clone())),
                node => differing(old.nodes.get(id), node)
                    .map(|n| Change::PutNode(Box::new(Node { meta: self.stamp(n.meta), ..n }))),
            },
            Key::Network(id) => match new.networks.get(id) {
                None => old.networks.contains_key(id).then(|| Change::DeleteNetwork(id.clone())),
                network => differing(old.networks.get(id), network)
                    .map(|n| Change::PutNetwork(Box::new(Network { meta: self.stamp(n.meta), ..n }))),
            },
            Key::Service(id) => match new.services.get(id) {
                None => old.services.contains_key(id).then(|| Change::DeleteService(id.clone())),
                service => differing(old.services.get(id), service)
                    .map(|s| Change::PutService(Box::new(Service { meta: self.stamp(s.meta), ..s }))),
            },
            Key::Task(id) => match new.tasks.get(id) {
                None => old.tasks.contains_key(id).then(|| Change::DeleteTask(id.clone())),
                task => differing(old.tasks.get(id), task)
                    .map(|t| Change::PutTask(Box::new(Task { meta: self.stamp(t.meta), ..t }))),
            },
        }
    }

    fn stamp(&self, meta: Meta) -> Meta {
        Meta { updated_at: self.now, ..meta }
    }
}

fn differing<T: PartialEq + Clone>(old: Option<&T>, new: Option<&T>) -> Option<T> {
    if old == new { None } else { new.cloned() }
}
