//! The loop as it runs: over a real store, woken by changes and by the clock.

use super::run;
use super::sim::{Sim, replicas, spec};
use crate::db::Db;
use crate::state::{Change, State};
use crate::store::RedbStore;
use crate::{api, control_loop};
use serde_json::json;
use skep_model::service::ServiceSpec;
use skep_model::task::{Task, TaskState};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(20);

struct Running {
    db: Db,
    stop: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

/// A loop over a cluster of two nodes.
fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(Arc::new(RedbStore::open(&dir.path().join("store")).unwrap())).unwrap();
    let model = Sim::new(2).state;
    let mut objects = vec![Change::PutCluster(Box::new(model.cluster.unwrap()))];
    objects.extend(model.networks.into_values().map(|network| Change::PutNetwork(Box::new(network))));
    objects.extend(model.nodes.into_values().map(|node| Change::PutNode(Box::new(node))));
    db.update(|_| Ok::<_, Infallible>(objects.clone())).unwrap();
    let (stop, stopped) = watch::channel(false);
    let ended = tokio::spawn(run(db.clone(), stopped));
    Running { db, stop, ended, _dir: dir }
}

impl Running {
    async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) -> Arc<State> {
        let mut revision = self.db.watch();
        let reached = async {
            loop {
                let state = self.db.state();
                if wanted(&state) {
                    return state;
                }
                revision.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, reached).await.unwrap_or_else(|_| panic!("never happened: {what}"))
    }

    fn report(&self, task: &Task, state: TaskState) {
        let mut task = task.clone();
        task.status.state = state;
        task.status.timestamp = jiff::Timestamp::now();
        self.db.update(|_| Ok::<_, Infallible>(vec![Change::PutTask(Box::new(task.clone()))])).unwrap();
    }
}

fn failing_fast() -> ServiceSpec {
    let mut spec = spec("web");
    let policy = json!({"Delay": 300_000_000});
    spec.task_template.extra.insert("RestartPolicy".to_owned(), policy);
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_timers_wake_the_loop_and_a_stop_ends_it() {
    let running = start();
    let web = api::create_service(&running.db, &failing_fast()).unwrap();
    let assigned =
        |state: &State| state.tasks_of(&web).find(|task| task.status.state == TaskState::Assigned).cloned();
    let state = running.until("a task is assigned", |state| assigned(state).is_some()).await;
    running.report(&assigned(&state).unwrap(), TaskState::Failed);
    let failed = jiff::Timestamp::now();
    let state = running.until("its successor waits", |state| state.tasks_of(&web).count() == 2).await;
    assert!(assigned(&state).is_none());
    running.until("its successor is assigned", |state| assigned(state).is_some()).await;
    assert!(failed.until(jiff::Timestamp::now()).unwrap().total(jiff::Unit::Millisecond).unwrap() >= 250.0);

    let version = running.db.state().services[&web].meta.version.index;
    let scaled = ServiceSpec { mode: replicas(4), ..failing_fast() };
    api::update_service(&running.db, "web", version, &scaled).unwrap();
    let wanted = |state: &State| state.tasks_of(&web).filter(|task| task.is_wanted()).count();
    running.until("there are four tasks", |state| wanted(state) == 4).await;
    assert_eq!(
        api::update_service(&running.db, "web", version, &scaled),
        Err(api::ApiError::OutOfSequence),
        "the version rose with the update"
    );

    api::remove_service(&running.db, "web").unwrap();
    let state = running.until("they are to go", |state| wanted(state) == 0).await;
    for task in state.tasks.values().filter(|task| task.is_live()) {
        running.report(task, TaskState::Shutdown);
    }
    running.until("they are gone", |state| state.tasks.is_empty()).await;

    running.stop.send_replace(true);
    tokio::time::timeout(LIMIT, running.ended).await.unwrap().unwrap();
}

#[test]
fn a_large_service_is_planned_within_a_moment() {
    let mut sim = Sim::new(3);
    sim.network("large", Some("10.32.0.0/18"));
    sim.settle();
    sim.service("web", |spec| {
        spec.mode = replicas(api::MAX_REPLICAS);
        spec.task_template.networks = super::sim::on(&["large"]);
    });
    let began = std::time::Instant::now();
    let plan = control_loop::plan(&sim.state, sim.now);
    // A hundredth of it in a release build; the bound is there to notice quadratic growth.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    sim.commit(plan.changes);
    let assigned = sim.state.tasks.values().filter(|task| task.status.state == TaskState::Assigned).count();
    assert_eq!(assigned as u64, api::MAX_REPLICAS);
    sim.check_addresses();
}
