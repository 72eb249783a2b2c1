//! Changing the cluster itself: its settings and its join tokens.

use super::cluster_spec::Settings;
use super::{ApiError, cluster_spec};
use crate::db::Db;
use crate::draft::Draft;
use crate::state::{Change, State};
use jiff::Timestamp;
use skep_model::cluster::{ClusterSpec, JoinTokens};
use skep_model::token::JoinToken;

/// Which join tokens get a new secret. The old ones are refused from the same moment on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    pub worker: bool,
    pub manager: bool,
}

/// Changes the cluster that is at `version` (its `Version.Index`). `root_der` is its root certificate, which
/// new tokens pin. What `spec` leaves out stays as it is.
pub fn update(
    db: &Db,
    root_der: &[u8],
    version: u64,
    spec: &ClusterSpec,
    rotate: Rotate,
) -> Result<(), ApiError> {
    let settings = cluster_spec::read(spec)?;
    let token = || JoinToken::generate(root_der).to_string();
    let fresh = JoinTokens { worker: token(), manager: token() };
    db.update(|state| plan_update(state, version, &settings, rotate, &fresh, Timestamp::now()))?;
    Ok(())
}

pub(crate) fn plan_update(
    state: &State,
    version: u64,
    settings: &Settings,
    rotate: Rotate,
    fresh: &JoinTokens,
    now: Timestamp,
) -> Result<Vec<Change>, ApiError> {
    let missing = || ApiError::Unavailable("the cluster object is missing".to_owned());
    let mut cluster = state.cluster.clone().ok_or_else(missing)?;
    if cluster.meta.version.index != version {
        return Err(ApiError::OutOfSequence);
    }
    settings.lay_over(&mut cluster.spec);
    if rotate.worker {
        cluster.join_tokens.worker.clone_from(&fresh.worker);
    }
    if rotate.manager {
        cluster.join_tokens.manager.clone_from(&fresh.manager);
    }
    let mut draft = Draft::new(state, now);
    draft.put_cluster(cluster);
    Ok(draft.into_changes())
}
