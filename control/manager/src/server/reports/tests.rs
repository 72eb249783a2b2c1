use super::*;
use crate::server::join::new_node;
use skep_model::cluster::Meta;
use skep_model::node::{Availability, NodeDescription, Role};
use skep_model::service::{NetworkAttachmentSpec, Protocol, TaskSpec};
use skep_model::task::ContainerStatus;
use skep_model::{NodeId, ServiceId};
use std::net::Ipv4Addr;

const MINE: &str = "mine";
const OTHER: &str = "other";
const ADDR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const ORIGIN: Origin = Origin { addr: ADDR, data_path_key: DataPathKey([9; 32]) };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn id(node: &str) -> NodeId {
    NodeId::from(node)
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        timestamp: at(10),
        state,
        message: String::new(),
        err: String::new(),
        container_status: None,
    }
}

fn task(name: &str, node: &str, state: TaskState) -> Task {
    Task {
        id: TaskId::from(name),
        meta: Meta::new(at(0)),
        spec: TaskSpec::default(),
        service_id: ServiceId::from("web"),
        service_name: "web".to_owned(),
        slot: 1,
        node_id: id(node),
        status: status(state),
        desired_state: TaskState::Running,
        not_before: None,
        attachments: Vec::new(),
    }
}

fn attachment(name: &str) -> Task {
    let mut task = task(name, MINE, TaskState::Running);
    task.spec.network_attachment_spec = Some(NetworkAttachmentSpec::default());
    (task.service_id, task.slot) = (ServiceId::default(), 0);
    task
}

fn state(tasks: impl IntoIterator<Item = Task>) -> State {
    let node = |name| new_node(id(name), Role::Worker, name, Availability::Active, ADDR, at(0));
    let mut state = State::default();
    state.apply(1, [MINE, OTHER].map(|name| Change::PutNode(Box::new(node(name)))));
    state.apply(2, tasks.into_iter().map(|task| Change::PutTask(Box::new(task))));
    state
}

fn hello(running: &[&str], attachments: &[&str]) -> Hello {
    let ids = |names: &[&str]| names.iter().map(|name| TaskId::from(*name)).collect();
    Hello {
        description: NodeDescription::default(),
        data_path_addr: Ipv4Addr::new(192, 0, 2, 9),
        routed: Vec::new(),
        attachments: ids(attachments),
        running: ids(running),
    }
}

/// `report` taken in: the status of the task of that name afterwards.
fn after(state: &State, name: &str, report: TaskStatus) -> TaskStatus {
    let reports = [TaskReport { task: TaskId::from(name), status: report }];
    let mut state = state.clone();
    state.apply(3, statuses(&state, &id(MINE), &reports, at(20)));
    state.tasks[&TaskId::from(name)].status.clone()
}

const ORDER: [TaskState; 10] = [
    TaskState::Assigned,
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Ready,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Complete,
    TaskState::Shutdown,
    TaskState::Failed,
    TaskState::Rejected,
];

#[test]
fn every_report_moves_forward_or_nowhere_and_an_end_is_final() {
    for known in ORDER {
        for reported in ORDER {
            let end = after(&state([task("t", MINE, known)]), "t", status(reported)).state;
            let forward = reported > known && known <= TaskState::Running;
            assert_eq!(end, if forward { reported } else { known }, "{known} then {reported}");
        }
    }
}

#[test]
fn a_node_speaks_for_its_own_tasks_and_in_its_own_words() {
    let state =
        state([task("theirs", OTHER, TaskState::Assigned), attachment("a"), task("t", MINE, TaskState::New)]);
    assert_eq!(after(&state, "theirs", status(TaskState::Running)).state, TaskState::Assigned);
    assert_eq!(after(&state, "a", status(TaskState::Failed)).state, TaskState::Running);
    for managers in [TaskState::Pending, TaskState::Assigned, TaskState::Remove, TaskState::Orphaned] {
        assert_eq!(after(&state, "t", status(managers)).state, TaskState::New);
    }
}

#[test]
fn the_same_state_may_come_again_with_more_detail_but_not_with_less_news() {
    let known = state([task("t", MINE, TaskState::Running)]);
    let container_status = Some(ContainerStatus { pid: 42, ..ContainerStatus::default() });
    let detailed = TaskStatus { timestamp: at(11), container_status, ..status(TaskState::Running) };
    assert_eq!(after(&known, "t", detailed.clone()), detailed);
    let late = TaskStatus { timestamp: at(9), ..detailed };
    assert_eq!(after(&known, "t", late), status(TaskState::Running));
}

#[test]
fn a_status_is_a_line_and_not_a_log() {
    let err = "ä".repeat(MAX_TEXT_BYTES);
    let kept = after(
        &state([task("t", MINE, TaskState::Running)]),
        "t",
        TaskStatus { err, ..status(TaskState::Failed) },
    );
    assert!(kept.err.contains("ä … ä") && kept.err.len() <= MAX_TEXT_BYTES, "{}", kept.err.len());
}

#[test]
fn hello_ends_what_is_not_held_any_more() {
    let mut unwanted = task("unwanted", MINE, TaskState::Running);
    unwanted.desired_state = TaskState::Shutdown;
    let mut state = state([
        task("kept", MINE, TaskState::Running),
        task("lost", MINE, TaskState::Starting),
        task("waiting", MINE, TaskState::Preparing),
        task("theirs", OTHER, TaskState::Running),
        unwanted,
        attachment("held"),
        attachment("dropped"),
    ]);
    let changes = connected(&state, &id(MINE), &hello(&["kept"], &["held"]), ORIGIN, at(20)).unwrap();
    state.apply(3, changes);
    let known = |name: &str| state.tasks.get(&TaskId::from(name)).map(|task| task.status.state);
    assert_eq!(known("kept"), Some(TaskState::Running));
    assert_eq!(known("lost"), Some(TaskState::Failed));
    assert_eq!(known("waiting"), Some(TaskState::Preparing));
    assert_eq!(known("theirs"), Some(TaskState::Running));
    assert_eq!(known("unwanted"), Some(TaskState::Shutdown));
    assert_eq!((known("held"), known("dropped")), (Some(TaskState::Running), None));
    assert_eq!(state.nodes[&id(MINE)].status.state, NodeState::Ready);
}

