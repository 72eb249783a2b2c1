use super::client::hello;
use super::*;
use crate::dispatch::drain::DRAIN_LIMIT;
use skep_model::assign::{Assignment, AssignmentKind, Assignments, Desired, Key};
use skep_model::node::{NodeState, PortConflict};
use skep_model::service::Protocol;
use skep_model::session::{AttachRequest, Attached, Hello, TaskReport, ToAgent, ToManager};

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
    cluster.write(vec![service("web", 1), put(task("t1", 1, &worker.node_id, TaskState::Assigned))]);
    while !have.assignments.contains_key(&key("task/t1")) {
        let message = agent.assignments().await;
        assert_eq!(message.kind, AssignmentKind::Incremental);
        have.apply(message).unwrap();
    }
    cluster.write(vec![service("web", 0), Change::DeleteTask(TaskId::from("t1"))]);
    while have.assignments.contains_key(&key("task/t1")) {
        have.apply(agent.assignments().await).unwrap();
    }
    agent.say(&ToManager::Resync).await;
    let again = agent.assignments().await;
    assert_eq!(again.kind, AssignmentKind::Complete);
    let again = desired([again]);
    assert_eq!(again.assignments, have.assignments);
    // The stream goes on from the COMPLETE set.
    cluster.write(vec![service("web", 1), put(task("t2", 1, &worker.node_id, TaskState::Assigned))]);
    have = again;
    while !have.assignments.contains_key(&key("task/t2")) {
        have.apply(agent.assignments().await).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_acknowledged_once_they_are_kept_and_move_forward_only() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    cluster.write(vec![service("web", 1), put(task("t", 1, &worker.node_id, TaskState::Assigned))]);
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    let state_of = |id: &str| cluster.state().tasks[&TaskId::from(id)].status.state;
    report(&mut agent, 1, vec![is("t", status(TaskState::Preparing)), is("t", status(TaskState::Running))])
        .await;
    assert_eq!(state_of("t"), TaskState::Running);
    report(&mut agent, 2, vec![is("t", status(TaskState::Starting)), is("none", status(TaskState::Running))])
        .await;
    assert_eq!(state_of("t"), TaskState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_ended_with_the_daemon_are_failed_at_its_next_hello() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let running = |id: &str, slot| put(task(id, slot, &worker.node_id, TaskState::Running));
    cluster.write(vec![service("web", 2), running("kept", 1), running("lost", 2)]);
    let mut agent = cluster.agent(&worker).await;
    let (_, complete) = agent.begin(Hello { running: vec![TaskId::from("kept")], ..hello() }).await;
    let state = cluster.state();
    let lost = &state.tasks[&TaskId::from("lost")].status;
    assert_eq!((lost.state, lost.err.as_str()), (TaskState::Failed, "the daemon restarted"));
    assert_eq!(state.tasks[&TaskId::from("kept")].status.state, TaskState::Running);
    let assigned = desired([complete]).assignments;
    assert!(assigned.contains_key(&key("task/kept")) && !assigned.contains_key(&key("task/lost")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_down_although_its_connection_stands() {
    let cluster = Cluster::with_heartbeat(Duration::from_millis(200)).await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    // Not after: the grace begins with the session.
    let began = std::time::Instant::now();
    agent.begin(hello()).await;
    cluster
        .until("node down", |state| {
            let node = &state.nodes[&worker.node_id];
            node.status.state == NodeState::Down && node.status.message == "heartbeat failure"
        })
        .await;
    assert!(began.elapsed() >= Duration::from_millis(600), "after {:?}", began.elapsed());
    while agent.hear().await.is_some() {}
    cluster.agent(&worker).await.begin(hello()).await;
    assert_eq!(node_state(&cluster.state(), &worker.node_id), NodeState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_heartbeats_stays_up_and_a_lost_connection_alone_is_not_down() {
    // Heartbeats come 15 times within their grace, so that a machine that stalls for a second takes nobody for dead.
    let cluster = Cluster::with_heartbeat(Duration::from_millis(500)).await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    for _ in 0..20 {
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
    cluster.write(vec![service("web", 1), put(task("t", 1, &worker.node_id, TaskState::Assigned))]);
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
    assert_eq!(manager.db().state().nodes, before.nodes);
    assert_eq!(node_state(&before, &worker.node_id), NodeState::Ready, "not the node's fault");
    manager.start(addr).unwrap();
    let cluster = Cluster { manager, addr, first: cluster.first, dir };
    cluster.agent(&worker).await.begin(hello()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_is_made_held_and_given_up() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let create = serde_json::json!({"Name": "lan", "Driver": "overlay", "Attachable": true});
    let create: crate::api::CreateNetwork = serde_json::from_value(create).unwrap();
    crate::api::create_network(cluster.manager.db(), create).unwrap();
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    let request = |request, network: &str| {
        ToManager::Attach(AttachRequest {
            request,
            network: network.to_owned(),
            name: format!("laptop{request}"),
            addr: None,
            container: "/run/netns/x".to_owned(),
        })
    };
    agent.say(&request(1, "none")).await;
    let (number, refused) = attached(&mut agent).await;
    assert_eq!(number, 1);
    assert!(refused.unwrap_err().contains("none"));

    agent.say(&request(2, "lan")).await;
    let (number, made) = attached(&mut agent).await;
    let made = made.unwrap();
    assert_eq!((number, made.name.as_str()), (2, "laptop2"));
    let known = |state: &State| state.tasks.contains_key(&made.task);
    assert!(known(&cluster.state()));

    agent.say(&request(3, "lan")).await;
    let kept = attached(&mut agent).await.1.unwrap();
    drop(agent);
    let mut agent = cluster.agent(&worker).await;
    let (_, complete) = agent.begin(Hello { attachments: vec![kept.task.clone()], ..hello() }).await;
    assert!(!known(&cluster.state()), "the node does not hold it any more");
    let have = desired([complete]);
    let endpoint = key(&format!("endpoint/{}/{}", kept.attachment.network, kept.task));
    let Assignment::Endpoint(endpoint) = &have.assignments[&endpoint] else { panic!("no endpoint") };
    assert!(endpoint.serving);
    agent.say(&ToManager::Detach { task: kept.task.clone() }).await;
    cluster.until("detached", |state| !state.tasks.contains_key(&kept.task)).await;
}

async fn attached(agent: &mut Agent) -> (u64, Result<Attached, String>) {
    loop {
        if let ToAgent::Attached { request, result } = agent.hear().await.expect("the session goes on") {
            return (request, result);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reaches_a_node_and_one_that_leaves_hands_it_on() {
    let cluster = Cluster::new().await;
    let (first, second) = (cluster.worker().await, cluster.worker().await);
    let mut agent = cluster.agent(&first).await;
    let (_, complete) = agent.begin(hello()).await;
    let spec = serde_json::json!({
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": "host", "Args": ["sleep", "1"]},
            "RestartPolicy": {"Delay": 0},
        },
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]},
    });
    let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
    crate::api::create_service(cluster.manager.db(), &spec).unwrap();
    let mut have = desired([complete]);
    let task = own_task(&mut agent, &mut have).await;
    report(&mut agent, 1, vec![is(task.as_str(), status(TaskState::Running))]).await;

    let mut other = cluster.agent(&second).await;
    let (_, complete) = other.begin(hello()).await;
    let mut others = desired([complete]);
    let serving = |desired: &Desired| {
        desired.assignments.values().any(|assignment| match assignment {
            Assignment::Endpoint(endpoint) => endpoint.serving && endpoint.task == task,
            _ => false,
        })
    };
    assert!(serving(&others), "ingress reaches every node");
    agent.say(&ToManager::Leave).await;
    let next = own_task(&mut other, &mut others).await;
    assert_ne!(next, task);
    assert!(!serving(&others));
}

/// Takes in assignments until there is a task to run.
async fn own_task(agent: &mut Agent, desired: &mut Desired) -> TaskId {
    loop {
        let task = desired.assignments.values().find_map(|assignment| match assignment {
            Assignment::Task(task) if task.desired_state == TaskState::Running => Some(task.id.clone()),
            _ => None,
        });
        if let Some(task) = task {
            return task;
        }
        desired.apply(agent.assignments().await).expect("no gap");
    }
}

/// Two nodes with sessions that have everything in place so far, and a task that runs on the first.
async fn two_nodes() -> (Cluster, [Credentials; 2], [Agent; 2], [Desired; 2]) {
    let cluster = Cluster::new().await;
    let nodes = [cluster.worker().await, cluster.worker().await];
    cluster.write(vec![service("web", 1), put(task("t1", 1, &nodes[0].node_id, TaskState::Running))]);
    let mut agents = [cluster.agent(&nodes[0]).await, cluster.agent(&nodes[1]).await];
    let running = Hello { running: vec![TaskId::from("t1")], ..hello() };
    let (_, first) = agents[0].begin(running).await;
    let elsewhere = Hello { data_path_addr: Ipv4Addr::new(192, 0, 2, 8), ..hello() };
    let (_, second) = agents[1].begin(elsewhere).await;
    let mut have = [desired([first]), desired([second])];
    take_in_until(&mut agents[0], &mut have[0], |have| is_known(have, &nodes[1])).await;
    (cluster, nodes, agents, have)
}

fn is_known(have: &Desired, node: &Credentials) -> bool {
    have.assignments.contains_key(&Key(format!("peer/{}", node.node_id)))
}

/// Takes in and acknowledges until the node has what is asked for.
async fn take_in_until(agent: &mut Agent, have: &mut Desired, wanted: impl Fn(&Desired) -> bool) {
    while !wanted(have) {
        have.apply(agent.assignments().await).unwrap();
        agent.say(&ToManager::Applied { revision: have.revision }).await;
    }
}

fn is_stopping(have: &Desired, drained: bool) -> bool {
    let task = have.assignments.get(&key("task/t1"));
    matches!(task, Some(Assignment::Task(task)) if task.desired_state > TaskState::Running && task.drained == drained)
}

/// Takes in whatever comes and acknowledges it, until the session ends.
async fn acknowledge_everything(mut agent: Agent, mut have: Desired) {
    agent.say(&ToManager::Applied { revision: have.revision }).await;
    take_in_until(&mut agent, &mut have, |_| false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_drained_when_every_connected_node_has_it_out_and_a_full_sync_does_not_undo_it() {
    // The best of a few, for a busy machine.
    let mut took = Vec::new();
    while took.len() < 3 && took.iter().min().is_none_or(|took| *took >= DRAIN_LIMIT) {
        let (cluster, _nodes, [mut owner, other], [mut have, others]) = two_nodes().await;
        let other = tokio::spawn(acknowledge_everything(other, others));
        let began = std::time::Instant::now();
        cluster.write(vec![service("web", 0)]);
        take_in_until(&mut owner, &mut have, |have| is_stopping(have, false)).await;
        take_in_until(&mut owner, &mut have, |have| is_stopping(have, true)).await;
        took.push(began.elapsed());
        owner.say(&ToManager::Resync).await;
        assert!(is_stopping(&desired([owner.assignments().await]), true));
        other.abort();
    }
    assert!(took.iter().any(|took| *took < DRAIN_LIMIT), "after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_acknowledge_holds_a_task_up_for_two_seconds() {
    let (cluster, nodes, [mut owner, mut silent], [mut have, mut others]) = two_nodes().await;
    let began = std::time::Instant::now();
    // A change for the other node that it never acknowledges.
    cluster.write(vec![
        service("web", 0),
        put(Task {
            desired_state: TaskState::Shutdown,
            ..task("t1", 1, &nodes[0].node_id, TaskState::Running)
        }),
        put(task("t2", 2, &nodes[1].node_id, TaskState::Running)),
    ]);
    others.apply(silent.assignments().await).unwrap();
    take_in_until(&mut owner, &mut have, |have| is_stopping(have, true)).await;
    let took = began.elapsed();
    assert!(took >= DRAIN_LIMIT, "after {took:?}");
}
