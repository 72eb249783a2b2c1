//! Properties that hold whatever happens to a cluster.

use super::sim::{Sim, global, node_id, on, publish, replicas};
use crate::state::Change;
use crate::{api, attach};
use proptest::prelude::*;
use skep_model::node::{Availability, Node, NodeState};
use skep_model::service::{Placement, Service};
use skep_model::session::AttachRequest;
use skep_model::task::TaskState;
use skep_model::{ServiceId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Event {
    Scale(u8, u8),
    Fail(u8),
    Complete(u8),
    Node(u8, NodeState),
    Availability(u8, Availability),
    RemoveService(u8),
    CreateService(u8, u8),
    Attach(u8),
    Detach(u8),
    RemoveNode(u8),
    /// The node gets the label that constrained services shun, or loses it.
    Shun(u8, bool),
    Constrain(u8, bool),
    Join(u8),
    Agents,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop::sample::select(vec![
        NodeState::Ready,
        NodeState::Down,
        NodeState::Unknown,
        NodeState::Disconnected,
    ]);
    let availability =
        prop::sample::select(vec![Availability::Active, Availability::Pause, Availability::Drain]);
    prop_oneof![
        2 => (0u8..3, 0u8..9).prop_map(|(service, n)| Event::Scale(service, n)),
        3 => any::<u8>().prop_map(Event::Fail),
        1 => any::<u8>().prop_map(Event::Complete),
        3 => (1u8..=3, state).prop_map(|(n, state)| Event::Node(n, state)),
        2 => (1u8..=3, availability).prop_map(|(n, a)| Event::Availability(n, a)),
        1 => (0u8..3).prop_map(Event::RemoveService),
        1 => (0u8..3, 0u8..9).prop_map(|(service, n)| Event::CreateService(service, n)),
        1 => (1u8..=3).prop_map(Event::Attach),
        1 => any::<u8>().prop_map(Event::Detach),
        1 => (1u8..=3).prop_map(Event::RemoveNode),
        2 => (1u8..=3, any::<bool>()).prop_map(|(n, on)| Event::Shun(n, on)),
        1 => (0u8..3, any::<bool>()).prop_map(|(service, on)| Event::Constrain(service, on)),
        1 => (1u8..=3).prop_map(Event::Join),
        3 => Just(Event::Agents),
        2 => (0u8..20).prop_map(Event::Wait),
    ]
}

fn name(service: u8) -> String {
    format!("s{service}")
}

fn create(sim: &mut Sim, service: u8, n: u8) {
    if api::lookup::service(&sim.state, &name(service)).is_ok() {
        return;
    }
    sim.service(&name(service), |spec| {
        spec.mode = replicas(u64::from(n));
        spec.task_template.networks = on(if service == 0 { &["a"] } else { &["a", "b"] });
        if service == 1 {
            spec.endpoint_spec = publish(0, 80);
        }
        if service == 2 {
            global(spec);
        }
    });
}

fn apply(sim: &mut Sim, event: &Event) {
    let nth_live = |sim: &Sim, n: u8| {
        let running: Vec<TaskId> = sim
            .state
            .tasks
            .values()
            .filter(|t| t.status.state == TaskState::Running && !t.is_attachment())
            .map(|t| t.id.clone())
            .collect();
        (!running.is_empty()).then(|| running[usize::from(n) % running.len()].clone())
    };
    match event {
        Event::Scale(service, n) => {
            if let Ok(found) = api::lookup::service(&sim.state, &name(*service)).cloned()
                && !found.spec.mode.is_global()
            {
                sim.scale(&found.id, u64::from(*n));
            }
        }
        Event::Fail(n) => {
            if let Some(task) = nth_live(sim, *n) {
                sim.report(&task, TaskState::Failed);
            }
        }
        Event::Complete(n) => {
            if let Some(task) = nth_live(sim, *n) {
                sim.report(&task, TaskState::Complete);
            }
        }
        Event::Attach(n) => attach(sim, *n),
        Event::Detach(n) => {
            let attached: Vec<_> = sim.state.tasks.values().filter(|task| task.is_attachment()).collect();
            if let Some(task) = attached.get(usize::from(*n) % attached.len().max(1)) {
                let id = task.id.clone();
                sim.put(Change::DeleteTask(id));
            }
        }
        Event::RemoveNode(n) => sim.put(Change::DeleteNode(node_id(*n))),
        Event::Join(n) => join(sim, *n),
        Event::Constrain(service, on) => constrain(sim, *service, *on),
        Event::Node(n, _) | Event::Availability(n, _) | Event::Shun(n, _)
            if !sim.state.nodes.contains_key(&node_id(*n)) => {}
        Event::Shun(n, on) => sim.node(*n, |node| shun(node, *on)),
        Event::Node(n, state) => sim.node(*n, |node| node.status.state = *state),
        Event::Availability(n, availability) => sim.node(*n, |node| node.spec.availability = *availability),
        Event::RemoveService(service) => {
            sim.put(Change::DeleteService(ServiceId(format!("service-{}", name(*service)))));
        }
        Event::CreateService(service, n) => create(sim, *service, *n),
        Event::Agents => sim.agents(),
        Event::Wait(seconds) => sim.advance(i64::from(*seconds)),
    }
}

fn join(sim: &mut Sim, n: u8) {
    if !sim.state.nodes.contains_key(&node_id(n)) {
        sim.join(n);
    }
}

fn shun(node: &mut Node, on: bool) {
    match on {
        true => drop(node.spec.labels.insert("shunned".to_owned(), "yes".to_owned())),
        false => drop(node.spec.labels.remove("shunned")),
    }
}

fn constrain(sim: &mut Sim, service: u8, on: bool) {
    if let Ok(mut found) = api::lookup::service(&sim.state, &name(service)).cloned() {
        let constraints = on.then(|| "node.labels.shunned!=yes".to_owned()).into_iter().collect();
        found.spec.task_template.placement = Some(Placement { constraints, ..Placement::default() });
        sim.put(Change::PutService(Box::new(found)));
    }
}

/// No wanted task is on a node its service shuns, and each has its service's placement.
fn check_placement(sim: &Sim) {
    for task in sim.state.tasks.values().filter(|task| task.is_wanted() && !task.is_attachment()) {
        let placement = &sim.state.services[&task.service_id].spec.task_template.placement;
        assert_eq!(task.spec.placement, *placement);
        let constrained = placement.as_ref().is_some_and(|placement| !placement.constraints.is_empty());
        let node = sim.state.nodes.get(&task.node_id);
        let shunned = node.is_some_and(|node| node.spec.labels.contains_key("shunned"));
        assert!(!constrained || !shunned, "{} is on {}", task.id, task.node_id);
    }
}

fn attach(sim: &mut Sim, n: u8) {
    let request = AttachRequest {
        request: 1,
        network: "a".to_owned(),
        name: String::new(),
        addr: None,
        container: "/run/netns/x".to_owned(),
    };
    // Refused where the node is gone or the network is full.
    if let Ok((_, changes)) = attach::plan(&sim.state, &node_id(n), &request, sim.now) {
        sim.commit(changes);
    }
}

fn vips(sim: &Sim) -> BTreeMap<ServiceId, Vec<String>> {
    let of =
        |service: &Service| service.endpoint.virtual_ips.iter().map(|vip| vip.addr.to_string()).collect();
    sim.state.services.iter().map(|(id, service)| (id.clone(), of(service))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens: plans are idempotent (`settle`), no address is held twice, VIPs stay, each slot
    /// and node has one wanted task; and once everything is well again, every service is whole.
    #[test]
    fn services_become_whole_again_after_anything(events in prop::collection::vec(event(), 0..40)) {
        let mut sim = Sim::new(3);
        sim.network("a", Some("10.9.0.0/25"));
        sim.network("b", None);
        sim.settle();
        (0..3).for_each(|service| create(&mut sim, service, 3));
        sim.run();
        for event in &events {
            let before = vips(&sim);
            apply(&mut sim, event);
            sim.settle();
            sim.check_addresses();
            check_placement(&sim);
            for (service, vips) in vips(&sim) {
                prop_assert!(before.get(&service).is_none_or(|old| old.is_empty() || *old == vips));
            }
            let mut places = BTreeSet::new();
            for task in sim.state.tasks.values().filter(|task| task.is_wanted() && !task.is_attachment()) {
                let node = (task.slot == 0).then(|| task.node_id.clone());
                prop_assert!(places.insert((task.service_id.clone(), task.slot, node)));
            }
        }
        for n in 1..=3 {
            join(&mut sim, n);
            sim.node(n, |node| {
                node.status.state = NodeState::Ready;
                node.spec.availability = Availability::Active;
                shun(node, false);
            });
        }
        sim.run();
        sim.run();
        for service in sim.state.services.values() {
            let running: usize = sim.running_by_node(&service.id).into_values().sum();
            let wanted = if service.spec.mode.is_global() { 3 } else { service.spec.mode.replicas() as usize };
            prop_assert_eq!(running, wanted);
        }
        let mut tasks = sim.state.tasks.values().filter(|task| !task.is_attachment());
        prop_assert!(tasks.all(|task| sim.state.services.contains_key(&task.service_id)));
        sim.check_addresses();
    }
}
