//! Hostile input at every place of every body: a refusal in words, or kept as it came and of no harm to what follows.

use super::{ApiError, CreateNetwork, UpdateNode, cluster_spec, networks, nodes, services};
use crate::control_loop::sim::{Sim, node_id};
use crate::state::{Change, State};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_model::cluster::ClusterSpec;
use skep_model::service::ServiceSpec;
use skep_model::{NetworkId, ServiceId};
use std::cell::Cell;
use std::collections::BTreeMap;

/// A service that uses every field there is.
fn service_body() -> Value {
    json!({
        "Name": "web",
        "Labels": {"tier": "front"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "host", "Labels": {"a": "b"}, "Command": ["sh"], "Args": ["-c", "sleep 1"],
                "Env": ["A=1"], "Dir": "/srv", "User": "root:root", "Hostname": "front-1", "StopSignal": "SIGTERM",
                "StopGracePeriod": 1_000_000_000, "Init": false, "Isolation": "default",
                "Healthcheck": {"Test": ["NONE"]}, "DNSConfig": {}, "Privileges": null, "Mounts": [],
            },
            "Networks": [{"Target": "backend", "Aliases": ["w"], "DriverOpts": {}}],
            "Placement": {
                "Constraints": ["node.labels.disk==ssd"], "MaxReplicas": 0,
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
            },
            "RestartPolicy": {"Condition": "any", "Delay": 1, "MaxAttempts": 3, "Window": 1},
            "Resources": {"Limits": {}, "Reservations": {}},
            "LogDriver": null,
            "Runtime": "container",
            "ForceUpdate": 0,
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"},
        "RollbackConfig": {"Parallelism": 1},
        "EndpointSpec": {
            "Mode": "vip",
            "Ports": [{
                "Name": "http", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress",
            }],
        },
        "Networks": null,
    })
}

fn network_body() -> Value {
    json!({
        "Name": "front", "Driver": "overlay", "Scope": "swarm", "EnableIPv4": true, "EnableIPv6": false,
        "Internal": false, "Attachable": true, "Ingress": false, "ConfigOnly": false, "ConfigFrom": {"Network": ""},
        "CheckDuplicate": true, "Options": {"encrypted": "false"}, "Labels": {"a": "b"},
        "IPAM": {
            "Driver": "default", "Options": {},
            "Config": [{
                "Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1", "IPRange": "10.9.0.128/25",
                "AuxiliaryAddresses": {"router": "10.9.0.9"},
            }],
        },
    })
}

fn node_body() -> Value {
    json!({"Name": "", "Labels": {"disk": "ssd"}, "Role": "worker", "Availability": "active"})
}

fn cluster_body() -> Value {
    json!({
        "Name": "default", "Labels": {"a": "b"}, "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {"SnapshotInterval": 0}, "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64},
        "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_i64}, "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": false},
    })
}

/// What came of one body.
enum Verdict {
    Refused,
    /// The object as it was stored.
    Stored(Value),
}

fn read<T: DeserializeOwned>(body: &Value) -> Option<T> {
    serde_json::from_value(body.clone()).ok()
}

/// A refusal is the client's fault, and says so in words.
fn refused(error: &ApiError) -> Verdict {
    assert!(matches!(error.http_status(), 400 | 404 | 409 | 501), "{error:?}");
    assert!(!error.to_string().is_empty());
    Verdict::Refused
}

fn sim() -> Sim {
    let mut sim = Sim::new(2);
    sim.network("backend", None);
    sim.settle();
    sim
}

/// Every so many accepted bodies of a place go on to the control loop.
const SETTLED_EACH: usize = 64;

/// A place gets every so many of the values. Each place begins with another one.
struct Each {
    text: usize,
    /// Places that hold no text refuse all strings alike.
    elsewhere: usize,
}

/// The state with the changes. Now and then the control loop takes them, too, and finds nothing wrong with them.
fn settled(sim: &Sim, changes: Vec<Change>) -> State {
    thread_local!(static ACCEPTED: Cell<usize> = const { Cell::new(0) });
    let mut sim = sim.clone();
    sim.commit(changes);
    let accepted = ACCEPTED.replace(ACCEPTED.get() + 1);
    if accepted.is_multiple_of(SETTLED_EACH) {
        sim.settle();
    }
    sim.state
}

fn stored(object: Option<&impl Serialize>) -> Verdict {
    Verdict::Stored(serde_json::to_value(object.expect("it was accepted")).expect("objects serialize"))
}

fn try_service(sim: &Sim, body: &Value) -> Verdict {
    let Some(spec) = read::<ServiceSpec>(body) else { return Verdict::Refused };
    let id = ServiceId::from("new");
    match services::plan_create(&sim.state, &id, spec, sim.now) {
        Ok(changes) => stored(settled(sim, changes).services.get(&id).map(|service| &service.spec)),
        Err(error) => refused(&error),
    }
}

