//! Whatever happens to the state, a node that follows the increments has what a fresh one gets, and
//! what it has hangs together.

use super::*;
use crate::state::Change;
use proptest::prelude::*;
use skep_model::assign::Desired;

const STATES: [TaskState; 7] = [
    TaskState::New,
    TaskState::Pending,
    TaskState::Assigned,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Failed,
    TaskState::Shutdown,
];

const NODE_STATES: [NodeState; 4] =
    [NodeState::Ready, NodeState::Down, NodeState::Disconnected, NodeState::Unknown];

fn networks_of(mask: u8) -> Vec<u8> {
    (0..3).filter(|index| mask & (1 << index) != 0).collect()
}

fn any_change() -> impl Strategy<Value = Change> {
    let put_task = (0u8..6, 1u8..4, 0u8..8, prop::sample::select(&STATES[..]), any::<bool>()).prop_map(
        |(index, node, mask, status, wanted)| {
            let mut task = task(index, node, &networks_of(mask));
            task.status.state = status;
            task.service_id = ServiceId(format!("s{}", index % 3));
            task.desired_state = if wanted { TaskState::Running } else { TaskState::Shutdown };
            Change::PutTask(Box::new(task))
        },
    );
    let put_service = (0u8..3, 0u8..8, any::<bool>()).prop_map(|(index, mask, published)| {
        Change::PutService(Box::new(service(index, &networks_of(mask & !1), published)))
    });
    let put_node = (1u8..4, prop::sample::select(&NODE_STATES[..]))
        .prop_map(|(index, status)| Change::PutNode(Box::new(node(index, status))));
    prop_oneof![
        4 => put_task,
        2 => put_service,
        2 => put_node,
        1 => (0u8..6).prop_map(|index| Change::DeleteTask(TaskId(format!("t{index}")))),
        1 => (0u8..3).prop_map(|index| Change::DeleteService(ServiceId(format!("s{index}")))),
        1 => (1u8..4).prop_map(|index| Change::DeleteNode(NodeId(format!("n{index}")))),
        1 => (0u8..3).prop_map(|index| Change::PutNetwork(Box::new(network(index)))),
        1 => (0u8..3).prop_map(|index| Change::DeleteNetwork(NetworkId(format!("net{index}")))),
    ]
}

fn desired(state: &State, node: &NodeId) -> Desired {
    Desired { revision: state.revision, assignments: assignments(state, node) }
}

proptest! {
    #[test]
    fn following_the_increments_gives_what_a_fresh_node_gets(
        steps in prop::collection::vec(prop::collection::vec(any_change(), 1..5), 1..20),
    ) {
        let node = NodeId::from("n1");
        let mut state = state([ready(1), ready(2)], [], []);
        let (mut sent, mut follower) = (desired(&state, &node), Desired::default());
        follower.apply(sent.complete()).unwrap();
        for changes in steps {
            state.apply(state.revision + 1, changes);
            let wanted = desired(&state, &node);
            if let Some(increment) = wanted.since(&sent) {
                follower.apply(increment).unwrap();
                sent = wanted.clone();
            }
            prop_assert_eq!(&follower.assignments, &wanted.assignments);
            let mut fresh = Desired::default();
            fresh.apply(wanted.complete()).unwrap();
            prop_assert_eq!(&fresh.assignments, &follower.assignments);
        }
    }

    #[test]
    fn an_assignment_leans_on_nothing_the_node_does_not_have(
        changes in prop::collection::vec(any_change(), 1..40),
    ) {
        let mut state = state([ready(1), ready(2), ready(3)], [], []);
        state.apply(2, changes);
        for node in state.nodes.keys() {
            let all = assignments(&state, node);
            let has = |key: String| all.contains_key(&Key(key));
            let known = |network: &NetworkId| has(format!("network/{network}")) || !state.networks.contains_key(network);
            let reachable = |other: &NodeId| other == node || has(format!("peer/{other}")) || !state.nodes.contains_key(other);
            for assignment in all.values() {
                match assignment {
                    Assignment::Endpoint(endpoint) => {
                        prop_assert!(known(&endpoint.network) && reachable(&endpoint.node));
                        prop_assert!(!endpoint.serving || state.nodes.contains_key(&endpoint.node));
                    }
                    Assignment::Service(service) => {
                        prop_assert!(service.networks.iter().all(|n| known(&n.network)));
                        prop_assert!(!service.networks.is_empty() || !service.ports.is_empty());
                    }
                    Assignment::Task(task) => {
                        for attachment in &task.attachments {
                            let endpoint = format!("endpoint/{}/{}", attachment.network, task.id);
                            prop_assert!(has(endpoint));
                        }
                    }
                    Assignment::Node(ThisNode { id, .. }) => prop_assert_eq!(id, node),
                    Assignment::Peer(_) | Assignment::Network(_) => {}
                }
            }
            for task in state.tasks.values().filter(|task| task.node_id == *node && is_placed(task)) {
                let key = format!("task/{}", task.id);
                prop_assert!(has(key));
            }
        }
    }
}
