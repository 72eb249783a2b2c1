use super::client::hello;
use super::*;
use crate::logs::{LogError, LogOptions, LogTarget};
use skep_model::session::{LogLine, LogStream, ReadLogs, ToAgent, ToManager};

fn line(text: &str) -> LogLine {
    LogLine { time: now(), stream: LogStream::Stdout, text: text.to_owned() }
}

fn web() -> LogTarget {
    LogTarget::Service(ServiceId::from("web"))
}

async fn asked(agent: &mut Agent) -> ReadLogs {
    loop {
        if let ToAgent::ReadLogs(request) = agent.hear().await.expect("the session goes on") {
            return request;
        }
    }
}

async fn next(lines: &mut crate::logs::LogReceiver) -> Option<(String, LogLine)> {
    let line = tokio::time::timeout(LIMIT, lines.recv()).await.expect("a line comes in time");
    line.map(|(context, line)| (context.task.0, line))
}

/// A cluster with a worker on which task `t` of the service `web` runs.
async fn with_task() -> (Cluster, Agent, Credentials) {
    let cluster = Cluster::new().await;
    let worker = cluster.worker().await;
    let mut agent = cluster.agent(&worker).await;
    agent.begin(hello()).await;
    cluster.write(vec![service("web", 1), put(task("t", 1, &worker.node_id, TaskState::Running))]);
    (cluster, agent, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_log_comes_from_the_nodes_of_its_tasks() {
    let (cluster, mut agent, _worker) = with_task().await;
    let options = LogOptions { tail: Some(5), ..LogOptions::default() };
    let mut lines = cluster.manager.logs(web(), options).unwrap();
    let request = asked(&mut agent).await;
    assert_eq!((request.task.as_str(), request.tail, request.follow), ("t", Some(5), false));
    let number = request.request;
    agent.say(&ToManager::Log { request: number, lines: vec![line("one"), line("two")] }).await;
    agent.say(&ToManager::LogEnd { request: number, error: None }).await;
    assert_eq!(next(&mut lines).await.unwrap().1.text, "one");
    assert_eq!(next(&mut lines).await.unwrap().1.text, "two");
    assert_eq!(next(&mut lines).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn following_takes_in_new_tasks_and_stops_when_the_reader_goes() {
    let (cluster, mut agent, worker) = with_task().await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = cluster.manager.logs(web(), options).unwrap();
    let first = asked(&mut agent).await;
    agent.say(&ToManager::Log { request: first.request, lines: vec![line("one")] }).await;
    assert_eq!(next(&mut lines).await.unwrap().1.text, "one");

    cluster.write(vec![service("web", 2), put(task("t2", 2, &worker.node_id, TaskState::Running))]);
    let second = asked(&mut agent).await;
    assert_eq!(second.task.as_str(), "t2");
    agent.say(&ToManager::Log { request: second.request, lines: vec![line("two")] }).await;
    let (task, two) = next(&mut lines).await.unwrap();
    assert_eq!((task.as_str(), two.text.as_str()), ("t2", "two"));

    drop(lines);
    let mut stopped = Vec::new();
    while stopped.len() < 2 {
        if let ToAgent::StopLogs { request } = agent.hear().await.unwrap() {
            stopped.push(request);
        }
    }
    stopped.sort_unstable();
    assert_eq!(stopped, [first.request, second.request]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_be_asked_is_named() {
    let (cluster, mut agent, worker) = with_task().await;
    let mut lines = cluster.manager.logs(web(), LogOptions::default()).unwrap();
    asked(&mut agent).await;
    drop(agent);
    let (_, lost) = next(&mut lines).await.unwrap();
    assert_eq!(lost.stream, LogStream::Stderr);
    assert!(lost.text.contains("connection to its node was lost"), "{}", lost.text);
    assert_eq!(next(&mut lines).await, None);

    let absent = &cluster.state().nodes[&worker.node_id];
    assert_eq!(absent.description.hostname, "fake");
    let mut lines = cluster.manager.logs(LogTarget::Task(TaskId::from("t")), LogOptions::default()).unwrap();
    let (_, line) = next(&mut lines).await.unwrap();
    assert!(line.text.contains("node fake is not connected"), "{}", line.text);
    assert_eq!(next(&mut lines).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_has_no_log() {
    let cluster = Cluster::new().await;
    let no_service = cluster.manager.logs(web(), LogOptions::default()).err();
    assert_eq!(no_service, Some(LogError::NoSuchService(ServiceId::from("web"))));
    let no_task = cluster.manager.logs(LogTarget::Task(TaskId::from("t")), LogOptions::default()).err();
    assert_eq!(no_task, Some(LogError::NoSuchTask(TaskId::from("t"))));
}