fn try_network(sim: &Sim, body: &Value) -> Verdict {
    let Some(request) = read::<CreateNetwork>(body) else { return Verdict::Refused };
    let id = NetworkId::from("new");
    let planned = request.read().and_then(|spec| networks::plan_create(&sim.state, &id, &spec, sim.now));
    match planned {
        Ok(changes) => {
            let state = settled(sim, changes);
            let allocation = state.networks[&id].allocation.expect("an accepted network has addresses");
            assert!(allocation.subnet.contains(&allocation.gateway));
            stored(state.networks.get(&id).map(|network| &network.spec))
        }
        Err(error) => refused(&error),
    }
}

fn try_node(sim: &Sim, body: &Value) -> Verdict {
    let Some(request) = read::<UpdateNode>(body) else { return Verdict::Refused };
    let (id, version) = (node_id(2), sim.state.nodes[&node_id(2)].meta.version.index);
    let planned =
        request.read().and_then(|spec| nodes::plan_update(&sim.state, id.as_str(), version, &spec, sim.now));
    match planned {
        Ok(changes) => stored(settled(sim, changes).nodes.get(&id).map(|node| &node.spec)),
        Err(error) => refused(&error),
    }
}

fn try_cluster(_sim: &Sim, body: &Value) -> Verdict {
    let Some(spec) = read::<ClusterSpec>(body) else { return Verdict::Refused };
    match cluster_spec::read(&spec) {
        Ok(settings) => {
            let mut kept = ClusterSpec::default();
            settings.lay_over(&mut kept);
            stored(Some(&kept))
        }
        Err(error) => refused(&error),
    }
}

type Try = fn(&Sim, &Value) -> Verdict;

/// How often what was put at a place was refused and kept.
type Tally = BTreeMap<String, (usize, usize)>;

fn everywhere(body: &Value, try_it: Try, values: &[Value], each: Each) -> Tally {
    let sim = sim();
    assert!(matches!(try_it(&sim, body), Verdict::Stored(_)), "the body itself is good: {body}");
    let mut tally = Tally::new();
    for (nth, place) in skep_hostile::places(body).into_iter().enumerate() {
        let counts = tally.entry(place.clone()).or_default();
        let takes_text = body.pointer(&place).is_some_and(Value::is_string);
        let each = if takes_text { each.text } else { each.elsewhere };
        for value in values.iter().skip(nth % each).step_by(each) {
            let hostile = skep_hostile::with(body, &place, value.clone());
            match try_it(&sim, &hostile) {
                Verdict::Refused => counts.0 += 1,
                Verdict::Stored(object) => {
                    counts.1 += 1;
                    verbatim(&object, &place, value);
                }
            }
        }
    }
    // Nothing that was tried left a trace: what was good at first is good now.
    assert!(matches!(try_it(&sim, body), Verdict::Stored(_)));
    tally
}

/// A string that was accepted is kept letter by letter wherever the object has that place.
fn verbatim(object: &Value, place: &str, value: &Value) {
    let is_reference = place.ends_with("/Target") || place == "/Name";
    // An empty one says nothing: what it stands for is kept.
    if let (Value::String(sent), Some(Value::String(kept))) = (value, object.pointer(place))
        && !is_reference
        && !sent.is_empty()
    {
        assert_eq!(kept, sent, "{place}");
    }
}

fn strings() -> Vec<Value> {
    skep_hostile::strings().into_iter().map(Value::from).collect()
}

const BODIES: [(fn() -> Value, Try); 4] = [
    (service_body, try_service),
    (network_body, try_network),
    (node_body, try_node),
    (cluster_body, try_cluster),
];

#[test]
fn strings_in_every_field_are_refused_or_kept_as_they_came() {
    let strings = strings();
    for (body, try_it) in BODIES {
        let tally = everywhere(&body(), try_it, &strings, Each { text: 3, elsewhere: 16 });
        println!("{} strings over {} places: {tally:#?}", strings.len(), tally.len());
    }
}

#[test]
fn every_wrong_kind_in_every_field_is_refused_or_harmless() {
    let megabytes = skep_hostile::megabytes().map(Value::from).step_by(3);
    let values: Vec<Value> = skep_hostile::values().into_iter().chain(megabytes).collect();
    for (body, try_it) in BODIES {
        let tally = everywhere(&body(), try_it, &values, Each { text: 1, elsewhere: 1 });
        println!("{} values in {} places: {tally:#?}", values.len(), tally.len());
    }
}

/// Names become DNS names: of all strings only labels pass.
#[test]
fn only_labels_become_names() {
    let sim = sim();
    let is_label = |name: &str| {
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        letters && (1..=63).contains(&name.len())
    };
    let body = service_body();
    for place in ["/Name", "/TaskTemplate/Networks/0/Aliases/0", "/EndpointSpec/Ports/0/Name"] {
        for name in skep_hostile::strings().iter().filter(|name| !is_label(name) && !name.is_empty()) {
            let verdict = try_service(&sim, &skep_hostile::with(&body, place, json!(name)));
            assert!(matches!(verdict, Verdict::Refused), "{place}: {name:?}");
        }
    }
}
