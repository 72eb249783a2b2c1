//! Reads a service spec as a client sent it: refuses what cannot be, fills in what Docker fills in.

use super::container_spec::{self, MAX_LABEL_BYTES};
use super::names::{self, NameError};
use super::{ApiError, lookup, ports, unsupported};
use crate::orchestrator::RestartPolicy;
use crate::placement::Placement;
use crate::state::State;
use skep_model::service::{NetworkAttachmentConfig, Replicated, ServiceSpec, TaskSpec};
use std::collections::{BTreeMap, BTreeSet};

/// A /19 of addresses. Far above what one subnet of the usual size serves, and little enough that one
/// mistyped number cannot fill the store.
pub const MAX_REPLICAS: u64 = 8_192;
/// Each network is an interface of every task.
const MAX_NETWORKS: usize = 32;
const MAX_ALIASES: usize = 16;
/// Every task has a copy.
const MAX_PLACEMENT_BYTES: usize = 16 << 10;

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::InvalidArgument(error.to_string())
    }
}

/// The spec as it is stored: networks by id, one mode, replicas filled in.
pub(super) fn read(state: &State, mut spec: ServiceSpec) -> Result<ServiceSpec, ApiError> {
    names::check(&spec.name)?;
    unsupported::check(&spec)?;
    check_labels(&spec.labels)?;
    read_mode(&mut spec)?;
    check_task(&spec.task_template)?;
    check_placement(&spec)?;
    ports::check(&spec.endpoint_spec)?;
    let networks = std::mem::take(&mut spec.networks);
    if spec.task_template.networks.is_empty() {
        spec.task_template.networks = networks;
    }
    resolve_networks(state, &mut spec.task_template.networks)?;
    Ok(spec)
}

fn read_mode(spec: &mut ServiceSpec) -> Result<(), ApiError> {
    let mode = &mut spec.mode;
    if mode.replicated.is_some() && mode.global.is_some() {
        return Err(ApiError::BadRequest("must specify only one service mode".to_owned()));
    }
    let replicas = mode.replicas();
    if replicas > MAX_REPLICAS {
        return Err(ApiError::invalid(format!(
            "a service can have {MAX_REPLICAS} replicas at most, {replicas} were asked for"
        )));
    }
    if mode.global.is_none() {
        mode.replicated = Some(Replicated { replicas: Some(replicas) });
    }
    Ok(())
}

fn check_task(task: &TaskSpec) -> Result<(), ApiError> {
    let (Some(container), None) = (&task.container_spec, &task.network_attachment_spec) else {
        return Err(ApiError::BadRequest("mismatched Runtime and *Spec fields".to_owned()));
    };
    RestartPolicy::of(task).map_err(|error| ApiError::invalid(format!("TaskSpec: {error}")))?;
    container_spec::check(container)
}

fn check_placement(spec: &ServiceSpec) -> Result<(), ApiError> {
    let placement =
        Placement::of(&spec.task_template).map_err(|error| ApiError::invalid(error.to_string()))?;
    let bytes = serde_json::to_vec(&spec.task_template.placement).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_PLACEMENT_BYTES {
        return Err(ApiError::invalid(format!("Placement is longer than {MAX_PLACEMENT_BYTES} bytes")));
    }
    match placement.max_per_node.is_some() && spec.mode.is_global() {
        true => Err(ApiError::invalid(
            "replicas-max-per-node can only be used with replicated mode: a global service has one task on every node",
        )),
        false => Ok(()),
    }
}

pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ApiError> {
    match labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_LABEL_BYTES {
        true => Err(labels_too_long()),
        false => Ok(()),
    }
}

pub(super) fn labels_too_long() -> ApiError {
    ApiError::invalid(format!("labels are longer than {MAX_LABEL_BYTES} bytes altogether"))
}

fn resolve_networks(state: &State, networks: &mut [NetworkAttachmentConfig]) -> Result<(), ApiError> {
    if networks.len() > MAX_NETWORKS {
        return Err(ApiError::invalid(format!("a service can be on {MAX_NETWORKS} networks at most")));
    }
    let mut seen = BTreeSet::new();
    for config in networks {
        resolve(state, config)?;
        if !seen.insert(config.target.clone()) {
            let name = lookup::network(state, &config.target)?.spec.name.clone();
            return Err(ApiError::invalid(format!("network {name} is given twice")));
        }
    }
    Ok(())
}

fn resolve(state: &State, config: &mut NetworkAttachmentConfig) -> Result<(), ApiError> {
    if let "host" | "bridge" | "none" = config.target.as_str() {
        let name = &config.target;
        return Err(ApiError::unimplemented(format!(
            "network {name} is not supported in this release: use an overlay network"
        )));
    }
    let network = lookup::network(state, &config.target)?;
    if network.spec.ingress {
        return Err(ApiError::invalid(format!(
            "Service cannot be explicitly attached to the ingress network \"{}\"",
            network.spec.name
        )));
    }
    if config.aliases.len() > MAX_ALIASES {
        return Err(ApiError::invalid(format!(
            "a service can have {MAX_ALIASES} aliases per network at most"
        )));
    }
    if let Some(alias) = config.aliases.iter().find(|alias| names::check(alias).is_err()) {
        return Err(ApiError::invalid(format!("alias {alias}: {}", NameError::Malformed)));
    }
    config.target = network.id.0.clone();
    Ok(())
}
