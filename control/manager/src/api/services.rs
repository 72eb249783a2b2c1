//! Creating, scaling and removing services.

use super::{ApiError, defaults, lookup, names, ports, service_spec, unsupported};
use crate::allocator;
use crate::db::Db;
use crate::draft::Draft;
use crate::orchestrator::RESTART_POLICY;
use crate::state::{Change, State};
use jiff::Timestamp;
use serde_json::Value;
use skep_model::cluster::Meta;
use skep_model::service::{Endpoint, Mode, Service, ServiceSpec};
use skep_model::{NetworkId, ServiceId};

/// Bounds what every run of the control loop looks at.
const MAX_SERVICES: usize = 10_000;

/// Creates a service. An empty name gets a made-up one.
pub fn create(db: &Db, spec: &ServiceSpec) -> Result<ServiceId, ApiError> {
    let id = ServiceId::random();
    db.update(|state| plan_create(state, &id, spec.clone(), Timestamp::now()))?;
    Ok(id)
}

/// Changes a service that is at `version` (its `Version.Index`). The number of
/// replicas, the labels and the placement can change.
pub fn update(db: &Db, reference: &str, version: u64, spec: &ServiceSpec) -> Result<(), ApiError> {
    db.update(|state| plan_update(state, reference, version, spec.clone(), Timestamp::now()))?;
    Ok(())
}

/// Removes a service; the control loop stops and removes its tasks.
pub fn remove(db: &Db, reference: &str) -> Result<(), ApiError> {
    db.update(|state| {
        let service = lookup::service(state, reference)?;
        Ok::<_, ApiError>(vec![Change::DeleteService(service.id.clone())])
    })?;
    Ok(())
}

pub(crate) fn plan_create(
    state: &State,
    id: &ServiceId,
    mut spec: ServiceSpec,
    now: Timestamp,
) -> Result<Vec<Change>, ApiError> {
    let taken = |name: &str| state.services.values().any(|s| s.spec.name.eq_ignore_ascii_case(name));
    if spec.name.is_empty() {
        spec.name = names::random(taken);
    }
    let spec = service_spec::read(state, spec)?;
    if taken(&spec.name) {
        let text = format!("name conflicts with an existing object: service {} already exists", spec.name);
        return Err(ApiError::AlreadyExists(text));
    }
    ports::check_free(state, None, &spec.endpoint_spec)?;
    if allocator::publishes(&spec) && allocator::ingress(state).is_none() {
        let text = "service needs ingress network, but no ingress network is present";
        return Err(ApiError::FailedPrecondition(text.to_owned()));
    }
    if state.services.len() >= MAX_SERVICES {
        let text = format!("the cluster has {MAX_SERVICES} services, the most there may be");
        return Err(ApiError::FailedPrecondition(text));
    }
    let mut draft = Draft::new(state, now);
    draft.put_service(Service {
        id: id.clone(),
        meta: Meta::new(now),
        spec,
        previous_spec: None,
        endpoint: Endpoint::default(),
        pending_reason: String::new(),
    });
    allocator::allocate_services(&mut draft);
    Ok(draft.into_changes())
}

pub(crate) fn plan_update(
    state: &State,
    reference: &str,
    version: u64,
    spec: ServiceSpec,
    now: Timestamp,
) -> Result<Vec<Change>, ApiError> {
    let service = lookup::service(state, reference)?;
    if service.meta.version.index != version {
        return Err(ApiError::OutOfSequence);
    }
    if spec.name != service.spec.name {
        return Err(ApiError::unimplemented("renaming services is not supported"));
    }
    let spec = service_spec::read(state, spec)?;
    if spec.mode.is_global() != service.spec.mode.is_global() {
        return Err(ApiError::unimplemented("service mode change is not allowed"));
    }
    refuse_other_changes(&service.spec, &spec)?;
    let mut draft = Draft::new(state, now);
    let previous_spec = Some(Box::new(service.spec.clone()));
    draft.put_service(Service { spec, previous_spec, ..service.clone() });
    Ok(draft.into_changes())
}

fn refuse_other_changes(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), ApiError> {
    let (old, new) = (comparable(old), comparable(new));
    let fields = ["TaskTemplate", "EndpointSpec", "UpdateConfig", "RollbackConfig"];
    match fields.into_iter().find(|field| old.get(field) != new.get(field)) {
        Some(field) => Err(ApiError::unimplemented(format!(
            "{field} cannot be changed in this release, only replicas, labels, placement and restart policy: \
             remove the service and create it again"
        ))),
        None => Ok(()),
    }
}

/// The spec without what can change, with defaults, and without fields that ask for nothing: some clients
/// fill in the ones and leave out the others when they send back what they read.
fn comparable(spec: &ServiceSpec) -> Value {
    let mut spec = ServiceSpec { mode: Mode::default(), ..spec.clone() };
    spec.task_template.placement = None;
    spec.task_template.extra.remove(RESTART_POLICY);
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    defaults::insert(&mut value);
    strip(&mut value);
    value
}

fn strip(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(strip);
        fields.retain(|_, value| !unsupported::asks_nothing(value));
    }
}

/// Services that have the network in their spec.
pub(super) fn using<'a>(state: &'a State, network: &'a NetworkId) -> impl Iterator<Item = &'a Service> {
    let uses = move |service: &&Service| allocator::networks_of(&service.spec).any(|id| id == *network);
    state.services.values().filter(uses)
}
