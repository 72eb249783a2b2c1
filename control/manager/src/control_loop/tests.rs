//! What the loop does, case by case.

use super::sim::{Sim, global, node_id, on, publish, replicas};
use crate::api;
use crate::state::Change;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use skep_model::network::{FIRST_VNI, INGRESS};
use skep_model::node::{Availability, NodeState, PortConflict};
use skep_model::service::{EndpointMode, PortConfig, Protocol, ServiceSpec};
use skep_model::task::{Task, TaskState};
use skep_model::{NetworkId, ServiceId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

fn restart(policy: Value) -> impl FnOnce(&mut ServiceSpec) {
    move |spec| {
        spec.task_template.extra.insert("RestartPolicy".to_owned(), policy);
    }
}

fn addresses(task: &Task) -> Vec<String> {
    task.attachments.iter().map(|attachment| attachment.addr.to_string()).collect()
}

#[test]
fn ingress_comes_first_and_every_node_has_an_address_there() {
    let mut sim = Sim::new(2);
    sim.network("backend", None);
    sim.settle();
    let of = |name: &str| api::lookup::network(&sim.state, name).unwrap().allocation.unwrap();
    assert_eq!((of(INGRESS).vni, of(INGRESS).subnet.to_string()), (FIRST_VNI, "10.0.0.0/24".to_owned()));
    assert_eq!(
        (of("backend").vni, of("backend").subnet.to_string()),
        (FIRST_VNI + 1, "10.0.1.0/24".to_owned())
    );
    assert_eq!(of("backend").gateway, Ipv4Addr::new(10, 0, 1, 1));
    let skep0 = |n| sim.state.nodes[&node_id(n)].skep.ingress_addr.unwrap();
    assert_eq!((skep0(1), skep0(2)), (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)));
}

#[test]
fn nothing_is_allocated_before_a_host_said_what_it_routes() {
    let mut sim = Sim::new(0);
    let subnet = |sim: &Sim| api::lookup::network(&sim.state, INGRESS).unwrap().allocation.map(|a| a.subnet);
    assert_eq!(subnet(&sim), None);
    sim.join(1);
    let mut addr = None;
    sim.node(1, |node| addr = node.skep.data_path_addr.take());
    // A node waiting for its first report is nothing to log.
    sim.settle();
    assert_eq!(subnet(&sim), None);
    sim.node(1, |node| node.skep.data_path_addr = addr);
    sim.node(1, |node| node.skep.routed.push("10.0.0.0/16".parse().unwrap()));
    sim.settle();
    assert_eq!(subnet(&sim).unwrap().to_string(), "10.1.0.0/24");
}

#[test]
fn a_service_gets_vips_ports_and_tasks_with_addresses() {
    let mut sim = Sim::new(1);
    sim.network("backend", None);
    sim.settle();
    let web = sim.service("web", |spec| {
        spec.mode = replicas(2);
        spec.task_template.networks = on(&["backend"]);
        spec.endpoint_spec = publish(4568, 80);
    });
    sim.settle();
    let endpoint = &sim.state.services[&web].endpoint;
    assert_eq!(endpoint.ports, publish(4568, 80).ports);
    let vips: Vec<_> = endpoint.virtual_ips.iter().map(|vip| vip.addr.to_string()).collect();
    assert_eq!(vips, ["10.0.0.3/24", "10.0.1.2/24"]);
    let tasks = sim.live(&web);
    assert_eq!(addresses(tasks[0]), ["10.0.1.3/24", "10.0.0.4/24"]);
    assert_eq!(addresses(tasks[1]), ["10.0.1.4/24", "10.0.0.5/24"]);
    assert_eq!(tasks[0].status.message, "scheduler assigned task to node");
}

#[test]
fn dnsrr_has_no_vip() {
    let mut sim = Sim::new(1);
    sim.network("backend", None);
    sim.settle();
    let db = sim.service("db", |spec| {
        spec.task_template.networks = on(&["backend"]);
        spec.endpoint_spec.mode = EndpointMode::Dnsrr;
    });
    sim.settle();
    assert_eq!(sim.state.services[&db].endpoint.virtual_ips, []);
    assert_eq!(addresses(sim.live(&db)[0]), ["10.0.1.2/24"]);
}

