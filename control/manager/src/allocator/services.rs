//! What a service needs before it can have tasks: its VIPs and its published ports.

use super::addresses::{AddressError, Addresses};
use super::ports::{self, PortsExhausted};
use crate::draft::Draft;
use crate::state::State;
use skep_model::service::{Endpoint, EndpointMode, PublishMode, Service, ServiceSpec, VirtualIp};
use skep_model::{NetworkId, ServiceId};
use std::collections::BTreeMap;

/// Shown as the reason why a service's tasks wait. The first words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shortage {
    #[error("service needs ingress network, but no ingress network is present")]
    Ingress,
    #[error("{0}: could not find an available IP while allocating VIP")]
    Vip(AddressError),
    #[error(transparent)]
    Port(#[from] PortsExhausted),
}

/// The user's networks of a service; the API stored ids.
pub(crate) fn networks_of(spec: &ServiceSpec) -> impl Iterator<Item = NetworkId> {
    spec.task_template.networks.iter().map(|config| NetworkId(config.target.clone()))
}

/// Whether the service has a foot on the ingress network.
pub(crate) fn publishes(spec: &ServiceSpec) -> bool {
    spec.endpoint_spec.ports.iter().any(|port| port.publish_mode == PublishMode::Ingress)
}

/// Brings every service's endpoint in line with its spec, oldest service first.
pub(crate) fn allocate(draft: &mut Draft<'_>) {
    let mut outdated: Vec<Service> = draft
        .state()
        .services
        .values()
        .filter(|service| is_outdated(draft.state(), service))
        .cloned()
        .collect();
    if outdated.is_empty() {
        return;
    }
    outdated.sort_by(|a, b| (a.meta.created_at, &a.id).cmp(&(b.meta.created_at, &b.id)));
    let mut addresses = Addresses::of(draft.state());
    let mut taken_ports = ports::ingress_ports(draft.state());
    for mut service in outdated {
        match endpoint_for(draft.state(), &service, &mut addresses, &mut taken_ports) {
            Ok(endpoint) => {
                service.endpoint = endpoint;
                service.pending_reason = String::new();
            }
            Err(error) => service.pending_reason = error.to_string(),
        }
        draft.put_service(service);
    }
    addresses.store(draft);
}

fn is_outdated(state: &State, service: &Service) -> bool {
    let wanted = vip_networks(state, &service.spec);
    let has = service.endpoint.virtual_ips.iter().map(|vip| &vip.network_id);
    !service.pending_reason.is_empty()
        || service.endpoint.spec != service.spec.endpoint_spec
        || !wanted.is_ok_and(|wanted| wanted.iter().eq(has))
}

/// Networks on which the service has a VIP, in the order Docker lists them.
fn vip_networks(state: &State, spec: &ServiceSpec) -> Result<Vec<NetworkId>, Shortage> {
    if spec.endpoint_spec.mode == EndpointMode::Dnsrr {
        return Ok(Vec::new());
    }
    let ingress = match publishes(spec) {
        true => Some(super::ingress(state).ok_or(Shortage::Ingress)?.id.clone()),
        false => None,
    };
    Ok(ingress.into_iter().chain(networks_of(spec)).collect())
}

fn endpoint_for(
    state: &State,
    service: &Service,
    addresses: &mut Addresses,
    taken_ports: &mut BTreeMap<(skep_model::service::Protocol, u16), ServiceId>,
) -> Result<Endpoint, Shortage> {
    let networks = vip_networks(state, &service.spec)?;
    let given =
        |network: &NetworkId| service.endpoint.virtual_ips.iter().find(|vip| vip.network_id == *network);
    let open: Vec<NetworkId> = networks.iter().filter(|network| given(network).is_none()).cloned().collect();
    let ports = ports::fill(service, state, taken_ports)?;
    let mut new = addresses.take(&open).map_err(Shortage::Vip)?.into_iter();
    let vip = |network: NetworkId| match given(&network) {
        Some(vip) => Some(vip.clone()),
        None => Some(VirtualIp { network_id: network, addr: new.next()? }),
    };
    let virtual_ips = networks.into_iter().filter_map(vip).collect();
    Ok(Endpoint { spec: service.spec.endpoint_spec.clone(), ports, virtual_ips })
}
