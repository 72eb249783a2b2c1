use super::*;
use crate::fake_manager::{Authority, Behaviour, FakeManager, FakeSession};
use crate::project::example;
use jiff::Timestamp;
use skep_model::assign::{AssignmentKind, Assignments, Desired};
use skep_model::join::MANAGER_NAME;
use skep_model::node::PortConflict;
use skep_model::service::Protocol;
use skep_model::session::{AttachRequest, Attached, Hello, LogLine, LogStream, ReadLogs, ToAgent, ToManager};
use skep_model::task::{Attachment, TaskState, TaskStatus};
use tempfile::TempDir;

/// So long that no test sees one it doesn't wait for.
const HEARTBEAT_MS: u64 = 60_000;

/// A session that runs, and what it shares with the rest of the agent.
pub(crate) struct Agent {
    pub(crate) link: Arc<Link>,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
    state: TempDir,
}

fn agent(authority: &Authority, manager: SocketAddr) -> Agent {
    agent_with_logs(authority, manager, Arc::new(|_: &ReadLogs| Err("no logs".to_owned())))
}

fn agent_with_logs(authority: &Authority, manager: SocketAddr, logs: LogSource) -> Agent {
    agent_with(authority.credentials(), manager, logs)
}

fn agent_with(credentials: Credentials, manager: SocketAddr, logs: LogSource) -> Agent {
    let state = tempfile::tempdir().unwrap();
    let config = SessionConfig {
        credentials: watch::channel(credentials).1,
        managers: vec![manager],
        description: NodeDescription { hostname: "host".to_owned(), ..NodeDescription::default() },
        data_path_addr: Ipv4Addr::new(192, 0, 2, 1),
        desired: DesiredFile::new(state.path()),
        logs,
    };
    let (stop, stopped) = watch::channel(false);
    let (session, link) = start(config, stopped);
    Agent { link, stop, running: tokio::spawn(session), state }
}

async fn greet(manager: &mut FakeManager) -> (Hello, FakeSession) {
    let mut session = manager.session().await;
    let ToManager::Hello(hello) = session.next().await else { panic!("Hello comes first") };
    session.send(ToAgent::Welcome { heartbeat_ms: HEARTBEAT_MS, now: None }).await;
    (hello, session)
}

pub(crate) async fn connected() -> (Arc<Authority>, FakeManager, Agent, FakeSession) {
    let authority = Arc::new(Authority::new());
    let mut manager = FakeManager::start(authority.clone()).await;
    let agent = agent(&authority, manager.addr);
    let (_, session) = greet(&mut manager).await;
    (authority, manager, agent, session)
}

async fn revision(agent: &Agent, revision: u64) -> Arc<Desired> {
    let mut desired = agent.link.desired.subscribe();
    let reached = |desired: &Option<Arc<Desired>>| desired.as_ref().is_some_and(|d| d.revision == revision);
    let reached = desired.wait_for(reached).await.unwrap();
    reached.clone().unwrap()
}

fn status(state: TaskState) -> TaskStatus {
    let (message, err) = Default::default();
    TaskStatus { timestamp: Timestamp::UNIX_EPOCH, state, message, err, container_status: None }
}

fn attached(task: &str, request: u64) -> ToAgent {
    let addr = "10.0.1.9/24".parse().unwrap();
    let attachment = Attachment { network: "net1".into(), addr, aliases: Vec::new() };
    ToAgent::Attached {
        request,
        result: Ok(Attached { task: task.into(), name: "a".to_owned(), attachment }),
    }
}

fn attach_request(request: u64) -> AttachRequest {
    let (network, name, container) = ("net1".to_owned(), String::new(), String::new());
    AttachRequest { request, network, name, addr: None, container }
}

fn reports(message: ToManager) -> Option<(u64, Vec<TaskState>)> {
    match message {
        ToManager::TaskStatuses { sequence, statuses } => {
            Some((sequence, statuses.iter().map(|report| report.status.state).collect()))
        }
        _ => None,
    }
}

#[tokio::test]
async fn assignments_are_taken_in_and_written_down() {
    let (_authority, _manager, agent, session) = connected().await;
    let first = Desired::new(4, [example::this_node(), example::peer("n2", true)]);
    let second = Desired::new(6, [example::this_node(), example::peer("n2", false)]);
    session.send(ToAgent::Assignments(first.complete())).await;
    assert_eq!(*revision(&agent, 4).await, first);
    session.send(ToAgent::Assignments(second.since(&first).unwrap())).await;
    assert_eq!(*revision(&agent, 6).await, second);
    assert_eq!(DesiredFile::new(agent.state.path()).load(&"n1".into()).unwrap(), Some(second));
}