#[test]
fn subnets_keep_clear_of_what_hosts_route() {
    let mut sim = Sim::new(1);
    sim.node(1, |node| {
        node.skep.routed = vec!["10.0.1.0/24".parse().unwrap(), "0.0.0.0/0".parse().unwrap()];
    });
    sim.network("backend", None);
    sim.settle();
    let backend = api::lookup::network(&sim.state, "backend").unwrap();
    assert_eq!(backend.allocation.unwrap().subnet.to_string(), "10.0.2.0/24");
}

#[test]
fn open_ports_are_given_and_stay_across_updates() {
    let mut sim = Sim::new(1);
    let conflict = PortConflict { protocol: Protocol::Tcp, port: 30_000, holder: "nginx".to_owned() };
    sim.node(1, |node| node.skep.port_conflicts = vec![conflict]);
    let first = sim.service("first", |spec| spec.endpoint_spec = publish(30_001, 80));
    let open = sim.service("open", |spec| spec.endpoint_spec = publish(0, 80));
    sim.settle();
    let port = |sim: &Sim| sim.state.services[&open].endpoint.ports[0].published_port;
    assert_eq!(port(&sim), 30_002);
    sim.put(Change::DeleteService(first));
    let mut service = sim.state.services[&open].clone();
    service.spec.endpoint_spec.ports.push(PortConfig { target_port: 81, ..PortConfig::default() });
    sim.put(Change::PutService(Box::new(service)));
    sim.settle();
    assert_eq!(port(&sim), 30_002);
    assert_eq!(sim.state.services[&open].endpoint.ports[1].published_port, 30_001);
}

#[test]
fn a_full_subnet_is_said_and_retried() {
    let mut sim = Sim::new(1);
    sim.network("small", Some("10.9.0.0/29"));
    sim.settle();
    let web = sim.service("web", |spec| {
        spec.mode = replicas(5);
        spec.task_template.networks = on(&["small"]);
    });
    sim.settle();
    let waiting: Vec<_> =
        sim.state.tasks_of(&web).filter(|t| t.status.state == TaskState::New).cloned().collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        waiting[0].status.err,
        "network small is full: no available addresses on this pool (10.9.0.0/29)"
    );
    let late = sim.service("late", |spec| spec.task_template.networks = on(&["small"]));
    sim.settle();
    let reason = &sim.state.services[&late].pending_reason;
    assert!(reason.starts_with("network small is full: "), "{reason}");
    assert!(reason.ends_with(": could not find an available IP while allocating VIP"), "{reason}");
    assert_eq!(sim.live(&late)[0].status.err, *reason);
    sim.scale(&web, 2);
    sim.run();
    assert_eq!(sim.state.services[&late].pending_reason, "");
    assert_eq!(sim.live(&late)[0].status.state, TaskState::Running);
    sim.check_addresses();
}

#[test]
fn addresses_come_from_the_range_and_reserved_ones_from_nowhere() {
    let mut sim = Sim::new(1);
    let id = sim.network("front", Some("10.9.0.0/24"));
    let mut network = sim.state.networks[&id].clone();
    network.spec.ip_range = Some("10.9.0.128/29".parse().unwrap());
    network.spec.reserved.insert("router".to_owned(), Ipv4Addr::new(10, 9, 0, 130));
    sim.put(Change::PutNetwork(Box::new(network)));
    sim.settle();
    let web = sim.service("web", |spec| {
        spec.mode = replicas(9);
        spec.task_template.networks = on(&["front"]);
    });
    sim.run();
    let running = sim.live(&web).into_iter().filter(|task| task.status.state == TaskState::Running);
    let given: Vec<String> = running.flat_map(addresses).collect();
    let expected = [129, 131, 132, 133, 134, 135].map(|host| format!("10.9.0.{host}/24"));
    assert_eq!(given, expected, "128 is the VIP");
    let full = "network front is full: no available addresses on this pool (10.9.0.128/29)";
    assert_eq!(sim.live(&web).iter().filter(|task| task.status.err == full).count(), 3);
    sim.check_addresses();
}

