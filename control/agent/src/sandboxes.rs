//! Namespaces on the cluster's networks, from their making to their end: the same for tasks, containers
//! and attachments.

use crate::explain::explain;
use crate::host::{IngressRouting, InterfaceSpec, Sandbox, SandboxError, SandboxNetns, SandboxSpec};
use crate::project::{Place, Sandboxing, container_mtu, policy};
use crate::reconcile::{Carried, Carrier, CarryError, Kernel, ResolverId, SandboxId};
use skep_dataplane::PathStats;
use skep_dataplane::ids::{MacAddr, PortId};
use skep_dataplane::io::Handle;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Clones make sandboxes of the same node.
#[derive(Clone)]
pub(crate) struct Sandboxes {
    kernel: Kernel,
    carrier: Carrier,
    /// In bytes.
    underlay_mtu: u32,
    next_port: Arc<AtomicU32>,
}

pub(crate) struct SandboxRequest {
    pub(crate) id: SandboxId,
    pub(crate) netns: SandboxNetns,
    pub(crate) sandboxing: Sandboxing,
    pub(crate) resolver: ResolverId,
    /// Whether the resolver is new and needs sockets in the namespace.
    pub(crate) new_resolver: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error(transparent)]
    Host(#[from] SandboxError),
    #[error(transparent)]
    Carry(#[from] CarryError),
}

impl Sandboxes {
    pub(crate) fn new(kernel: Kernel, carrier: Carrier, underlay_mtu: u32) -> Self {
        // 0 is skep0's.
        Self { kernel, carrier, underlay_mtu, next_port: Arc::new(AtomicU32::new(1)) }
    }

    /// Returns when the sandbox can be reached and can ask for names. On an error nothing is left of it.
    pub(crate) async fn create(&self, request: SandboxRequest) -> Result<Sandbox, CreateError> {
        let SandboxRequest { id, netns, sandboxing, resolver, new_resolver } = request;
        let Sandboxing { places, egress, udp_target_ports } = sandboxing;
        let ports: Vec<PortId> = places.iter().map(|_| self.next_port()).collect();
        let paths = self.paths().await;
        let interface = |(index, (place, port)): (usize, (&Place, &PortId))| {
            let mtu = container_mtu(self.underlay_mtu, policy(&place.network), &paths);
            interface(index, place, *port, mtu, &udp_target_ports)
        };
        let interfaces = places.iter().zip(&ports).enumerate().map(interface).collect();
        let spec = SandboxSpec { id: id.clone(), netns, interfaces, egress, dns: new_resolver };
        let mut sandbox = self.kernel.host.create_sandbox(spec).await?;
        let carried = Carried {
            ports: places
                .into_iter()
                .zip(ports)
                .map(|(place, port)| (place.network.id, place.task, port))
                .collect(),
            taps: std::mem::take(&mut sandbox.taps),
            resolver,
            sockets: sandbox.dns.take(),
        };
        match self.carrier.carry(id, carried).await {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                self.remove(sandbox).await;
                Err(error.into())
            }
        }
    }

    /// Out of names and forwarding first, then out of the kernel.
    pub(crate) async fn remove(&self, sandbox: Sandbox) {
        self.carrier.release(sandbox.id.clone()).await;
        if let Err(error) = self.kernel.host.remove_sandbox(sandbox).await {
            tracing::warn!("{}", explain(&error));
        }
    }

    /// None where the packet thread has ended, and with it every interface.
    async fn paths(&self) -> Vec<PathStats> {
        self.kernel.ask(Handle::stats).await.map(|stats| stats.engine.paths).unwrap_or_default()
    }

    /// 4 billion ports pass before a number comes again.
    fn next_port(&self) -> PortId {
        PortId(self.next_port.fetch_add(1, Ordering::Relaxed))
    }
}

fn interface(index: usize, place: &Place, port: PortId, mtu: u16, udp_target_ports: &[u16]) -> InterfaceSpec {
    let Place { network, addr, .. } = place;
    let ingress = network
        .ingress
        .then(|| IngressRouting { gateway: network.gateway, udp_target_ports: udp_target_ports.to_vec() });
    InterfaceSpec {
        name: format!("eth{index}"),
        port,
        addr: *addr,
        mac: MacAddr::for_ip(addr.addr()),
        mtu,
        offloads: true,
        ingress,
    }
}
