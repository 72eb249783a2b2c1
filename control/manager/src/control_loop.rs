//! Brings the cluster's objects towards what the users asked for. Level-triggered: every run looks at
//! the whole state and at the clock, whatever happened in between, so that nothing depends on an event
//! that was seen.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod anything;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod running;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

use crate::db::{Db, UpdateError};
use crate::draft::{Draft, TaskIds};
use crate::state::{Change, State};
use crate::{allocator, orchestrator, scheduler};
use jiff::Timestamp;
use skep_model::TaskId;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// Each pass reacts to what the one before decided; three settle everything known. The rest of a plan
/// that does not settle is made in the next run.
const MAX_PASSES: usize = 8;
/// Wait after a store that would not take a plan.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait without a look at the clock, which somebody may have set meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What to write, and when to look again although nothing changed.
#[derive(Debug, Default)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub next_wakeup: Option<Timestamp>,
    /// Objects that should not be possible and were skipped, for the log.
    pub problems: Vec<String>,
}

/// Runs until `shutdown` becomes true or its sender is gone.
pub async fn run(db: Db, mut shutdown: watch::Receiver<bool>) {
    let mut revision = db.watch();
    let mut reported = Vec::new();
    loop {
        revision.borrow_and_update();
        let wait = step(&db, &mut reported).await;
        tokio::select! {
            changed = revision.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
            stop = shutdown.wait_for(|stop| *stop) => {
                drop(stop);
                return;
            }
        }
    }
}

/// Plans and commits once; says how long to wait if nothing changes. Problems are logged when they change.
async fn step(db: &Db, reported: &mut Vec<String>) -> Duration {
    let db = db.clone();
    let committed = tokio::task::spawn_blocking(move || commit_plan(&db)).await;
    match committed {
        Ok(Ok(plan)) => {
            let new = plan.problems.iter().filter(|problem| !reported.contains(problem));
            new.for_each(|problem| tracing::warn!("{problem}"));
            *reported = plan.problems;
            until(plan.next_wakeup, Timestamp::now())
        }
        Ok(Err(error)) => {
            let problem = format!("the plan could not be written: {error}");
            if !reported.contains(&problem) {
                tracing::error!("{problem}");
            }
            *reported = vec![problem];
            RETRY
        }
        Err(panicked) => {
            tracing::error!("the control loop failed: {panicked}");
            RETRY
        }
    }
}

fn commit_plan(db: &Db) -> Result<Plan, UpdateError<Infallible>> {
    let mut latest = Plan::default();
    db.update(|state| {
        latest = plan(state, Timestamp::now());
        Ok(std::mem::take(&mut latest.changes))
    })?;
    Ok(latest)
}

pub(crate) fn until(wakeup: Option<Timestamp>, now: Timestamp) -> Duration {
    let wait = wakeup.map(|time| time.duration_since(now));
    // A wait that is over comes out negative.
    wait.map_or(MAX_WAIT, |wait| Duration::try_from(wait).unwrap_or_default().min(MAX_WAIT))
}

/// What the state lacks at `now`. The plan of a state that a plan was applied to is empty.
pub fn plan(state: &State, now: Timestamp) -> Plan {
    plan_with(state, now, &mut TaskId::random)
}

pub(crate) fn plan_with(state: &State, now: Timestamp, ids: TaskIds<'_>) -> Plan {
    let mut draft = Draft::new(state, now);
    let settled = (0..MAX_PASSES).any(|_| {
        draft.start_pass();
        pass(&mut draft, ids);
        !draft.is_dirty()
    });
    if !settled {
        draft.report("the plan does not settle; it goes on in the next run".to_owned());
        draft.wake_at(now);
    }
    let (next_wakeup, problems) = (draft.wakeup(), draft.take_problems());
    Plan { changes: draft.into_changes(), next_wakeup, problems }
}

fn pass(draft: &mut Draft<'_>, ids: TaskIds<'_>) {
    for (network, error) in allocator::allocate_networks(draft) {
        draft.report(format!("network {network} has no subnet: {error}"));
    }
    allocator::allocate_nodes(draft);
    allocator::allocate_services(draft);
    orchestrator::run(draft, ids);
    orchestrator::reap(draft);
    allocator::allocate_tasks(draft);
    scheduler::run(draft);
}