fn applied(message: ToManager) -> Option<u64> {
    match message {
        ToManager::Applied { revision } => Some(revision),
        _ => None,
    }
}

#[tokio::test]
async fn a_set_is_acknowledged_when_it_is_in_place_and_in_every_session_anew() {
    let (authority, manager, agent, mut session) = connected().await;
    let (first, second) = (Desired::new(4, [example::this_node()]), Desired::new(4, []));
    session.send(ToAgent::Assignments(first.complete())).await;
    let taken_in = revision(&agent, 4).await;
    agent.link.in_place.send_replace(Some(taken_in.clone()));
    assert_eq!(session.find(applied).await, 4);
    let addr = manager.stop().await;
    drop(session);

    let behaviour = Behaviour {
        root_pem: authority.root_pem.clone(),
        refusal: None,
        name: MANAGER_NAME.to_owned(),
        data_path_port: None,
    };
    let mut manager = FakeManager::start_as(authority, behaviour, addr).await;
    let (_, mut session) = greet(&mut manager).await;
    session.send(ToAgent::Assignments(second.complete())).await;
    let mut desired = agent.link.desired.subscribe();
    let replaced =
        desired.wait_for(|set| set.as_ref().is_some_and(|set| **set == second)).await.unwrap().clone();
    // What an earlier session brought, in place once more, says nothing in this one.
    agent.link.in_place.send_replace(Some(taken_in));
    agent.link.reports.report("t1".into(), status(TaskState::Running));
    let next = session.find(|message| match message {
        ToManager::Applied { .. } | ToManager::TaskStatuses { .. } => Some(message),
        _ => None,
    });
    assert!(matches!(next.await, ToManager::TaskStatuses { .. }));
    agent.link.in_place.send_replace(replaced);
    assert_eq!(session.find(applied).await, 4);
}

#[tokio::test]
async fn after_a_gap_the_complete_set_is_asked_for_and_nothing_is_lost_meanwhile() {
    let (_authority, _manager, agent, mut session) = connected().await;
    let first = Desired::new(4, [example::this_node()]);
    session.send(ToAgent::Assignments(first.complete())).await;
    revision(&agent, 4).await;
    let (kind, set, remove) = (AssignmentKind::Incremental, Vec::new(), vec![example::this_node().key()]);
    session.send(ToAgent::Assignments(Assignments { kind, applies_to: 7, results_in: 8, set, remove })).await;
    session.find(|message| matches!(message, ToManager::Resync).then_some(())).await;
    assert_eq!(*revision(&agent, 4).await, first);
    let complete = Desired::new(8, [example::peer("n2", true)]);
    session.send(ToAgent::Assignments(complete.complete())).await;
    assert_eq!(*revision(&agent, 8).await, complete);
}

#[tokio::test]
async fn a_status_is_repeated_in_the_next_session_until_it_was_accepted() {
    let (authority, manager, agent, mut session) = connected().await;
    agent.link.reports.report("t1".into(), status(TaskState::Running));
    let (_, states) = session.find(reports).await;
    assert_eq!(states, [TaskState::Running]);
    let addr = manager.stop().await;

    agent.link.reports.report("t1".into(), status(TaskState::Failed));
    let mut manager = restart(&authority, addr).await;
    let (hello, mut session) = greet(&mut manager).await;
    assert_eq!(hello.running, ["t1".into()], "the manager must not take it for lost before it hears the end");
    let (sequence, states) = session.find(reports).await;
    assert_eq!(states, [TaskState::Failed]);
    session.send(ToAgent::StatusAccepted { sequence }).await;
    agent.link.reports.all_accepted().await;
}

async fn restart(authority: &Arc<Authority>, addr: SocketAddr) -> FakeManager {
    let root_pem = authority.root_pem.clone();
    let behaviour =
        Behaviour { root_pem, refusal: None, name: MANAGER_NAME.to_owned(), data_path_port: None };
    FakeManager::start_as(authority.clone(), behaviour, addr).await
}

