//! The manager's disk is full: nothing can be changed, and nothing else happens.

use super::*;
use crate::api::{self, CreateNetwork};
use crate::ca::Authority;
use crate::db::Db;
use crate::store::RedbStore;
use crate::store::disk::Disk;
use skep_model::node::NodeState;
use skep_model::session::{TaskReport, ToAgent, ToManager};
use std::sync::Arc;
use tokio::time::{Instant, timeout};

const SENTENCE: &str = "no space left on memory: the cluster is read-only until there is room";
const RESUMES_WITHIN: Duration = Duration::from_secs(5);

/// A cluster whose store is on `disk`.
fn on(disk: &Disk) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let (made, first) = Manager::init(dir.path(), options()).unwrap();
    let state = made.db().state();
    let cluster = state.cluster.clone().unwrap();
    let key = std::fs::read_to_string(dir.path().join("ca-key.pem")).unwrap();
    let authority = Authority::load(cluster.id.clone(), &cluster.root_ca, &key).unwrap();
    let disk = disk.clone();
    let db = Db::open(Arc::new(RedbStore::opened_by(Box::new(move || disk.open())).unwrap())).unwrap();
    let mut objects = vec![Change::PutCluster(Box::new(cluster))];
    objects.extend(state.networks.values().cloned().map(|network| Change::PutNetwork(Box::new(network))));
    objects.extend(state.nodes.values().cloned().map(|node| Change::PutNode(Box::new(node))));
    db.update(|_| Ok::<_, Infallible>(objects.clone())).unwrap();
    let manager = Manager::new(db, authority, first.node_id.clone(), Duration::from_secs(600));
    manager.start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let addr = manager.listen_addr().unwrap();
    Cluster { manager, addr, first, dir }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay_on_a_full_disk_and_what_they_said_is_written_once_there_is_room() {
    let disk = Disk::default();
    let cluster = on(&disk);
    let (standing, coming) = (cluster.worker().await, cluster.worker().await);
    let mut agent = cluster.agent(&standing).await;
    agent.begin(client::hello()).await;
    cluster.write(vec![service("web", 1), put(task("t1", 1, &standing.node_id, TaskState::Assigned))]);

    disk.set_full(true);
    let wanted = CreateNetwork {
        name: "late".to_owned(),
        driver: Some("overlay".to_owned()),
        ..CreateNetwork::default()
    };
    let refused = api::create_network(cluster.manager.db(), wanted.clone()).unwrap_err();
    assert_eq!(refused.to_string(), format!("rpc error: code = Unavailable desc = {SENTENCE}"));
    let token = cluster.state().cluster.as_ref().unwrap().join_tokens.worker.clone();
    let (_, sentence) = cluster.stranger().await.join(&token).await.err().unwrap();
    assert!(sentence.contains(SENTENCE), "{sentence}");

    let statuses = vec![TaskReport { task: "t1".into(), status: status(TaskState::Running) }];
    agent.say(&ToManager::TaskStatuses { sequence: 7, statuses }).await;
    let mut newcomer = cluster.agent(&coming).await;
    let (_, complete) = newcomer.begin(client::hello()).await;
    assert!(!complete.set.is_empty(), "a node that comes meanwhile learns all there is");
    assert_eq!(cluster.manager.db().trouble().unwrap().to_string(), SENTENCE);
    assert!(
        timeout(Duration::from_millis(1_500), accepted(&mut agent)).await.is_err(),
        "nothing was written"
    );

    disk.set_full(false);
    let room = Instant::now();
    assert_eq!(timeout(RESUMES_WITHIN, accepted(&mut agent)).await.unwrap(), 7);
    let is_written = |state: &State| {
        state.tasks[&TaskId::from("t1")].status.state == TaskState::Running
            && state.nodes[&coming.node_id].status.state == NodeState::Ready
    };
    cluster.until("everything said is written", is_written).await;
    assert!(cluster.manager.db().trouble().is_none());
    api::create_network(cluster.manager.db(), wanted).unwrap();
    assert!(room.elapsed() < RESUMES_WITHIN, "{:?}", room.elapsed());
    cluster.manager.shutdown().await;
}

/// The sequence of the next statuses that are accepted.
async fn accepted(agent: &mut Agent) -> u64 {
    loop {
        if let ToAgent::StatusAccepted { sequence } = agent.hear().await.expect("the session stands") {
            return sequence;
        }
    }
}
