//! A small cluster in memory, with the control loop run by hand.

use jiff::Timestamp;
use skep_manager::api::{self, ApiError};
use skep_manager::state::{Change, State};
use skep_manager::store::RedbStore;
use skep_manager::{Db, control_loop, dispatch};
use skep_model::assign::Desired;
use skep_model::data_path::DataPathKey;
use skep_model::service::ServiceSpec;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

/// More runs than any plan needs that settles.
const MAX_RUNS: usize = 16;

pub(crate) struct Cluster {
    pub(crate) db: Db,
    now: Timestamp,
}

thread_local! {
    /// Made once and put back before each input: a store takes longer to make than an input to run.
    static FIRST: (Db, Arc<State>) = {
        let cluster = Cluster::make();
        let state = cluster.db.state();
        (cluster.db, state)
    };
}

impl Cluster {
    /// Two ready nodes, the ingress network, a network `backend` and a service `web`.
    pub(crate) fn new() -> Self {
        let db = FIRST.with(|(db, first)| {
            db.update(|state| Ok::<_, Infallible>(put_back(state, first))).expect("a store in memory");
            db.clone()
        });
        Self { db, now: Timestamp::UNIX_EPOCH }
    }

    fn make() -> Self {
        let store = RedbStore::in_memory().expect("a store in memory");
        let db = Db::open(Arc::new(store)).expect("an empty store");
        db.update(|_| Ok::<_, Infallible>(objects())).expect("a store in memory takes everything");
        let mut cluster = Self { db, now: Timestamp::UNIX_EPOCH };
        let body = serde_json::from_str(r#"{"Name":"backend","Driver":"overlay","Attachable":true}"#);
        api::create_network(&cluster.db, body.expect("a network")).expect("a first network");
        let spec = serde_json::from_str(
            r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"host","Args":["sleep","1d"]},
                "Networks":[{"Target":"backend"}]},"Mode":{"Replicated":{"Replicas":2}},
                "EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":8080}]}}"#,
        );
        api::create_service(&cluster.db, &spec.expect("a service")).expect("a first service");
        cluster.settle();
        cluster
    }

    /// As a client that has just read `web`.
    pub(crate) fn update(&self, spec: &ServiceSpec) -> Result<(), ApiError> {
        let state = self.db.state();
        let version = state.services.values().find(|s| s.spec.name == "web").map(|s| s.meta.version.index);
        api::update_service(&self.db, "web", version.unwrap_or_default(), spec)
    }

    /// Runs the control loop until it has nothing more to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..MAX_RUNS {
            let plan = control_loop::plan(&self.db.state(), self.now);
            if plan.changes.is_empty() {
                return;
            }
            self.db.update(|_| Ok::<_, Infallible>(plan.changes.clone())).expect("a store in memory");
        }
        panic!("the plan does not settle");
    }

    /// Nothing is given twice, and every node can be told what it has to do.
    pub(crate) fn judge(&self) {
        let state = self.db.state();
        unique(addresses(&state), "an address");
        unique(state.networks.values().filter_map(|n| Some(n.allocation?.vni)), "a VNI");
        let ports = state.services.values().flat_map(|service| &service.endpoint.ports);
        unique(ports.filter(|p| p.published_port != 0).map(|p| (p.protocol, p.published_port)), "a port");
        for node in state.nodes.keys() {
            let desired = Desired { revision: 1, assignments: dispatch::assignments(&state, node) };
            let line = serde_json::to_vec(&desired.complete()).expect("assignments can be written");
            let mut there = Desired::default();
            there.apply(serde_json::from_slice(&line).expect("and read")).expect("a complete set");
            assert_eq!(there, desired, "a node gets what was meant");
        }
    }
}

/// The changes that lead from `state` to `first`.
fn put_back(state: &State, first: &State) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    changes.extend(state.services.keys().cloned().map(Change::DeleteService));
    changes.extend(state.networks.keys().cloned().map(Change::DeleteNetwork));
    changes.extend(state.tasks.keys().cloned().map(Change::DeleteTask));
    changes.extend(first.cluster.iter().cloned().map(|cluster| Change::PutCluster(Box::new(cluster))));
    changes.extend(first.nodes.values().cloned().map(|node| Change::PutNode(Box::new(node))));
    changes.extend(first.services.values().cloned().map(|service| Change::PutService(Box::new(service))));
    changes.extend(first.networks.values().cloned().map(|network| Change::PutNetwork(Box::new(network))));
    changes.extend(first.tasks.values().cloned().map(|task| Change::PutTask(Box::new(task))));
    changes
}

fn addresses(state: &State) -> impl Iterator<Item = (String, std::net::Ipv4Addr)> + '_ {
    let tasks = state.tasks.values().filter(|task| task.is_live()).flat_map(|task| &task.attachments);
    let tasks = tasks.map(|attachment| (attachment.network.to_string(), attachment.addr.addr()));
    let vips = state.services.values().flat_map(|service| &service.endpoint.virtual_ips);
    let vips = vips.map(|vip| (vip.network_id.to_string(), vip.addr.addr()));
    let networks = state.networks.values();
    tasks.chain(vips).chain(networks.filter_map(|n| Some((n.id.to_string(), n.allocation?.gateway))))
}

fn unique<T: Ord + std::fmt::Debug>(items: impl Iterator<Item = T>, what: &str) {
    let mut seen = BTreeSet::new();
    for item in items {
        assert!(!seen.contains(&item), "{what} is given twice: {item:?}");
        seen.insert(item);
    }
}

fn objects() -> Vec<Change> {
    let cluster = r#"{"ID":"c","CreatedAt":"1970-01-01T00:00:00Z","UpdatedAt":"1970-01-01T00:00:00Z","Spec":{"Name":"default"},
        "DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":24,"DataPathPort":4789,"RootCa":"",
        "JoinTokens":{"Worker":"","Manager":""}}"#;
    let ingress = r#"{"id":"ingress","CreatedAt":"1970-01-01T00:00:00Z","UpdatedAt":"1970-01-01T00:00:00Z",
        "spec":{"name":"ingress","labels":{},"options":{},"attachable":false,"internal":false,"ingress":true}}"#;
    let node = |id: &str| {
        format!(
            r#"{{"ID":"{id}","CreatedAt":"1970-01-01T00:00:00Z","UpdatedAt":"1970-01-01T00:00:00Z",
            "Spec":{{"Role":"worker","Availability":"active"}},
            "Description":{{"Hostname":"{id}","Platform":{{"Architecture":"x86_64","OS":"linux"}},
            "Resources":{{"NanoCPUs":1,"MemoryBytes":1}},"Engine":{{"EngineVersion":"0"}}}},
            "Status":{{"State":"ready","Addr":"192.0.2.1"}},
            "Skep":{{"routed":[],"port_conflicts":[],"certificate":"","data_path_addr":"192.0.2.1",
            "data_path_key":"{}"}}}}"#,
            DataPathKey([id.as_bytes()[0]; 32])
        )
    };
    let node = |id| Change::PutNode(serde_json::from_str(&node(id)).expect("a node"));
    vec![
        Change::PutCluster(serde_json::from_str(cluster).expect("a cluster")),
        Change::PutNetwork(serde_json::from_str(ingress).expect("a network")),
        node("a"),
        node("b"),
    ]
}
