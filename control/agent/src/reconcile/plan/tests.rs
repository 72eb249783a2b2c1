use super::*;
use crate::project::{Cluster, Local, example, mesh, records, snapshot};
use proptest::prelude::*;

/// Mesh, snapshot and records of a small cluster that differs by `variant`.
fn wanted(variant: u8) -> Wanted {
    let desired = example::desired((1..=variant).map(|n| example::endpoint(n, "n2")));
    let local = Local { underlay_mtu: 1500 + u32::from(variant % 2), ..Local::default() };
    let cluster = Cluster::of(&desired);
    Wanted {
        mesh: mesh(&cluster, &local),
        snapshot: snapshot(&cluster, &local),
        records: records(&cluster, &local),
        ..Wanted::default()
    }
}

fn view(zone: u8) -> View {
    View { zones: vec![format!("net{zone}")], upstreams: Vec::new() }
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let task = prop::sample::select(&[TaskWanted::Run, TaskWanted::Drain, TaskWanted::Stop][..]);
    (
        0u8..4,
        prop::collection::btree_set("[a-e]", 0..5),
        prop::collection::btree_map("[a-e]", (0u8..3).prop_map(view), 0..5),
        prop::collection::btree_map("[a-e]".prop_map(TaskId), task, 0..5),
        any::<bool>(),
    )
        .prop_map(|(variant, sandboxes, views, tasks, has_mesh)| {
            let base = wanted(variant);
            let mesh = base.mesh.clone().filter(|_| has_mesh);
            Wanted { mesh, sandboxes, views, tasks, ..base }
        })
}

/// A history: sets that were wanted one after the other, and which tasks ended by themselves in between.
fn any_history() -> impl Strategy<Value = Vec<(Wanted, Vec<TaskId>)>> {
    prop::collection::vec((any_wanted(), prop::collection::vec("[a-e]".prop_map(TaskId), 0..3)), 1..5)
}

fn apply(done: &mut Done, wanted: &Wanted) {
    for action in plan(done, wanted) {
        done.note(action);
    }
}

/// Rank of the phase an action belongs to.
fn phase(action: &Action) -> u8 {
    match action {
        Action::ApplyMesh(_) | Action::Attach(_) => 0,
        Action::Publish(_) => 1,
        Action::PublishNames(_) | Action::SetView(..) => 2,
        Action::Start(_) | Action::Decline(_) | Action::Stop(_) | Action::Forget(_) => 3,
        Action::EndView(_) | Action::Detach(_) => 4,
    }
}

proptest! {
    #[test]
    fn a_second_plan_is_empty(history in any_history()) {
        let mut done = Done::default();
        for (wanted, ended) in history {
            apply(&mut done, &wanted);
            prop_assert_eq!(plan(&done, &wanted), []);
            ended.iter().for_each(|id| done.task_ended(id));
        }
    }

    #[test]
    fn the_plan_reaches_what_is_wanted(history in any_history()) {
        let mut done = Done::default();
        for (wanted, ended) in history {
            apply(&mut done, &wanted);
            prop_assert_eq!(&done.sandboxes, &wanted.sandboxes);
            prop_assert_eq!(&done.views, &wanted.views);
            prop_assert_eq!(done.snapshot.as_ref(), Some(&wanted.snapshot));
            prop_assert_eq!(done.records.as_ref(), Some(&wanted.records));
            if wanted.mesh.is_some() {
                prop_assert_eq!(&done.mesh, &wanted.mesh);
            }
            for (id, task) in &wanted.tasks {
                prop_assert!(done.tasks.contains_key(id));
                let may_run = done.tasks[id] == TaskDone::Started;
                prop_assert!(*task != TaskWanted::Stop || !may_run);
            }
            for (id, task) in &done.tasks {
                prop_assert!(wanted.tasks.contains_key(id) || *task == TaskDone::Stopping);
            }
            ended.iter().for_each(|id| done.task_ended(id));
        }
    }

    #[test]
    fn actions_come_in_the_order_of_their_phases(history in any_history()) {
        let mut done = Done::default();
        for (wanted, ended) in history {
            let phases: Vec<u8> = plan(&done, &wanted).iter().map(phase).collect();
            prop_assert!(phases.is_sorted(), "{phases:?}");
            apply(&mut done, &wanted);
            ended.iter().for_each(|id| done.task_ended(id));
        }
    }

    #[test]
    fn a_task_that_ended_is_not_started_again(wanted in any_wanted()) {
        let mut done = Done::default();
        apply(&mut done, &wanted);
        wanted.tasks.keys().for_each(|id| done.task_ended(id));
        prop_assert_eq!(plan(&done, &wanted), []);
    }
}

#[test]
fn a_new_task_is_started_once_its_neighbours_can_be_reached() {
    let mut wanted = wanted(2);
    wanted.tasks.insert("t1".into(), TaskWanted::Run);
    let kinds: Vec<u8> = plan(&Done::default(), &wanted).iter().map(phase).collect();
    assert_eq!(kinds, [0, 1, 2, 3]);
}

#[test]
fn a_task_to_stop_that_never_ran_here_is_declined() {
    let mut wanted = wanted(0);
    wanted.tasks.insert("t1".into(), TaskWanted::Stop);
    assert!(plan(&Done::default(), &wanted).contains(&Action::Decline("t1".into())));
}

#[test]
fn a_task_that_drains_runs_on_and_stops_once_it_is_drained() {
    let (mut done, mut wanted) = (Done::default(), wanted(0));
    wanted.tasks.insert("t1".into(), TaskWanted::Run);
    apply(&mut done, &wanted);
    wanted.tasks.insert("t1".into(), TaskWanted::Drain);
    assert_eq!(plan(&done, &wanted), []);
    wanted.tasks.insert("t1".into(), TaskWanted::Stop);
    assert_eq!(plan(&done, &wanted), [Action::Stop("t1".into())]);
    apply(&mut done, &wanted);
    wanted.tasks.insert("t1".into(), TaskWanted::Drain);
    assert_eq!(plan(&done, &wanted), [], "a task that stops is not called back");
}

#[test]
fn a_task_that_drains_and_never_ran_here_is_declined() {
    let mut wanted = wanted(0);
    wanted.tasks.insert("t1".into(), TaskWanted::Drain);
    assert!(plan(&Done::default(), &wanted).contains(&Action::Decline("t1".into())));
}
