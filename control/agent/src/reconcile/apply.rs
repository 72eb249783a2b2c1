//! One action of the plan, done.

use super::plan::Action;
use super::{Reconciler, ResolverId, SandboxId};
use crate::completion::on_a_thread;
use crate::explain::explain;
use crate::host::{self, Host, MeshError, MeshPlan, MeshReport};
use crate::project::{Cluster, SKEP0_PORT, sandboxing};
use crate::tasks::StopReason;
use skep_dataplane::ids::PortId;
use skep_dataplane::io::{AttachError, Handle, Tap, WorkerGone};
use skep_dataplane::snapshot::Snapshot;
use skep_dns::View;
use skep_model::TaskId;
use skep_model::node::PortConflict;
use std::sync::Arc;

/// What a reconciler works on.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) host: Arc<Host>,
    pub(crate) dataplane: Handle,
    pub(crate) dns: skep_dns::Server,
}

impl Kernel {
    /// On a thread that may block: the packet thread answers when it has done what was asked.
    pub(crate) async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&Handle) -> T + Send + 'static) -> T {
        let dataplane = self.dataplane.clone();
        on_a_thread(move || ask(&dataplane)).await
    }
}

impl Reconciler {
    /// The error is one sentence for people.
    pub(super) async fn apply(&mut self, action: &Action, cluster: &Cluster<'_>) -> Result<(), String> {
        match action {
            Action::ApplyMesh(mesh) => self.apply_mesh(mesh.clone()).await,
            Action::Attach(id) => self.attach(id).await,
            Action::Publish(snapshot) => self.publish(snapshot.clone()).await,
            Action::PublishNames(records) => {
                self.kernel.dns.publish(records.clone());
                Ok(())
            }
            Action::SetView(id, view) => self.set_view(id, view.clone()),
            Action::Start(id) => {
                self.start(id, cluster);
                Ok(())
            }
            Action::Decline(id) => {
                self.tasks.decline(id);
                Ok(())
            }
            Action::Stop(id) => {
                let reason = if self.is_stopping { StopReason::DaemonStops } else { StopReason::Wanted };
                self.tasks.stop(id, reason);
                Ok(())
            }
            Action::EndView(id) => {
                self.kernel.dns.detach(id);
                Ok(())
            }
            Action::Detach(id) => self.detach(id).await,
            // Its history is the manager's.
            Action::Forget(_) => Ok(()),
        }
    }

    async fn apply_mesh(&mut self, mesh: MeshPlan) -> Result<(), String> {
        let report = self.kernel.host.apply_mesh(mesh).await;
        self.take_report(report).await
    }

    /// What somebody else changed on the host is put right.
    pub(super) async fn recheck_host(&mut self) -> Result<(), String> {
        let report = self.kernel.host.recheck().await;
        self.take_report(report).await
    }

    async fn take_report(&mut self, report: Result<MeshReport, MeshError>) -> Result<(), String> {
        let failed = |why: String| format!("the routing mesh is not up to date on this node: {why}");
        let report = report.map_err(|error| failed(explain(&error)))?;
        self.report_conflicts(&report.conflicts);
        if let Some((port, tap)) = report.new_tap {
            self.kernel
                .ask(|dataplane| dataplane.detach(SKEP0_PORT))
                .await
                .map_err(|e| failed(explain(&e)))?;
            attach_taps(&self.kernel, vec![(port, tap)]).await.map_err(|error| failed(explain(&error)))?;
        }
        Ok(())
    }

    /// Published ports other programs hold, to the manager. The host has logged them.
    fn report_conflicts(&self, conflicts: &[host::PortConflict]) {
        let reported: Vec<_> = conflicts.iter().map(port_conflict).collect();
        self.link.conflicts.send_if_modified(|known| {
            let changed = *known != reported;
            *known = reported;
            changed
        });
    }

    async fn attach(&mut self, id: &SandboxId) -> Result<(), String> {
        let taps =
            self.held.get_mut(id).map(|held| std::mem::take(&mut held.sandbox.taps)).unwrap_or_default();
        attach_taps(&self.kernel, taps).await.map_err(|error| explain(&error))
    }

    async fn publish(&mut self, mut snapshot: Snapshot) -> Result<(), String> {
        self.generation += 1;
        snapshot.generation = self.generation;
        let snapshot = Arc::new(snapshot);
        self.kernel.ask(|dataplane| dataplane.publish(snapshot)).await.map_err(|error| packet_thread(&error))
    }

    /// The sockets come with the first sandbox of a resolver.
    fn set_view(&mut self, id: &ResolverId, view: View) -> Result<(), String> {
        let of_resolver = self.held.values_mut().filter(|held| held.sandbox.resolver == *id);
        match of_resolver.filter_map(|held| held.sandbox.sockets.take()).next() {
            Some((udp, tcp)) => {
                self.kernel.dns.attach(id.clone(), view, udp, tcp).map_err(|error| explain(&error))
            }
            None => {
                self.kernel.dns.set_view(id, view);
                Ok(())
            }
        }
    }

    fn start(&mut self, id: &TaskId, cluster: &Cluster<'_>) {
        // The plan is made from this very cluster.
        if let Some(task) = cluster.tasks.get(id) {
            self.tasks.start((*task).clone(), sandboxing(cluster, task));
        }
    }

    async fn detach(&mut self, id: &SandboxId) -> Result<(), String> {
        let ports = self.held.get(id).map(|held| held.sandbox.ports.iter().map(|(.., port)| *port).collect());
        let ports: Vec<PortId> = ports.unwrap_or_default();
        let detached =
            self.kernel.ask(move |dataplane| ports.iter().try_for_each(|port| dataplane.detach(*port)));
        detached.await.map_err(|error| packet_thread(&error))
    }
}

/// All of them, or none.
async fn attach_taps(kernel: &Kernel, taps: Vec<(PortId, Tap)>) -> Result<(), AttachError> {
    let attach = |dataplane: &Handle| {
        let mut attached = Vec::new();
        for (port, tap) in taps {
            if let Err(error) = dataplane.attach(port, tap) {
                // Fails only when the thread is gone, and the TAPs with it.
                let _ = attached.iter().try_for_each(|port| dataplane.detach(*port));
                return Err(error);
            }
            attached.push(port);
        }
        Ok(())
    };
    kernel.ask(attach).await
}

fn packet_thread(error: &WorkerGone) -> String {
    format!("{error}, so nothing is forwarded on this node: restart skepd and report what its log says")
}

fn port_conflict(conflict: &host::PortConflict) -> PortConflict {
    let holder = match &conflict.holder {
        Some(holder) => format!("{} (pid {})", holder.name, holder.pid),
        None => "another program".to_owned(),
    };
    PortConflict { protocol: conflict.protocol, port: conflict.published, holder }
}
