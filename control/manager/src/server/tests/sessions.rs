use super::client::hello;
use super::*;
use skep_model::assign::{Assignment, AssignmentKind, Assignments, Desired, Key};
use skep_model::node::{NodeState, PortConflict};
use skep_model::service::Protocol;
use skep_model::session::{TaskReport, ToAgent, ToManager};
use skep_model::task::ContainerStatus;

fn key(text: &str) -> Key {
    Key(text.to_owned())
}

fn node_state(state: &State, node: &NodeId) -> NodeState {
    state.nodes[node].status.state
}

/// What the node has after it took in `messages`.
fn desired(messages: impl IntoIterator<Item = Assignments>) -> Desired {
    let mut desired = Desired::default();
    for message in messages {
        desired.apply(message).expect("no gap");
    }
    desired
}

async fn report(agent: &mut Agent, sequence: u64, statuses: Vec<TaskReport>) {
    agent.say(&ToManager::TaskStatuses { sequence, statuses }).await;
    loop {
        match agent.hear().await.expect("the session goes on") {
            ToAgent::StatusAccepted { sequence: accepted } => return assert_eq!(accepted, sequence),
            _ => continue,
        }
    }
}

fn is(task: &str, status: TaskStatus) -> TaskReport {
    TaskReport { task: TaskId::from(task), status }
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_makes_a_node_ready_and_is_answered_with_everything() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    let (heartbeat_ms, complete) = agent.begin(hello()).await;
    assert_eq!(heartbeat_ms, 600_000);
    let desired = desired([complete]);
    let Assignment::Node(this) = &desired.assignments[&key("node/self")] else { panic!("no node") };
    assert_eq!(this.id, worker.node_id);

    let state = cluster.state();
    let node = &state.nodes[&worker.node_id];
    assert_eq!(node.status.state, NodeState::Ready);
    assert_eq!(node.description, hello().description);
    assert_eq!(node.skep.data_path_addr, Some(hello().data_path_addr));
    assert_eq!(node.skep.routed, hello().routed);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_node_as_increments_without_gaps() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    let (_, complete) = agent.begin(hello()).await;
    let mut have = desired([complete]);
    cluster.write(vec![service("web"), put(task("t1", "web", &worker.node_id, TaskState::Assigned))]);
    while !have.assignments.contains_key(&key("task/t1")) {
        let message = agent.assignments().await;
        assert_eq!(message.kind, AssignmentKind::Incremental);
        have.apply(message).unwrap();
    }
    cluster.write(vec![Change::DeleteTask(TaskId::from("t1"))]);
    while have.assignments.contains_key(&key("task/t1")) {
        have.apply(agent.assignments().await).unwrap();
    }
    agent.say(&ToManager::Resync).await;
    let again = agent.assignments().await;
    assert_eq!(again.kind, AssignmentKind::Complete);
    let again = desired([again]);
    assert_eq!(again.assignments, have.assignments);
    // The stream goes on from the COMPLETE set.
    cluster.write(vec![put(task("t2", "web", &worker.node_id, TaskState::Assigned))]);
    have = again;
    while !have.assignments.contains_key(&key("task/t2")) {
        have.apply(agent.assignments().await).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_moves_a_nodes_own_task_forward_only() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let (mine, others) = (worker.node_id.clone(), cluster.first.node_id.clone());
    cluster.write(vec![
        service("web"),
        put(task("mine", "web", &mine, TaskState::Assigned)),
        put(task("theirs", "web", &others, TaskState::Assigned)),
    ]);
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    let state_of = |id: &str| cluster.state().tasks[&TaskId::from(id)].status.state;

    let running = |id: &str| is(id, status(TaskState::Running));
    let steps =
        vec![is("mine", status(TaskState::Preparing)), running("mine"), running("theirs"), running("none")];
    report(&mut agent, 1, steps).await;
    assert_eq!((state_of("mine"), state_of("theirs")), (TaskState::Running, TaskState::Assigned));

    report(&mut agent, 2, vec![is("mine", status(TaskState::Starting))]).await;
    assert_eq!(state_of("mine"), TaskState::Running, "backward");

    let mut with_pid = status(TaskState::Running);
    with_pid.container_status = Some(ContainerStatus { pid: 42, ..ContainerStatus::default() });
    report(&mut agent, 3, vec![is("mine", with_pid)]).await;
    let pid = || cluster.state().tasks[&TaskId::from("mine")].status.container_status.clone().unwrap().pid;
    assert_eq!(pid(), 42, "more detail of the same state");

    let failed = TaskStatus { err: "exit code 3".to_owned(), ..status(TaskState::Failed) };
    report(&mut agent, 4, vec![is("mine", failed)]).await;
    report(&mut agent, 5, vec![is("mine", status(TaskState::Rejected))]).await;
    assert_eq!(state_of("mine"), TaskState::Failed, "a terminal state is final");
    report(&mut agent, 6, vec![is("theirs", status(TaskState::Orphaned))]).await;
    assert_eq!(state_of("theirs"), TaskState::Assigned);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_ended_with_the_daemon_are_failed_at_its_next_hello() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let node = worker.node_id.clone();
    let mut unwanted = task("unwanted", "web", &node, TaskState::Running);
    unwanted.desired_state = TaskState::Shutdown;
    cluster.write(vec![
        service("web"),
        put(task("kept", "web", &node, TaskState::Running)),
        put(task("lost", "web", &node, TaskState::Running)),
        put(task("new", "web", &node, TaskState::Assigned)),
        put(unwanted),
    ]);
    let mut agent = cluster.agent(&worker).await;
    agent.begin(skep_model::session::Hello { running: vec![TaskId::from("kept")], ..hello() }).await;
    let state = cluster.state();
    let status_of = |id: &str| state.tasks.get(&TaskId::from(id)).map(|task| task.status.clone());
    assert_eq!(status_of("kept").unwrap().state, TaskState::Running);
    let lost = status_of("lost").unwrap();
    assert_eq!((lost.state, lost.err.as_str()), (TaskState::Failed, "the daemon restarted"));
    assert_eq!(status_of("new").unwrap().state, TaskState::Assigned);
    assert_eq!(status_of("unwanted").map_or(TaskState::Shutdown, |status| status.state), TaskState::Shutdown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_down_although_its_connection_stands() {
    let cluster = Cluster::with_heartbeat(Duration::from_millis(200)).await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    let began = std::time::Instant::now();
    cluster
        .until("node down", |state| {
            let node = &state.nodes[&worker.node_id];
            node.status.state == NodeState::Down && node.status.message == "heartbeat failure"
        })
        .await;
    assert!(began.elapsed() >= Duration::from_millis(550), "after {:?}", began.elapsed());
    while agent.hear().await.is_some() {}
    cluster.agent(&worker).await.begin(hello()).await;
    assert_eq!(node_state(&cluster.state(), &worker.node_id), NodeState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_heartbeats_stays_up_and_a_lost_connection_alone_is_not_down() {
    let cluster = Cluster::with_heartbeat(Duration::from_millis(200)).await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    for _ in 0..10 {
        agent.say(&ToManager::Heartbeat).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(node_state(&cluster.state(), &worker.node_id), NodeState::Ready);
    }
    drop(agent);
    let seen = |wanted| move |state: &State| node_state(state, &worker.node_id) == wanted;
    cluster.until("disconnected", seen.clone()(NodeState::Disconnected)).await;
    cluster.until("down", seen(NodeState::Down)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_replaces_the_older_and_the_node_stays_ready() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut older = cluster.agent(&worker).await;
    older.begin(hello()).await;
    let mut newer = cluster.agent(&worker).await;
    newer.begin(hello()).await;
    while older.hear().await.is_some() {}
    newer.say(&ToManager::Resync).await;
    newer.assignments().await;
    assert_eq!(node_state(&cluster.state(), &worker.node_id), NodeState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_is_down_at_once_with_its_tasks() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    cluster.write(vec![service("web"), put(task("t", "web", &worker.node_id, TaskState::Assigned))]);
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    report(&mut agent, 1, vec![is("t", status(TaskState::Running))]).await;
    agent.say(&ToManager::Leave).await;
    while agent.hear().await.is_some() {}
    let state = cluster.state();
    assert_eq!(node_state(&state, &worker.node_id), NodeState::Down);
    assert_eq!(state.nodes[&worker.node_id].status.message, "the node left the cluster");
    assert!(!state.tasks[&TaskId::from("t")].is_live());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_a_removed_node_ends() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    cluster.write(vec![Change::DeleteNode(worker.node_id.clone())]);
    while agent.hear().await.is_some() {}
    assert!(!cluster.state().nodes.contains_key(&worker.node_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_begin_with_hello_or_sends_garbage_is_closed() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut rude = cluster.agent(&worker).await;
    rude.say(&ToManager::Heartbeat).await;
    assert!(rude.hear().await.is_none());
    assert_eq!(node_state(&cluster.state(), &worker.node_id), NodeState::Unknown);

    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    agent.say(&ToManager::Hello(hello())).await;
    while agent.hear().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn port_conflicts_are_kept_with_the_node() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let agent = &mut cluster.agent(&worker).await;
    agent.begin(hello()).await;
    let conflict = PortConflict { protocol: Protocol::Tcp, port: 80, holder: "nginx (pid 812)".to_owned() };
    agent.say(&ToManager::PortConflicts(vec![conflict.clone()])).await;
    let known = move |state: &State| state.nodes[&worker.node_id].skep.port_conflicts == [conflict.clone()];
    cluster.until("conflict stored", known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_manager_opens_again_with_everything() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    cluster.manager.shutdown().await;
    while agent.hear().await.is_some() {}
    let before = cluster.state();
    let (addr, dir) = (cluster.addr, cluster.dir);
    drop(cluster.manager);
    let manager = Manager::open(dir.path()).unwrap();
    manager.start(addr).unwrap();
    let cluster = Cluster { manager, addr, first: cluster.first, dir };
    assert_eq!(cluster.state().nodes, before.nodes);
    assert_eq!(node_state(&cluster.state(), &worker.node_id), NodeState::Ready);
    cluster.agent(&worker).await.begin(hello()).await;
}
