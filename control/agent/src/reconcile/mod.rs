//! Makes true what the manager wants: always from the whole of [`Desired`], whatever changed.

mod apply;
mod carrier;
mod plan;

pub(crate) use apply::Kernel;
pub(crate) use carrier::{Carried, Carrier, CarryError, Commands};
pub(crate) use plan::{ResolverId, SandboxId};

use crate::explain::explain;
use crate::host::{HostFacts, RECHECK_PERIOD};
use crate::project::{self, Cluster, Local};
use crate::session::{Backoff, Link};
use crate::tasks::Tasks;
use carrier::Command;
use plan::{Action, Done, TaskDone, TaskWanted, Wanted, plan};
use skep_dns::View;
use skep_model::assign::{Desired, TaskAssignment};
use skep_model::task::TaskState;
use skep_model::{NetworkId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

pub(crate) struct Reconciler {
    kernel: Kernel,
    link: Arc<Link>,
    tasks: Tasks,
    local: Local,
    facts: watch::Sender<Arc<HostFacts>>,
    silent: watch::Receiver<BTreeSet<Ipv4Addr>>,
    commands: mpsc::Receiver<Command>,
    held: BTreeMap<SandboxId, Held>,
    /// Counts hand-overs, so that a resolver asks its networks in the order they came.
    next_turn: u64,
    done: Done,
    generation: u64,
    progress: watch::Sender<Progress>,
    stopping: Option<oneshot::Sender<()>>,
    is_stopping: bool,
}

/// How far reconciling got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The set that was in place last, all of it.
    pub(crate) revision: Option<u64>,
    /// What could not be done at the last try; it is tried again.
    pub(crate) errors: Vec<String>,
}

struct Held {
    turn: u64,
    sandbox: Carried,
    ready: Option<oneshot::Sender<Result<(), String>>>,
    /// Set when its owner wants it back.
    released: Option<oneshot::Sender<()>>,
}

struct Failure {
    action: Action,
    error: String,
}

impl Failure {
    /// Whether a sandbox can't be used because of it.
    fn concerns(&self, sandbox: &SandboxId, resolver: &ResolverId) -> bool {
        match &self.action {
            Action::Attach(id) => id == sandbox,
            Action::SetView(id, _) => id == resolver,
            Action::Publish(_) => true,
            _ => false,
        }
    }
}

/// What a reconciler starts from.
pub(crate) struct Parts {
    pub(crate) kernel: Kernel,
    pub(crate) link: Arc<Link>,
    pub(crate) local: Local,
    pub(crate) facts: watch::Sender<Arc<HostFacts>>,
    /// Peers that do not answer on the data path, as the packet thread finds.
    pub(crate) silent: watch::Receiver<BTreeSet<Ipv4Addr>>,
}

impl Reconciler {
    pub(crate) fn new(parts: Parts, commands: Commands, tasks: Tasks) -> (Self, watch::Receiver<Progress>) {
        let (progress, progressed) = watch::channel(Progress::default());
        let Parts { kernel, link, local, facts, silent } = parts;
        let (held, done) = Default::default();
        let reconciler = Self {
            kernel,
            link,
            tasks,
            local,
            facts,
            silent,
            commands: commands.0,
            held,
            next_turn: 0,
            done,
            generation: 0,
            progress,
            stopping: None,
            is_stopping: false,
        };
        (reconciler, progressed)
    }

    /// Runs until it is aborted, which is safe once [`Carrier::stop_all`] has returned.
    pub(crate) async fn run(mut self) {
        let (mut desired, mut silent) = (self.link.desired.subscribe(), self.silent.clone());
        let mut backoff = Backoff::default();
        let mut retry: Option<Instant> = None;
        let mut look_around = interval_at(Instant::now() + RECHECK_PERIOD, RECHECK_PERIOD);
        look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let retry_due = async move {
                match retry {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The task controllers hold a sender.
                Some(command) = self.commands.recv() => self.take(command),
                Ok(()) = desired.changed() => {}
                // Its sender goes with the packet thread.
                Ok(()) = silent.changed() => {}
                () = retry_due => {}
                _ = look_around.tick() => self.look_around().await,
            }
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            self.heed(silent.borrow_and_update().clone());
            let current = desired.borrow_and_update().clone();
            let clean = self.reconcile(current).await;
            if clean {
                backoff.reset();
            }
            retry = (!clean).then(|| Instant::now() + backoff.wait());
        }
    }