#[test]
fn freed_addresses_and_vnis_are_not_given_again_at_once() {
    let mut sim = Sim::new(1);
    sim.network("backend", None);
    sim.settle();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let web = sim.service("web", |spec| spec.task_template.networks = on(&["backend"]));
        sim.run();
        let addrs = addresses(sim.live(&web)[0]);
        assert!(addrs.into_iter().all(|addr| seen.insert(addr)));
        sim.put(Change::DeleteService(web));
        sim.run();
        assert_eq!(sim.state.tasks.len(), 0);
    }
    sim.put(Change::DeleteNetwork(NetworkId::from("net-backend")));
    sim.network("other", None);
    sim.settle();
    let other = api::lookup::network(&sim.state, "other").unwrap().allocation.unwrap();
    assert_eq!((other.vni, other.subnet.to_string()), (FIRST_VNI + 2, "10.0.1.0/24".to_owned()));
}

#[test]
fn tasks_spread_over_nodes_and_first_services_over_different_ones() {
    let mut sim = Sim::new(3);
    let web = sim.service("web", |spec| spec.mode = replicas(7));
    sim.run();
    let by_node: Vec<usize> = sim.running_by_node(&web).into_values().collect();
    assert_eq!(by_node, [3, 2, 2]);
    let mut sim = Sim::new(3);
    let singles: Vec<ServiceId> = ["a", "b", "c"].iter().map(|name| sim.service(name, |_| {})).collect();
    sim.run();
    let nodes: BTreeSet<_> = singles.iter().map(|id| sim.live(id)[0].node_id.clone()).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn scaling_down_leaves_the_fullest_nodes_first() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    sim.node(2, |node| node.spec.availability = Availability::Pause);
    sim.scale(&web, 5);
    sim.run();
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [4, 1]);
    sim.scale(&web, 2);
    sim.run();
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [1, 1]);
    assert_eq!(sim.state.tasks_of(&web).count(), 2);
}

#[test]
fn a_failed_task_is_kept_and_replaced_after_the_delay_counted_from_its_end() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |_| {});
    sim.run();
    let failed = sim.live(&web)[0].id.clone();
    sim.report(&failed, TaskState::Failed);
    let end = sim.now;
    let plan = sim.settle();
    assert_eq!(plan.next_wakeup, Some(end.checked_add(SignedDuration::from_secs(5)).unwrap()));
    let next = sim.live(&web)[0].clone();
    assert_eq!((next.slot, next.desired_state, next.status.state), (1, TaskState::Ready, TaskState::Pending));
    assert_eq!(sim.state.tasks[&failed].desired_state, TaskState::Shutdown);
    sim.advance(4);
    sim.settle();
    assert_eq!(sim.state.tasks[&next.id].status.state, TaskState::Pending);
    sim.advance(1);
    sim.settle();
    let started = &sim.state.tasks[&next.id];
    assert_eq!((started.desired_state, started.status.state), (TaskState::Running, TaskState::Assigned));
}

#[test]
fn a_node_with_a_wrong_clock_does_not_shorten_the_delay() {
    let mut sim = Sim::new(1);
    let web = sim.service("web", |_| {});
    sim.run();
    let mut failed = sim.live(&web)[0].clone();
    failed.status.state = TaskState::Failed;
    failed.status.timestamp = Timestamp::UNIX_EPOCH;
    sim.put(Change::PutTask(Box::new(failed)));
    let wakeup = sim.settle().next_wakeup.unwrap();
    assert_eq!(wakeup.duration_since(sim.now).as_secs(), 4);
}

