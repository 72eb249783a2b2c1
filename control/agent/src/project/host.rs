//! What the host's kernel needs: the routing mesh, and each container's place on its networks.

use super::dns::has_egress;
use super::{Cluster, Local, SKEP0_PORT, policy};
use crate::host::{MeshPlan, PublishedPort, Skep0};
use ipnet::Ipv4Net;
use skep_dataplane::ids::MacAddr;
use skep_model::assign::{NetworkAssignment, ServiceAssignment, TaskAssignment};
use skep_model::service::Protocol;
use skep_model::task::Attachment;
use skep_model::{NetworkId, TaskId};

#[cfg(test)]
mod tests;

/// None while this node has no address on the ingress network.
pub(crate) fn mesh(cluster: &Cluster<'_>, local: &Local) -> Option<MeshPlan> {
    let ingress = cluster.ingress()?;
    let addr = cluster.this?.ingress_addr?;
    let mtu = local.mtu(policy(ingress));
    let skep0 = Skep0 { port: SKEP0_PORT, addr, mac: MacAddr::for_ip(addr.addr()), mtu };
    let mut ports: Vec<_> =
        cluster.services.values().flat_map(|service| published(service, &ingress.id)).collect();
    ports.sort();
    let mut reserved: Vec<_> = cluster.networks.values().map(|network| network.subnet).collect();
    reserved.sort();
    let peers = cluster.peers.values().map(|peer| peer.data_path_addr).collect();
    Some(MeshPlan { skep0, ports, reserved, peers })
}

fn published<'a>(
    service: &'a ServiceAssignment,
    ingress: &NetworkId,
) -> impl Iterator<Item = PublishedPort> + 'a {
    let foot = service.networks.iter().find(|foot| foot.network == *ingress);
    let vip = foot.and_then(|foot| foot.vip);
    // The mesh has no SCTP, and the API refuses to publish it.
    let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Sctp);
    ports.filter_map(move |port| {
        let (protocol, published, target) = (port.protocol, port.published_port, port.target_port);
        Some(PublishedPort { protocol, published, vip: vip?, target })
    })
}

/// One address of a container on one network of this node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) task: TaskId,
    pub(crate) network: NetworkAssignment,
    /// With the network's prefix length.
    pub(crate) addr: Ipv4Net,
}

/// What a container gets besides its places.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sandboxing {
    pub(crate) places: Vec<Place>,
    pub(crate) egress: bool,
    /// Published UDP target ports, for answers from the ingress address.
    pub(crate) udp_target_ports: Vec<u16>,
}

/// A network the task is on isn't among the node's assignments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manager assigned {task} without its network {network}")]
pub(crate) struct UnknownNetwork {
    task: TaskId,
    network: NetworkId,
}

/// How to build the network of a task of a service.
pub(crate) fn sandboxing(cluster: &Cluster<'_>, task: &TaskAssignment) -> Result<Sandboxing, UnknownNetwork> {
    let places = task.attachments.iter().map(|attachment| place(cluster, &task.id, attachment));
    let places = places.collect::<Result<Vec<_>, _>>()?;
    let service = task.service.as_ref().and_then(|id| cluster.services.get(id));
    let ports = service.map(|service| service.ports.as_slice()).unwrap_or_default();
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    Ok(Sandboxing { udp_target_ports: udp.map(|port| port.target_port).collect(), ..Sandboxing::of(places) })
}

pub(crate) fn place(
    cluster: &Cluster<'_>,
    task: &TaskId,
    attachment: &Attachment,
) -> Result<Place, UnknownNetwork> {
    let (task, network) = (task.clone(), attachment.network.clone());
    match cluster.networks.get(&network) {
        Some(assigned) => Ok(Place { task, network: (*assigned).clone(), addr: attachment.addr }),
        None => Err(UnknownNetwork { task, network }),
    }
}

impl Sandboxing {
    /// Of a container that publishes nothing. Ingress comes last, so that `eth0` is the first network the
    /// user named.
    pub(crate) fn of(mut places: Vec<Place>) -> Self {
        places.sort_by_key(|place| place.network.ingress);
        let egress = has_egress(places.iter().map(|place| &place.network));
        Self { places, egress, udp_target_ports: Vec::new() }
    }
}