    /// Peers that fell silent are out of names and backends from the next pass on; those that answer are back.
    fn heed(&mut self, silent: BTreeSet<Ipv4Addr>) {
        for vtep in silent.difference(&self.local.silent) {
            tracing::warn!(%vtep, "a node does not answer on the data path: its tasks get no new connections");
        }
        for vtep in self.local.silent.difference(&silent) {
            tracing::info!(%vtep, "a node answers on the data path again");
        }
        self.local.silent = silent;
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Carry(id, sandbox, ready) => {
                let turn = self.next_turn;
                self.next_turn += 1;
                let ports = sandbox.ports.iter();
                self.local.ports.extend(ports.map(|(net, task, port)| ((net.clone(), task.clone()), *port)));
                self.held.insert(id, Held { turn, sandbox, ready: Some(ready), released: None });
            }
            Command::Release(id, released) => match self.held.get_mut(&id) {
                Some(held) => {
                    for (network, task, _) in &held.sandbox.ports {
                        self.local.ports.remove(&(network.clone(), task.clone()));
                    }
                    held.released = Some(released);
                }
                // Nothing leads to it.
                None => _ = released.send(()),
            },
            Command::TaskEnded(task) => {
                self.done.task_ended(&task);
                self.tasks.forget_controller(&task);
            }
            Command::StopAll(stopped) => {
                self.is_stopping = true;
                self.stopping = Some(stopped);
            }
        }
    }

    /// What the host says about itself may have changed, and so may what was made on it.
    async fn look_around(&mut self) {
        match self.kernel.host.facts().await {
            Ok(facts) => {
                self.link.routed.send_replace(facts.routed_with(self.local.gwbridge));
                self.facts.send_replace(Arc::new(facts));
            }
            Err(error) => tracing::warn!("{}", explain(&error)),
        }
        if let Err(error) = self.recheck_host().await {
            tracing::warn!("{error}");
        }
    }

    /// One pass. Returns whether everything could be done.
    async fn reconcile(&mut self, desired: Option<Arc<Desired>>) -> bool {
        let empty = Desired::default();
        let current = desired.as_deref().unwrap_or(&empty);
        let cluster = Cluster::of(current);
        let wanted = self.wanted(&cluster);
        let mut failures = Vec::new();
        for action in plan(&self.done, &wanted) {
            match self.apply(&action, &cluster).await {
                Ok(()) => self.done.note(action),
                Err(error) => failures.push(Failure { action, error }),
            }
        }
        self.answer_owners(&failures);
        let in_place = desired.filter(|_| failures.is_empty());
        let clean = self.note_progress(in_place.as_ref().map(|set| set.revision), failures);
        if in_place.is_some() {
            self.link.in_place.send_replace(in_place);
        }
        clean
    }

    fn wanted(&self, cluster: &Cluster<'_>) -> Wanted {
        let held = self.held.iter().filter(|(_, held)| held.released.is_none());
        Wanted {
            mesh: project::mesh(cluster, &self.local),
            sandboxes: held.map(|(id, _)| id.clone()).collect(),
            snapshot: project::snapshot(cluster, &self.local),
            records: project::records(cluster, &self.local),
            views: self.views(cluster),
            tasks: if self.is_stopping { BTreeMap::new() } else { wanted_tasks(cluster) },
        }
    }

    fn views(&self, cluster: &Cluster<'_>) -> BTreeMap<ResolverId, View> {
        let mut held: Vec<_> = self.held.values().filter(|held| held.released.is_none()).collect();
        held.sort_by_key(|held| held.turn);
        let mut networks: BTreeMap<&ResolverId, Vec<NetworkId>> = BTreeMap::new();
        for Held { sandbox, .. } in held {
            let ports = sandbox.ports.iter().map(|(network, ..)| network.clone());
            networks.entry(&sandbox.resolver).or_default().extend(ports);
        }
        let resolvers = &self.facts.borrow().resolvers;
        let view = |(id, networks): (&ResolverId, Vec<_>)| {
            (id.clone(), project::view(cluster, &networks, resolvers))
        };
        networks.into_iter().map(view).collect()
    }

    /// Tells owners that their sandboxes are in place, or out of it.
    fn answer_owners(&mut self, failures: &[Failure]) {
        for (id, held) in &mut self.held {
            let Some(ready) = held.ready.take() else { continue };
            let failed = failures.iter().find(|failure| failure.concerns(id, &held.sandbox.resolver));
            // Fails when the owner stopped waiting; it releases the sandbox then.
            let _ = ready.send(failed.map_or(Ok(()), |failure| Err(failure.error.clone())));
        }
        let out =
            |id: &SandboxId, held: &mut Held| held.released.is_some() && !self.done.sandboxes.contains(id);
        for (_, held) in self.held.extract_if(.., out) {
            // Fails when the owner stopped waiting.
            let _ = held.released.map(|released| released.send(()));
        }
        if self.done.tasks.values().all(|task| *task == TaskDone::Ended)
            && let Some(stopped) = self.stopping.take()
        {
            let _ = stopped.send(());
        }
    }

    fn note_progress(&mut self, revision: Option<u64>, failures: Vec<Failure>) -> bool {
        let clean = failures.is_empty();
        let errors = failures.into_iter().map(|failure| failure.error).collect();
        self.progress.send_if_modified(|progress| {
            let new = Progress { revision: revision.or(progress.revision), errors };
            if new.errors != progress.errors {
                new.errors.iter().for_each(|error| tracing::warn!("{error}; trying again"));
            }
            std::mem::replace(progress, new.clone()) != new
        });
        clean
    }
}

/// The tasks with a process of their own. Attachments' processes are somebody else's.
fn wanted_tasks(cluster: &Cluster<'_>) -> BTreeMap<TaskId, TaskWanted> {
    let own = cluster.tasks.values().filter(|task| task.container.is_some());
    let wanted = |task: &&TaskAssignment| match (task.desired_state <= TaskState::Running, task.drained) {
        (true, _) => TaskWanted::Run,
        (false, false) => TaskWanted::Drain,
        (false, true) => TaskWanted::Stop,
    };
    own.map(|task| (task.id.clone(), wanted(task))).collect()
}
