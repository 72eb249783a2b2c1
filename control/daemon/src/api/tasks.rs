//! `/tasks`.

use super::error::Result;
use super::extract::Params;
use super::filters::Filters;
use super::{App, render};
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;
use skep_manager::api::lookup;
use skep_manager::state::State as ClusterState;
use skep_model::task::Task;

#[derive(Deserialize)]
pub(crate) struct ListParams {
    filters: Option<String>,
}

const FILTERS: [&str; 8] =
    ["id", "name", "label", "service", "node", "desired-state", "_up-to-date", "runtime"];

pub(crate) async fn list(State(node): App, Params(params): Params<ListParams>) -> Result<Json<Vec<Value>>> {
    let state = node.require_manager()?.db().state();
    let filters = Filters::parse(params.filters.as_deref(), &FILTERS)?;
    filters.one_of("desired-state", &["ready", "running", "shutdown", "complete", "remove", "accepted"])?;
    let tasks = state
        .tasks
        .values()
        // Attachments are tasks of the runtime "attachment"; Docker lists them only when asked to.
        .filter(|task| match task.is_attachment() {
            true => filters.has("runtime") && filters.any("runtime", |runtime| runtime == "attachment"),
            false => filters.any("runtime", |runtime| runtime == "container"),
        })
        .filter(|task| is_listed(task, &state, &filters))
        .map(|task| render::task(task, &state))
        .collect();
    Ok(Json(tasks))
}

fn is_listed(task: &Task, state: &ClusterState, filters: &Filters) -> bool {
    let service = state.services.get(&task.service_id);
    let hostname = state.nodes.get(&task.node_id).map(|node| node.description.hostname.as_str());
    filters.any("id", |id| task.id.as_str().starts_with(id))
        && filters.any("name", |name| task.name().starts_with(name))
        && filters.any("service", |wanted| task.service_id.as_str() == wanted || task.service_name == wanted)
        && filters.any("node", |wanted| task.node_id.as_str() == wanted || hostname == Some(wanted))
        && filters.any("desired-state", |wanted| task.desired_state.to_string() == wanted)
        && filters.any("_up-to-date", |_| service.is_none_or(|s| s.spec.task_template == task.spec))
        && service.is_none_or(|s| filters.labels(&s.spec.labels))
}

pub(crate) async fn inspect(State(node): App, Path(reference): Path<String>) -> Result<Json<Value>> {
    let state = node.require_manager()?.db().state();
    Ok(Json(render::task(lookup::task(&state, &reference)?, &state)))
}