#[tokio::test]
async fn a_lost_session_keeps_what_was_assigned_and_says_what_is_held() {
    let (authority, manager, agent, session) = connected().await;
    session.send(ToAgent::Assignments(Desired::new(4, [example::this_node()]).complete())).await;
    revision(&agent, 4).await;
    agent.link.holdings().running.insert("t1".into());
    agent.link.holdings().attachments.insert("a1".into());
    agent.link.routed.send_replace(vec!["192.0.2.0/24".parse().unwrap()]);
    let addr = manager.stop().await;
    let mut states = agent.link.state.subscribe();
    let lost = states.wait_for(|state| state.error.is_some()).await.unwrap().clone();
    assert_eq!(lost.connected, None);
    assert!(lost.error.unwrap().contains(&addr.to_string()));

    let mut manager = restart(&authority, addr).await;
    let (hello, _session) = greet(&mut manager).await;
    assert_eq!((hello.running, hello.attachments), (vec!["t1".into()], vec!["a1".into()]));
    assert_eq!(hello.routed, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(hello.description.hostname, "host");
    states.wait_for(|state| state.connected == Some(addr) && state.error.is_none()).await.unwrap();
    assert_eq!(revision(&agent, 4).await.assignments.len(), 1);
}

#[tokio::test]
async fn port_conflicts_are_told_at_the_beginning_and_when_they_change() {
    let (_authority, _manager, agent, mut session) = connected().await;
    let conflicts = |message| match message {
        ToManager::PortConflicts(conflicts) => Some(conflicts),
        _ => None,
    };
    assert_eq!(session.find(conflicts).await, []);
    let conflict = PortConflict { protocol: Protocol::Tcp, port: 8080, holder: "nginx (pid 812)".to_owned() };
    agent.link.conflicts.send_replace(vec![conflict.clone()]);
    assert_eq!(session.find(conflicts).await, [conflict]);
}

#[tokio::test]
async fn an_attachment_is_given_and_is_held_until_it_is_given_back() {
    let (_authority, _manager, agent, mut session) = connected().await;
    let (result, ()) = tokio::join!(agent.link.attach(attach_request(5)), async {
        let asked = session.find(|message| match message {
            ToManager::Attach(request) => Some(request),
            _ => None,
        });
        assert_eq!(asked.await.request, 5);
        session.send(attached("a1", 5)).await;
    });
    assert_eq!(result.unwrap().task, "a1".into());
    assert!(agent.link.holdings().attachments.contains(&"a1".into()));
    agent.link.detach("a1".into()).await;
    assert!(agent.link.holdings().attachments.is_empty());
    session
        .find(|message| matches!(message, ToManager::Detach { task } if task == "a1".into()).then_some(()))
        .await;
}

#[tokio::test]
async fn an_attachment_nobody_waits_for_any_more_goes_back() {
    let (_authority, _manager, agent, mut session) = connected().await;
    session.send(attached("a1", 77)).await;
    session
        .find(|message| matches!(message, ToManager::Detach { task } if task == "a1".into()).then_some(()))
        .await;
    assert!(agent.link.holdings().attachments.is_empty());
}

#[tokio::test]
async fn without_a_manager_an_attachment_is_refused_with_the_reason() {
    let authority = Arc::new(Authority::new());
    let addr = FakeManager::start(authority.clone()).await.stop().await;
    let agent = agent(&authority, addr);
    let error = agent.link.attach(attach_request(1)).await.unwrap_err();
    assert!(error.starts_with("this node is not connected to a manager"), "{error}");
}

#[tokio::test]
async fn a_refused_session_is_told_in_the_managers_words_and_tried_again() {
    let authority = Arc::new(Authority::new());
    let root_pem = authority.root_pem.clone();
    let refusal = Some("this node was removed".to_owned());
    let behaviour = Behaviour { root_pem, refusal, name: MANAGER_NAME.to_owned(), data_path_port: None };
    let manager = FakeManager::start_as(authority.clone(), behaviour, (Ipv4Addr::LOCALHOST, 0).into()).await;
    let agent = agent(&authority, manager.addr);
    let mut states = agent.link.state.subscribe();
    let refused =
        |state: &LinkState| state.error.as_ref().is_some_and(|e| e.ends_with("this node was removed"));
    states.wait_for(refused).await.unwrap();
    let addr = manager.stop().await;
    let mut manager = restart(&authority, addr).await;
    greet(&mut manager).await;
}

#[tokio::test]
async fn a_manager_of_another_cluster_gets_nothing() {
    let (ours, theirs) = (Authority::new(), Arc::new(Authority::new()));
    let manager = FakeManager::start(theirs).await;
    let agent = agent(&ours, manager.addr);
    let mut states = agent.link.state.subscribe();
    let state = states.wait_for(|state| state.error.is_some()).await.unwrap().clone();
    assert!(state.error.unwrap().contains("TLS handshake failed"));
}

#[tokio::test]
async fn leaving_waits_for_the_manager_to_close_the_session() {
    let (_authority, _manager, agent, mut session) = connected().await;
    let ((), ()) = tokio::join!(agent.link.leave(), async move {
        session.find(|message| matches!(message, ToManager::Leave).then_some(())).await;
        drop(session);
    });
    agent.running.await.unwrap();
}

#[tokio::test]
async fn leaving_without_a_manager_does_not_wait() {
    let authority = Arc::new(Authority::new());
    let addr = FakeManager::start(authority.clone()).await.stop().await;
    let agent = agent(&authority, addr);
    agent.link.leave().await;
    agent.running.await.unwrap();
}

#[tokio::test]
async fn a_stopped_session_ends_its_connection() {
    let (_authority, _manager, agent, mut session) = connected().await;
    agent.stop.send_replace(true);
    agent.running.await.unwrap();
    while session.next_or_end().await.is_some() {}
}

#[tokio::test]
async fn heartbeats_come_at_the_welcomed_period() {
    let authority = Arc::new(Authority::new());
    let mut manager = FakeManager::start(authority.clone()).await;
    let _agent = agent(&authority, manager.addr);
    let mut session = manager.session().await;
    session.next().await;
    session.send(ToAgent::Welcome { heartbeat_ms: 100, now: None }).await;
    for _ in 0..3 {
        session.find(|message| matches!(message, ToManager::Heartbeat).then_some(())).await;
    }
}

fn line(text: &str) -> LogLine {
    LogLine { time: Timestamp::UNIX_EPOCH, stream: LogStream::Stdout, text: text.to_owned() }
}

fn read_logs(request: u64) -> ToAgent {
    ToAgent::ReadLogs(ReadLogs { request, task: "t1".into(), follow: true, tail: None, since: None })
}

#[tokio::test]
async fn a_log_is_sent_to_its_end_and_stopped_when_its_reader_goes() {
    let authority = Arc::new(Authority::new());
    let mut manager = FakeManager::start(authority.clone()).await;
    let (sources, mut opened) = mpsc::unbounded_channel();
    let source: LogSource = Arc::new(move |_: &ReadLogs| {
        let (lines, receiver) = mpsc::channel(4);
        sources.send(lines).unwrap();
        Ok(receiver)
    });
    let _agent = agent_with_logs(&authority, manager.addr, source);
    let (_, mut session) = greet(&mut manager).await;
    let log = |message| match message {
        ToManager::Log { request, lines } => Some((request, lines)),
        _ => None,
    };

    session.send(read_logs(1)).await;
    let lines = opened.recv().await.unwrap();
    lines.send(line("one")).await.unwrap();
    assert_eq!(session.find(log).await, (1, vec![line("one")]));
    drop(lines);
    let end = |message| match message {
        ToManager::LogEnd { request, error } => Some((request, error)),
        _ => None,
    };
    assert_eq!(session.find(end).await, (1, None));

    session.send(read_logs(2)).await;
    let lines = opened.recv().await.unwrap();
    session.send(ToAgent::StopLogs { request: 2 }).await;
    lines.closed().await;
}

#[tokio::test]
async fn a_log_that_is_not_there_ends_with_the_reason() {
    let (_authority, _manager, _agent, mut session) = connected().await;
    session.send(read_logs(9)).await;
    let end = session.find(|message| match message {
        ToManager::LogEnd { request, error } => Some((request, error)),
        _ => None,
    });
    assert_eq!(end.await, (9, Some("no logs".to_owned())));
}

#[tokio::test]
async fn an_expired_certificate_is_told_with_the_way_back() {
    let authority = Arc::new(Authority::new());
    let manager = FakeManager::start(authority.clone()).await;
    let (day, now) = (jiff::SignedDuration::from_hours(24), Timestamp::now());
    let expired = authority.credentials_for(now - day * 91, now - day);
    let agent = agent_with(expired, manager.addr, Arc::new(|_: &ReadLogs| Err("no logs".to_owned())));
    let mut state = agent.link.state.subscribe();
    let told = state.wait_for(|state| state.error.is_some()).await.unwrap().error.clone().unwrap();
    assert!(told.contains("expired on") && told.contains("skep swarm leave --force"), "{told}");
    assert!(told.contains("skep swarm join"), "{told}");
}