#[test]
fn history_is_five_tasks_per_slot() {
    let mut sim = Sim::new(1);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    for _ in 0..9 {
        let id = sim.live(&web)[0].id.clone();
        sim.report(&id, TaskState::Failed);
        sim.run();
    }
    let mut per_slot: BTreeMap<u64, usize> = BTreeMap::new();
    sim.state.tasks_of(&web).for_each(|task| *per_slot.entry(task.slot).or_default() += 1);
    assert!(per_slot.values().all(|count| *count <= 5), "{per_slot:?}");
    assert_eq!(sim.live(&web).len(), 2);
}

#[test]
fn restart_policies_are_kept() {
    let ended = |policy: Value, ends: &[TaskState]| {
        let mut sim = Sim::new(1);
        let job = sim.service("job", restart(policy));
        sim.run();
        for end in ends {
            let Some(id) = sim.live(&job).first().map(|task| task.id.clone()) else { break };
            sim.report(&id, *end);
            sim.run();
        }
        (sim.live(&job).len(), sim.state.tasks_of(&job).count())
    };
    let failed = TaskState::Failed;
    assert_eq!(ended(json!({"Condition": "none"}), &[failed]), (0, 1));
    assert_eq!(ended(json!({"Condition": "on-failure"}), &[TaskState::Complete]), (0, 1));
    assert_eq!(ended(json!({"Condition": "on-failure"}), &[failed]), (1, 2));
    assert_eq!(ended(json!({"MaxAttempts": 2}), &[failed; 9]), (0, 3));
    assert_eq!(ended(json!({"MaxAttempts": 7}), &[failed; 20]), (0, 8));
    // Ten seconds pass between two failures: only one of them lies in the window of the last.
    let window = json!({"MaxAttempts": 1, "Window": 1_000_000_000_i64});
    assert_eq!(ended(window, &[failed; 4]), (1, 5));
}

#[test]
fn a_task_that_fails_at_once_is_restarted_once_a_second_at_most() {
    let mut sim = Sim::new(1);
    let job = sim.service("job", restart(json!({"Delay": 0})));
    sim.settle();
    let begun = sim.now;
    for _ in 0..10 {
        let current = sim.live(&job)[0].id.clone();
        sim.report(&current, TaskState::Failed);
        sim.now = sim.settle().next_wakeup.unwrap();
        sim.settle();
    }
    assert_eq!(sim.now.duration_since(begun).as_secs(), 10);
    // One that ran for longer than that is restarted as the policy says.
    sim.advance(60);
    let current = sim.live(&job)[0].id.clone();
    sim.report(&current, TaskState::Failed);
    sim.settle();
    assert_eq!(sim.live(&job)[0].desired_state, TaskState::Running);
}

