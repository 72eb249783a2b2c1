//! Against a model that knows only rules: where a task may go, and that no better place was left.

use crate::control_loop::sim::{Sim, global, node_id, replicas};
use proptest::prelude::*;
use skep_model::node::{Availability, Node, NodeState};
use skep_model::service::Placement;
use skep_model::task::{Task, TaskState};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
struct Host {
    state: NodeState,
    availability: Availability,
    zone: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Wish {
    replicas: u64,
    is_global: bool,
    constraint: Option<&'static str>,
    max_per_node: u64,
}

fn host() -> impl Strategy<Value = Host> {
    let state = prop::sample::select(vec![NodeState::Ready, NodeState::Ready, NodeState::Down]);
    let availability = prop::sample::select(vec![
        Availability::Active,
        Availability::Active,
        Availability::Pause,
        Availability::Drain,
    ]);
    let zone = prop::sample::select(vec![None, Some("a"), Some("b")]);
    (state, availability, zone).prop_map(|(state, availability, zone)| Host { state, availability, zone })
}

const CONSTRAINTS: [Option<&str>; 5] =
    [None, None, Some("node.labels.zone==A"), Some("node.labels.zone != a"), Some("node.hostname==n1")];

fn wish() -> impl Strategy<Value = Wish> {
    (0u64..7, prop::bool::weighted(0.2), prop::sample::select(CONSTRAINTS.to_vec()), 0u64..3).prop_map(
        |(replicas, is_global, constraint, max)| Wish {
            replicas,
            is_global,
            constraint,
            max_per_node: if is_global { 0 } else { max },
        },
    )
}

/// The constraints of this file, read by hand.
fn meets(node: &Node, constraint: Option<&str>) -> bool {
    let zone = node.spec.labels.get("zone").map(String::as_str);
    match constraint {
        None => true,
        Some("node.labels.zone==A") => zone == Some("a"),
        Some("node.labels.zone != a") => zone != Some("a"),
        Some("node.hostname==n1") => node.id == node_id(1),
        Some(other) => panic!("{other}"),
    }
}

fn cluster(hosts: &[Host], wishes: &[Wish]) -> Sim {
    let mut sim = Sim::new(u8::try_from(hosts.len()).unwrap());
    for (n, host) in (1..).zip(hosts) {
        sim.node(n, |node| {
            node.status.state = host.state;
            node.spec.availability = host.availability;
            node.spec.labels.extend(host.zone.map(|zone| ("zone".to_owned(), zone.to_owned())));
        });
    }
    for (n, wish) in wishes.iter().enumerate() {
        sim.service(&format!("s{n}"), |spec| {
            spec.mode = replicas(wish.replicas);
            if wish.is_global {
                global(spec);
            }
            let constraints = wish.constraint.map(str::to_owned).into_iter().collect();
            let placement =
                Placement { constraints, max_replicas: wish.max_per_node, ..Placement::default() };
            spec.task_template.placement = Some(placement);
        });
    }
    sim
}

proptest! {
    #[test]
    fn every_task_has_the_best_place_it_may_have_or_says_why_it_has_none(
        hosts in prop::collection::vec(host(), 1..6),
        wishes in prop::collection::vec(wish(), 1..4),
    ) {
        let mut sim = cluster(&hosts, &wishes);
        sim.settle();
        let mut tasks: Vec<&Task> = sim.state.tasks.values().collect();
        tasks.sort_by_key(|task| (&task.service_name, task.slot, &task.id));
        // One by one, in the scheduler's order.
        let mut loads: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for task in tasks {
            let wish = &wishes[task.service_name[1..].parse::<usize>().unwrap()];
            let load = |node: &Node| {
                let by_service = loads.get(node.id.as_str());
                let own = by_service.and_then(|load| load.get(task.service_name.as_str())).copied();
                (own.unwrap_or(0), by_service.map_or(0, |load| load.values().sum::<u64>()))
            };
            let open = |node: &&Node| {
                node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
            };
            let fits = |node: &&Node| {
                open(node)
                    && meets(node, wish.constraint)
                    && (wish.max_per_node == 0 || load(node).0 < wish.max_per_node)
            };
            let best = sim.state.nodes.values().filter(fits).map(load).min();
            match sim.state.nodes.get(&task.node_id) {
                Some(node) => {
                    prop_assert!(fits(&node), "{} on {}", task.service_name, node.id);
                    prop_assert_eq!(task.status.state, TaskState::Assigned);
                    if !wish.is_global {
                        prop_assert_eq!(Some(load(node)), best);
                    }
                    let load = loads.entry(node.id.as_str()).or_default();
                    *load.entry(task.service_name.as_str()).or_default() += 1;
                }
                None => {
                    prop_assert_eq!(best, None);
                    prop_assert_eq!(task.status.state, TaskState::Pending);
                    prop_assert!(task.status.err.starts_with("no suitable node ("));
                    let closed = sim.state.nodes.values().filter(|node| !open(node)).count();
                    let said = task.status.err.contains("not available for new tasks");
                    prop_assert_eq!(said, closed > 0);
                }
            }
        }
        for (n, wish) in wishes.iter().enumerate().filter(|(_, wish)| wish.is_global) {
            let name = format!("s{n}");
            for node in sim.state.nodes.values() {
                let there = loads.get(node.id.as_str()).and_then(|load| load.get(name.as_str())).copied();
                let wanted = node.status.state == NodeState::Ready
                    && node.spec.availability == Availability::Active
                    && meets(node, wish.constraint);
                prop_assert_eq!(there.unwrap_or(0), u64::from(wanted));
            }
        }
    }
}
