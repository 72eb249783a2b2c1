//! What placement does to a cluster, case by case.

use crate::control_loop::sim::{Sim, global, node_id, replicas};
use crate::state::Change;
use skep_model::node::{Availability, Node};
use skep_model::service::{Placement, PlacementPreference, ServiceSpec, SpreadOver};
use skep_model::task::TaskState;
use std::collections::BTreeMap;

#[test]
fn constraints_hold_tasks_back_until_a_node_meets_them() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", placed(&["node.labels.disk==ssd"]));
    let agent = sim.service("agent", |spec| {
        global(spec);
        placed(&["node.labels.disk==ssd"])(spec);
    });
    sim.node(2, |node| node.spec.availability = Availability::Pause);
    sim.run();
    let task = sim.live(&web)[0].clone();
    assert_eq!(task.status.state, TaskState::Pending);
    assert_eq!(
        task.status.err,
        "no suitable node (1 node not available for new tasks; scheduling constraints not satisfied on 1 node)"
    );
    assert_eq!(sim.live(&agent).len(), 0, "a global service has no task where it may not run");
    let idle = sim.settle();
    assert_eq!((idle.changes, idle.next_wakeup), (Vec::new(), None), "nothing is tried again and again");
    sim.node(1, label("disk", "SSD"));
    sim.run();
    assert_eq!(sim.running_by_node(&web), BTreeMap::from([("node-1".to_owned(), 1)]));
    assert_eq!(sim.running_by_node(&agent), BTreeMap::from([("node-1".to_owned(), 1)]));
}

#[test]
fn a_node_that_no_longer_meets_the_constraints_is_left() {
    let mut sim = Sim::new(2);
    (1..=2).for_each(|n| sim.node(n, label("disk", "ssd")));
    let web = sim.service("web", |spec| {
        spec.mode = replicas(2);
        placed(&["node.labels.disk==ssd"])(spec);
    });
    let agent = sim.service("agent", |spec| {
        global(spec);
        placed(&["node.labels.disk!=hdd"])(spec);
    });
    sim.run();
    sim.node(1, label("disk", "hdd"));
    sim.settle();
    let rejected: Vec<_> =
        sim.state.tasks.values().filter(|t| t.node_id == node_id(1)).map(|t| t.id.clone()).collect();
    for id in &rejected {
        let task = &sim.state.tasks[id];
        assert_eq!((task.desired_state, task.status.state), (TaskState::Shutdown, TaskState::Running));
        assert_eq!(task.status.err, "assigned node no longer meets constraints");
    }
    sim.run();
    assert_eq!(rejected.len(), 2);
    assert_eq!(sim.running_by_node(&web), BTreeMap::from([("node-2".to_owned(), 2)]));
    assert_eq!(sim.running_by_node(&agent), BTreeMap::from([("node-2".to_owned(), 1)]));
    sim.node(1, label("disk", "ssd"));
    sim.run();
    assert_eq!(sim.running_by_node(&web), BTreeMap::from([("node-2".to_owned(), 2)]), "nothing moves back");
    assert_eq!(sim.running_by_node(&agent).len(), 2);
    // The service's constraints change under its running tasks.
    let mut service = sim.state.services[&web].clone();
    placed(&["node.hostname==n1"])(&mut service.spec);
    sim.put(Change::PutService(Box::new(service)));
    sim.run();
    assert_eq!(sim.running_by_node(&web), BTreeMap::from([("node-1".to_owned(), 2)]));
    sim.check_addresses();
}

#[test]
fn a_node_takes_no_more_of_a_service_than_it_may() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| {
        spec.mode = replicas(5);
        spec.task_template.placement = Some(Placement { max_replicas: 2, ..Placement::default() });
    });
    sim.settle();
    let waiting: Vec<_> =
        sim.live(&web).into_iter().filter(|task| task.status.state == TaskState::Pending).collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].status.err, "no suitable node (max replicas per node limit exceed)");
    sim.join(3);
    sim.run();
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [2, 2, 1]);
}

#[test]
fn tasks_spread_over_the_preferred_groups_first() {
    let mut sim = Sim::new(4);
    (1..=3).for_each(|n| sim.node(n, label("zone", "a")));
    sim.node(4, label("zone", "b"));
    let web = sim.service("web", |spec| {
        spec.mode = replicas(6);
        let spread = SpreadOver { spread_descriptor: "node.labels.zone".to_owned() };
        let preferences = vec![PlacementPreference { spread: Some(spread) }];
        spec.task_template.placement = Some(Placement { preferences, ..Placement::default() });
    });
    sim.run();
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [1, 1, 1, 3]);
}

fn placed(constraints: &'static [&'static str]) -> impl Fn(&mut ServiceSpec) {
    move |spec| {
        let constraints = constraints.iter().map(|text| (*text).to_owned()).collect();
        spec.task_template.placement = Some(Placement { constraints, ..Placement::default() });
    }
}

fn label(name: &'static str, value: &'static str) -> impl Fn(&mut Node) {
    move |node| drop(node.spec.labels.insert(name.to_owned(), value.to_owned()))
}