#[test]
fn attempts_are_counted_per_slot_and_anew_after_an_update() {
    let mut sim = Sim::new(1);
    let job = sim.service("job", |spec| {
        spec.mode = replicas(2);
        restart(json!({"MaxAttempts": 1}))(spec);
    });
    sim.run();
    let fail_first_slot = |sim: &mut Sim| {
        let first = sim.live(&job).into_iter().find(|task| task.slot == 1).map(|task| task.id.clone());
        first.is_some_and(|id| {
            sim.report(&id, TaskState::Failed);
            sim.run();
            true
        })
    };
    assert_eq!([(); 3].map(|()| fail_first_slot(&mut sim)), [true, true, false]);
    assert_eq!(sim.live(&job).iter().map(|task| task.slot).collect::<Vec<_>>(), [2]);
    let second = sim.live(&job)[0].id.clone();
    sim.report(&second, TaskState::Failed);
    sim.run();
    assert_eq!(sim.live(&job).len(), 1, "the other slot has an attempt of its own");

    let mut service = sim.state.services[&job].clone();
    service.spec.task_template.force_update += 1;
    sim.put(Change::PutService(Box::new(service)));
    let mut current = sim.live(&job)[0].clone();
    current.spec.force_update += 1;
    sim.put(Change::PutTask(Box::new(current.clone())));
    sim.report(&current.id, TaskState::Failed);
    sim.run();
    assert_eq!(sim.live(&job).iter().map(|task| task.slot).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_changed_policy_holds_for_tasks_that_run_and_for_slots_given_up() {
    let mut sim = Sim::new(1);
    let web = sim.service("web", restart(json!({"Condition": "none"})));
    sim.run();
    let task = sim.live(&web)[0].id.clone();
    let change = |sim: &mut Sim, policy: Value| {
        let mut service = sim.state.services[&web].clone();
        restart(policy)(&mut service.spec);
        sim.put(Change::PutService(Box::new(service)));
    };
    change(&mut sim, json!({"MaxAttempts": 1}));
    sim.run();
    assert_eq!(sim.live(&web)[0].id, task, "nothing is restarted for that");
    assert_eq!(sim.live(&web)[0].spec, sim.state.services[&web].spec.task_template);
    for _ in 0..2 {
        let current = sim.live(&web)[0].id.clone();
        sim.report(&current, TaskState::Failed);
        sim.run();
    }
    assert_eq!(sim.live(&web).len(), 0);
    change(&mut sim, json!({"MaxAttempts": 5}));
    sim.run();
    assert_eq!(sim.live(&web).len(), 1);
}

#[test]
fn a_completed_task_of_an_on_failure_service_stays_complete() {
    let mut sim = Sim::new(1);
    let job = sim.service("job", restart(json!({"Condition": "on-failure"})));
    sim.run();
    let done = sim.live(&job)[0].id.clone();
    sim.report(&done, TaskState::Complete);
    sim.run();
    assert_eq!(sim.state.tasks[&done].status.state, TaskState::Complete);
    assert_eq!(sim.state.tasks_of(&job).count(), 1);
}

#[test]
fn the_history_limit_is_the_clusters() {
    let kept = |limit: i64, policy: Value| {
        let mut sim = Sim::new(1);
        let mut cluster = sim.state.cluster.clone().unwrap();
        let orchestration = json!({ "TaskHistoryRetentionLimit": limit });
        cluster.spec.extra.insert("Orchestration".to_owned(), orchestration);
        sim.put(Change::PutCluster(Box::new(cluster)));
        let web = sim.service("web", restart(policy));
        sim.run();
        for _ in 0..9 {
            let Some(id) = sim.live(&web).first().map(|task| task.id.clone()) else { break };
            sim.report(&id, TaskState::Failed);
            sim.run();
        }
        sim.state.tasks_of(&web).count()
    };
    assert_eq!(kept(2, json!({})), 2);
    assert_eq!(kept(0, json!({})), 1, "the current task is no history");
    assert_eq!(kept(-1, json!({})), 10, "below zero is without limit");
    assert_eq!(kept(2, json!({"MaxAttempts": 7})), 8, "attempts are counted in the history");
}

#[test]
fn a_node_that_goes_down_loses_its_tasks_at_once_and_stops_them_when_it_returns() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    let orphan = sim.live(&web).into_iter().find(|task| task.node_id == node_id(2)).unwrap().id.clone();
    sim.node(2, |node| node.status.state = NodeState::Down);
    sim.settle();
    let task = &sim.state.tasks[&orphan];
    assert_eq!((task.desired_state, task.status.state), (TaskState::Shutdown, TaskState::Running));
    let replaced: Vec<_> =
        sim.live(&web).into_iter().filter(|t| t.desired_state == TaskState::Running).collect();
    assert!(replaced.iter().all(|task| task.node_id == node_id(1)) && replaced.len() == 2);
    sim.run();
    sim.node(2, |node| node.status.state = NodeState::Ready);
    sim.run();
    assert_eq!(sim.state.tasks[&orphan].status.state, TaskState::Shutdown);
    assert_eq!(sim.running_by_node(&web).into_values().collect::<Vec<_>>(), [2]);
    sim.check_addresses();
}

#[test]
fn tasks_of_a_node_that_never_returns_are_orphaned_after_a_day() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(2));
    sim.run();
    let orphan = sim.live(&web).into_iter().find(|task| task.node_id == node_id(2)).unwrap().id.clone();
    sim.node(2, |node| node.status.state = NodeState::Down);
    let down_at = sim.now;
    let wakeup = sim.settle().next_wakeup.unwrap();
    assert_eq!(wakeup.duration_since(down_at).as_hours(), 24);
    sim.now = wakeup;
    sim.settle();
    assert_eq!(sim.state.tasks[&orphan].status.state, TaskState::Orphaned);
}

