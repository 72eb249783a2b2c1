//! Clocks that somebody sets: the manager's own, and those of nodes.

use super::sim::{Sim, global, replicas};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use skep_model::service::ServiceSpec;
use skep_model::task::TaskState;
use skep_model::{ServiceId, TaskId};

const DAY: i64 = 86_400;
/// An hour, a day and ten years, forth and back.
const JUMPS: [i64; 6] = [3_600, -3_600, DAY, -DAY, 3_652 * DAY, -3_652 * DAY];

fn policy(policy: serde_json::Value) -> impl Fn(&mut ServiceSpec) {
    move |spec| _ = spec.task_template.extra.insert("RestartPolicy".to_owned(), policy.clone())
}

/// What runs, and where.
fn running(sim: &Sim) -> Vec<(TaskId, TaskState, TaskState)> {
    sim.state.tasks.values().map(|task| (task.id.clone(), task.status.state, task.desired_state)).collect()
}

#[test]
fn a_clock_that_jumps_restarts_nothing() {
    for jump in JUMPS {
        let mut sim = Sim::new(3);
        sim.service("web", |spec| spec.mode = replicas(5));
        sim.service("agent", global);
        sim.run();
        let before = running(&sim);
        for jump in [jump, -jump] {
            sim.advance(jump);
            sim.run();
            assert_eq!(running(&sim), before, "by {jump} s");
        }
    }
}

#[test]
fn a_restart_comes_after_its_delay_whatever_the_clock_was_set_to_meanwhile() {
    for jump in JUMPS {
        let mut sim = Sim::new(1);
        let web = sim.service("web", policy(json!({"Delay": 5_000_000_000_i64})));
        sim.run();
        let first = sim.live(&web)[0].id.clone();
        sim.report(&first, TaskState::Failed);
        sim.settle();
        sim.advance(jump);
        let wait = sim.settle().next_wakeup.map_or(SignedDuration::ZERO, |time| time.duration_since(sim.now));
        assert!(wait <= SignedDuration::from_secs(5), "by {jump} s: {wait:?}");
        sim.now = sim.now.checked_add(wait).unwrap();
        sim.settle();
        assert_eq!(sim.live(&web)[0].status.state, TaskState::Assigned, "by {jump} s");
    }
}

#[test]
fn a_slot_that_is_done_stays_done_however_young_its_last_task_looks() {
    for jump in JUMPS {
        let mut sim = Sim::new(1);
        let job = sim.service("job", policy(json!({"Condition": "on-failure", "Delay": 1_000_000_000_i64})));
        sim.run();
        let first = sim.live(&job)[0].id.clone();
        sim.advance(jump);
        sim.report(&first, TaskState::Failed);
        sim.run();
        let second = sim.live(&job)[0].id.clone();
        sim.report(&second, TaskState::Complete);
        sim.run();
        assert_eq!(sim.state.tasks_of(&job).count(), 2, "by {jump} s");
        assert!(sim.live(&job).is_empty());
    }
}

#[test]
fn history_forgets_the_oldest_tasks_and_not_those_of_a_wrong_clock() {
    let mut sim = Sim::new(1);
    let web = sim.service("web", policy(json!({"Delay": 0})));
    sim.run();
    let mut made = Vec::new();
    for jump in [0, -DAY, 2 * DAY, -DAY, 0, 0, 0, 0] {
        let current = sim.live(&web)[0].id.clone();
        sim.advance(jump);
        sim.report(&current, TaskState::Failed);
        made.push(current);
        sim.run();
    }
    made.push(sim.live(&web)[0].id.clone());
    let kept: Vec<TaskId> = kept(&sim, &web);
    assert_eq!(kept, made[made.len() - kept.len()..], "of {made:?}");
}

fn kept(sim: &Sim, service: &ServiceId) -> Vec<TaskId> {
    sim.state.tasks_of(service).map(|task| task.id.clone()).collect()
}

#[test]
fn failures_of_a_wrong_clock_keep_no_node_out_of_use() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", policy(json!({"Delay": 0})));
    sim.run();
    // The node's clock is a day ahead.
    for _ in 0..4 {
        let task = sim.live(&web)[0].clone();
        let mut failed = task.clone();
        failed.status.state = TaskState::Failed;
        failed.status.timestamp = ahead(sim.now);
        failed.node_id = super::sim::node_id(1);
        sim.put(crate::state::Change::PutTask(Box::new(failed)));
        sim.run();
    }
    sim.advance(3_600);
    sim.scale(&web, 5);
    sim.run();
    let nodes = sim.running_by_node(&web);
    assert_eq!(nodes.len(), 2, "{nodes:?}");
}

fn ahead(now: Timestamp) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(DAY)).unwrap()
}