#[test]
fn a_hello_that_says_nothing_new_writes_nothing() {
    let mut state = state([]);
    let hello = hello(&[], &[]);
    state.apply(3, connected(&state, &id(MINE), &hello, ORIGIN, at(20)).unwrap());
    assert_eq!(connected(&state, &id(MINE), &hello, ORIGIN, at(30)), Ok(Vec::new()));
    assert_eq!(connected(&state, &id("gone"), &hello, ORIGIN, at(30)), Err(NodeRemoved.into()));
}

#[test]
fn a_node_that_leaves_takes_its_tasks_and_attachments_with_it() {
    let mut state = state([
        task("t", MINE, TaskState::Running),
        task("theirs", OTHER, TaskState::Running),
        attachment("a"),
    ]);
    state.apply(3, left(&state, &id(MINE), at(20)));
    assert_eq!(state.nodes[&id(MINE)].status.state, NodeState::Down);
    assert!(!state.tasks[&TaskId::from("t")].is_live());
    assert!(state.tasks[&TaskId::from("theirs")].is_live());
    assert!(!state.tasks.contains_key(&TaskId::from("a")));
}

#[test]
fn a_lost_connection_makes_a_ready_node_disconnected_and_no_other() {
    let mut state = state([]);
    assert_eq!(disconnected(&state, &id(MINE), at(20)), []);
    state.apply(3, connected(&state, &id(MINE), &hello(&[], &[]), ORIGIN, at(20)).unwrap());
    state.apply(4, disconnected(&state, &id(MINE), at(21)));
    assert_eq!(state.nodes[&id(MINE)].status.state, NodeState::Disconnected);
    state.apply(5, unheard(&state, &id(MINE), at(22)));
    assert_eq!(disconnected(&state, &id(MINE), at(23)), []);
    assert_eq!(state.nodes[&id(MINE)].status.message, "heartbeat failure");
}

#[test]
fn detaching_takes_the_nodes_own_attachments_only() {
    let state = state([attachment("a"), task("t", MINE, TaskState::Running)]);
    let gone = |node: &str, task: &str| detached(&state, &id(node), &TaskId::from(task)).len();
    assert_eq!((gone(MINE, "a"), gone(OTHER, "a"), gone(MINE, "t")), (1, 0, 0));
}

#[test]
fn port_conflicts_replace_each_other_and_are_bounded() {
    let mut state = state([]);
    let conflict = |port| PortConflict { protocol: Protocol::Tcp, port, holder: "nginx".to_owned() };
    let many: Vec<_> = (0..2000).map(conflict).collect();
    state.apply(3, port_conflicts(&state, &id(MINE), &many, at(20)));
    assert_eq!(state.nodes[&id(MINE)].skep.port_conflicts.len(), MAX_LISTED);
    state.apply(4, port_conflicts(&state, &id(MINE), &[conflict(80)], at(21)));
    assert_eq!(state.nodes[&id(MINE)].skep.port_conflicts, [conflict(80)]);
    assert_eq!(port_conflicts(&state, &id(MINE), &[conflict(80)], at(22)), []);
}

#[test]
fn what_a_node_says_of_itself_fits_into_a_table() {
    let state = state([]);
    let mut hello = hello(&[], &[]);
    hello.description.hostname = format!("n1\u{1b}[2J\n{}", "x".repeat(1 << 20));
    hello.description.platform.os = "\r\u{202e}".repeat(1 << 16);
    let changes = connected(&state, &id(MINE), &hello, ORIGIN, at(20)).unwrap();
    let [Change::PutNode(node)] = &changes[..] else { panic!("{changes:?}") };
    let NodeDescription { hostname, platform, .. } = &node.description;
    assert!(hostname.starts_with("n1 [2J x") && hostname.len() <= 255, "{hostname}");
    assert!(platform.os.len() <= 64 && platform.os.trim().chars().all(|c| c == '…'), "{}", platform.os);
}

#[test]
fn a_node_is_known_by_the_key_of_its_certificate_and_by_no_other_nodes() {
    let mut state = state([]);
    state.apply(3, connected(&state, &id(MINE), &hello(&[], &[]), ORIGIN, at(20)).unwrap());
    assert_eq!(state.nodes[&id(MINE)].skep.data_path_key, Some(ORIGIN.data_path_key));
    let taken = || Err(KeyTaken { other: id(MINE) }.into());
    assert_eq!(connected(&state, &id(OTHER), &hello(&[], &[]), ORIGIN, at(21)), taken());
    state.apply(4, left(&state, &id(MINE), at(22)));
    assert_eq!(
        connected(&state, &id(OTHER), &hello(&[], &[]), ORIGIN, at(23)),
        taken(),
        "it is still a peer"
    );
    let own = Origin { data_path_key: DataPathKey([8; 32]), ..ORIGIN };
    assert!(connected(&state, &id(OTHER), &hello(&[], &[]), own, at(24)).is_ok());
    state.apply(5, [Change::DeleteNode(id(MINE))]);
    assert!(connected(&state, &id(OTHER), &hello(&[], &[]), ORIGIN, at(25)).is_ok());
}