#[test]
fn a_drained_node_is_left_and_a_paused_one_gets_nothing_new() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(4));
    sim.run();
    sim.node(1, |node| node.spec.availability = Availability::Drain);
    sim.run();
    assert_eq!(sim.running_by_node(&web), BTreeMap::from([("node-2".to_owned(), 4)]));
    sim.node(1, |node| node.spec.availability = Availability::Active);
    sim.node(2, |node| node.spec.availability = Availability::Pause);
    sim.scale(&web, 6);
    sim.run();
    let expected = BTreeMap::from([("node-1".to_owned(), 2), ("node-2".to_owned(), 4)]);
    assert_eq!(sim.running_by_node(&web), expected);
}

#[test]
fn a_task_without_a_node_says_why() {
    let mut sim = Sim::new(2);
    for n in 1..=2 {
        sim.node(n, |node| node.status.state = NodeState::Down);
    }
    let web = sim.service("web", |_| {});
    sim.settle();
    let task = sim.live(&web)[0];
    assert_eq!(task.status.message, "pending task scheduling");
    assert_eq!(task.status.err, "no suitable node (2 nodes not available for new tasks)");
    sim.node(1, |node| node.status.state = NodeState::Ready);
    sim.settle();
    assert_eq!(
        (sim.live(&web)[0].status.state, sim.live(&web)[0].status.err.as_str()),
        (TaskState::Assigned, "")
    );
}

#[test]
fn a_global_service_has_one_task_on_every_node_that_takes_tasks() {
    let mut sim = Sim::new(2);
    let agent = sim.service("agent", global);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_values().collect::<Vec<_>>(), [1, 1]);
    sim.join(3);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_values().collect::<Vec<_>>(), [1, 1, 1]);
    sim.node(1, |node| node.status.state = NodeState::Down);
    sim.node(2, |node| node.spec.availability = Availability::Drain);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_keys().collect::<Vec<_>>(), ["node-3"]);
    sim.node(1, |node| node.status.state = NodeState::Ready);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_keys().collect::<Vec<_>>(), ["node-1", "node-3"]);
    let failed = sim.live(&agent)[0].clone();
    sim.report(&failed.id, TaskState::Failed);
    sim.run();
    assert_eq!(sim.running_by_node(&agent).into_keys().collect::<Vec<_>>(), ["node-1", "node-3"]);
    assert!(sim.live(&agent).iter().all(|task| task.slot == 0 && task.id != failed.id));
}

#[test]
fn tasks_of_a_removed_service_go_once_they_stopped_or_their_node_is_down() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", |spec| spec.mode = replicas(4));
    sim.run();
    sim.node(2, |node| node.status.state = NodeState::Down);
    sim.settle();
    sim.put(Change::DeleteService(web.clone()));
    sim.settle();
    let left: Vec<_> = sim.state.tasks_of(&web).collect();
    assert!(left.iter().all(|t| t.desired_state == TaskState::Remove && t.node_id == node_id(1)));
    assert_eq!(left.iter().filter(|task| task.status.state == TaskState::Running).count(), 2);
    sim.run();
    assert_eq!(sim.state.tasks_of(&web).count(), 0);
}

#[test]
fn a_node_where_a_service_keeps_failing_comes_last() {
    let mut sim = Sim::new(2);
    let web = sim.service("web", restart(json!({"Delay": 0})));
    let mut nodes = Vec::new();
    for _ in 0..6 {
        sim.settle();
        let task = sim.live(&web)[0].clone();
        nodes.push(task.node_id.0.clone());
        if task.node_id == node_id(1) {
            sim.report(&task.id, TaskState::Failed);
        }
        sim.settle();
        sim.advance(1);
    }
    assert_eq!(nodes.last().map(String::as_str), Some("node-2"), "{nodes:?}");
}
