//! Rules for published ports.

use super::{ApiError, names};
use crate::allocator::ingress_ports;
use crate::state::State;
use skep_model::ServiceId;
use skep_model::cluster::DEFAULT_LISTEN_PORT;
use skep_model::service::{EndpointMode, EndpointSpec, PortConfig, Protocol, PublishMode};
use std::collections::BTreeSet;

/// Every node holds a socket and a rule per published port.
const MAX_PORTS: usize = 256;
/// With an underscore before it, a name is a label of its SRV record (RFC 2782; RFC 1035 §2.3.4).
const MAX_NAME: usize = 62;

/// What can be said of the ports without knowing the cluster.
pub(super) fn check(spec: &EndpointSpec) -> Result<(), ApiError> {
    if spec.ports.len() > MAX_PORTS {
        return Err(ApiError::invalid(format!(
            "EndpointSpec: a service can publish {MAX_PORTS} ports at most"
        )));
    }
    spec.ports.iter().try_for_each(check_port)?;
    if spec.mode == EndpointMode::Dnsrr && !spec.ports.is_empty() {
        let text = "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
        return Err(ApiError::invalid(text));
    }
    let mut published = BTreeSet::new();
    let mut fixed = spec.ports.iter().filter(|port| port.published_port != 0);
    match fixed.all(|port| published.insert((port.protocol, port.published_port))) {
        true => Ok(()),
        false => Err(ApiError::invalid("EndpointSpec: duplicate published ports provided")),
    }
}

fn check_port(port: &PortConfig) -> Result<(), ApiError> {
    let PortConfig { target_port: target, published_port: published, .. } = port;
    if port.publish_mode == PublishMode::Host {
        return Err(ApiError::unimplemented(format!(
            "port {published}: publish mode host is not supported in this release: use mode ingress"
        )));
    }
    if port.protocol == Protocol::Sctp {
        return Err(ApiError::unimplemented(format!(
            "port {published}: protocol sctp is not supported in this release: use tcp or udp"
        )));
    }
    if *target == 0 {
        return Err(ApiError::invalid("EndpointSpec: TargetPort must be from 1 to 65535"));
    }
    if !port.name.is_empty() && (names::check(&port.name).is_err() || port.name.len() > MAX_NAME) {
        return Err(ApiError::invalid(format!(
            "EndpointSpec: port {target} has an invalid name: use letters, digits, '-' and '_', {MAX_NAME} \
             characters at most, or leave it out"
        )));
    }
    Ok(())
}

/// Refuses ports that another service or the cluster itself uses.
pub(super) fn check_free(
    state: &State,
    own: Option<&ServiceId>,
    spec: &EndpointSpec,
) -> Result<(), ApiError> {
    let taken = ingress_ports(state);
    for port in spec.ports.iter().filter(|port| port.published_port != 0) {
        let number = port.published_port;
        let holder = taken.get(&(port.protocol, number)).filter(|holder| Some(*holder) != own);
        if let Some(service) = holder.and_then(|holder| state.services.get(holder)) {
            let (name, id) = (&service.spec.name, &service.id);
            return Err(ApiError::invalid(format!(
                "port '{number}' is already in use by service '{name}' ({id}) as an ingress port"
            )));
        }
        if let Some(use_) = own_use(state, port.protocol, number) {
            return Err(ApiError::invalid(format!(
                "port '{number}' is already in use by Skep itself ({use_} of every node): publish another one"
            )));
        }
    }
    Ok(())
}

fn own_use(state: &State, protocol: Protocol, port: u16) -> Option<&'static str> {
    let managers = state.nodes.values().filter_map(|node| Some(node.manager_status.as_ref()?.addr.port()));
    let mut control = managers.chain([DEFAULT_LISTEN_PORT]);
    match protocol {
        Protocol::Tcp => control.any(|own| own == port).then_some("the managers' port"),
        Protocol::Udp => (state.cluster.as_ref()?.data_path_port == port).then_some("the data path port"),
        Protocol::Sctp => None,
    }
}
