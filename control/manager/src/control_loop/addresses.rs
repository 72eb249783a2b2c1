//! No address leaks: whatever came and went, what is free can be given, to the last one.

use super::sim::{Sim, node_id, on, replicas};
use crate::attach;
use crate::state::Change;
use proptest::prelude::*;
use skep_model::session::AttachRequest;
use skep_model::task::TaskState;
use skep_model::{ServiceId, TaskId};

/// Host addresses of a /26 without the gateway.
const ADDRESSES: usize = 61;

#[derive(Clone, Debug)]
enum Event {
    Scale(u8),
    Fail(u8),
    Attach,
    Detach(u8),
    Remove,
    /// The manager dies before it has written its plan.
    Crash,
    Agents,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0u8..70).prop_map(Event::Scale),
        2 => any::<u8>().prop_map(Event::Fail),
        2 => Just(Event::Attach),
        2 => any::<u8>().prop_map(Event::Detach),
        1 => Just(Event::Remove),
        2 => Just(Event::Crash),
        3 => Just(Event::Agents),
    ]
}

fn attach(sim: &mut Sim) -> bool {
    let request = AttachRequest {
        request: 1,
        network: "small".to_owned(),
        name: String::new(),
        addr: None,
        container: "/run/netns/x".to_owned(),
    };
    let planned = attach::plan(&sim.state, &node_id(1), &request, sim.now);
    planned.is_ok_and(|(_, changes)| {
        sim.commit(changes);
        true
    })
}

fn nth(tasks: Vec<TaskId>, n: u8) -> Option<TaskId> {
    let index = usize::from(n) % tasks.len().max(1);
    tasks.into_iter().nth(index)
}

fn held(sim: &Sim) -> usize {
    let vips = sim.state.services.values().map(|service| service.endpoint.virtual_ips.len()).sum::<usize>();
    let live = sim.state.tasks.values().filter(|task| task.is_live());
    vips + live.map(|task| task.attachments.len()).sum::<usize>()
}

fn happen(sim: &mut Sim, event: &Event) {
    let service = ServiceId::from("service-web");
    let of = |attached: bool, state| {
        let tasks = sim.state.tasks.values();
        let wanted = tasks.filter(|t| t.is_attachment() == attached && t.status.state == state);
        wanted.map(|task| task.id.clone()).collect()
    };
    match event {
        Event::Scale(n) if sim.state.services.contains_key(&service) => sim.scale(&service, u64::from(*n)),
        Event::Scale(n) => {
            sim.service("web", |spec| {
                spec.mode = replicas(u64::from(*n));
                spec.task_template.networks = on(&["small"]);
            });
        }
        Event::Fail(n) => {
            if let Some(task) = nth(of(false, TaskState::Running), *n) {
                sim.report(&task, TaskState::Failed);
            }
        }
        Event::Attach => _ = attach(sim),
        Event::Detach(n) => {
            if let Some(task) = nth(of(true, TaskState::Running), *n) {
                sim.put(Change::DeleteTask(task));
            }
        }
        Event::Remove => sim.put(Change::DeleteService(service)),
        Event::Crash => _ = super::plan(&sim.state, sim.now),
        Event::Agents => {
            sim.agents();
            sim.advance(5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_free_can_be_given_to_the_last_address(events in prop::collection::vec(event(), 0..30)) {
        let mut sim = Sim::new(1);
        sim.network("small", Some("10.9.0.0/26"));
        sim.settle();
        for event in &events {
            happen(&mut sim, event);
            if !matches!(event, Event::Crash) {
                sim.settle();
            }
            sim.check_addresses();
            prop_assert!(held(&sim) <= ADDRESSES);
        }
        let free = ADDRESSES - held(&sim);
        let given = (0..=ADDRESSES).filter(|_| attach(&mut sim)).count();
        prop_assert_eq!(given, free);
        sim.check_addresses();
    }
}
