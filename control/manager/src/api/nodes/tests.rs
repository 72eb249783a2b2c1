use super::*;
use crate::attach;
use crate::control_loop::sim::{Sim, global, node_id, on, publish, replicas};
use serde_json::json;
use skep_model::session::AttachRequest;
use skep_model::task::TaskState;

fn body(extra: Value) -> UpdateNode {
    let mut body = json!({"Labels": {}, "Role": "worker", "Availability": "active"});
    extra.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    serde_json::from_value(body).unwrap()
}

fn try_update(sim: &Sim, extra: Value) -> Result<Vec<Change>, ApiError> {
    let version = sim.state.nodes[&node_id(1)].meta.version.index;
    plan_update(&sim.state, "n1", version, &body(extra).read()?, sim.now)
}

fn update(sim: &mut Sim, extra: Value) {
    let changes = try_update(sim, extra).unwrap();
    sim.commit(changes);
}

fn refusal(outcome: Result<Vec<Change>, ApiError>) -> (u16, String) {
    let error = outcome.unwrap_err();
    (error.http_status(), error.to_string())
}

fn make_manager(sim: &mut Sim, n: u8) {
    sim.node(n, |node| node.spec.role = Role::Manager);
}

#[test]
fn labels_and_availability_are_stored_with_a_new_version() {
    let mut sim = Sim::new(1);
    let read = sim.state.nodes[&node_id(1)].clone();
    update(&mut sim, json!({"Labels": {"disk": "ssd", "empty": ""}, "Availability": "PAUSE", "Name": "a"}));
    let node = sim.state.nodes[&node_id(1)].clone();
    assert_eq!(node.spec.labels.len(), 2);
    assert_eq!((node.spec.availability, node.spec.name.as_deref()), (Availability::Pause, Some("a")));
    assert!(node.meta.version > read.meta.version);
    let stale = plan_update(&sim.state, "n1", read.meta.version.index, &node.spec, sim.now);
    assert_eq!(refusal(stale), (500, "rpc error: code = Unknown desc = update out of sequence".to_owned()));
    let same = serde_json::to_value(&node.spec).unwrap();
    assert_eq!(try_update(&sim, same), Ok(Vec::new()), "what was read may be sent back");
}

#[test]
fn what_a_node_cannot_be_is_refused_with_a_sentence() {
    let mut sim = Sim::new(1);
    let invalid = "(there are active, pause and drain)";
    for (extra, status, says) in [
        (json!({"Availability": "off"}), 400, format!("invalid Availability: \"off\" {invalid}")),
        (json!({"Role": ""}), 400, "invalid Role: \"\" (there are worker and manager)".to_owned()),
        (
            json!({"Colour": "red"}),
            400,
            "a node has no Colour: its spec is Name, Labels, Role and Availability".to_owned(),
        ),
        (
            json!({"Role": "manager"}),
            501,
            "a cluster with several managers is not supported in this release: the node stays a worker"
                .to_owned(),
        ),
    ] {
        assert_eq!(refusal(try_update(&sim, extra)), (status, says));
    }
    let nameless = refusal(try_update(&sim, json!({"Labels": {"": "x"}})));
    assert!(nameless.1.ends_with("a label needs a name: KEY or KEY=VALUE"));
    let huge = refusal(try_update(&sim, json!({"Labels": {"k": "x".repeat(70_000)}})));
    assert!(huge.1.contains("labels are longer than"));
    let named = refusal(try_update(&sim, json!({"Name": "x".repeat(256)})));
    assert!(named.1.ends_with("a node's name has 255 bytes at most"));
    make_manager(&mut sim, 1);
    let demoted = refusal(try_update(&sim, json!({})));
    let last = "attempting to demote the last manager of the swarm";
    assert_eq!(demoted, (400, format!("rpc error: code = FailedPrecondition desc = {last}")));
}

#[test]
fn the_only_manager_may_be_drained_and_global_services_return_to_it() {
    let mut sim = Sim::new(2);
    make_manager(&mut sim, 1);
    let web = sim.service("web", |spec| spec.mode = replicas(4));
    let agent = sim.service("agent", global);
    sim.run();
    update(&mut sim, json!({"Role": "manager", "Availability": "drain"}));
    sim.run();
    assert_eq!(sim.running_by_node(&web), [("node-2".to_owned(), 4)].into());
    assert_eq!(sim.running_by_node(&agent), [("node-2".to_owned(), 1)].into());
    update(&mut sim, json!({"Role": "manager", "Availability": "active"}));
    sim.run();
    assert_eq!(sim.running_by_node(&web), [("node-2".to_owned(), 4)].into(), "nothing is moved back");
    assert_eq!(sim.running_by_node(&agent).len(), 2);
}

#[test]
fn nodes_that_may_run_and_managers_are_not_removed() {
    let mut sim = Sim::new(3);
    make_manager(&mut sim, 1);
    let refused = |sim: &Sim, reference: &str, force| {
        let (status, text) = refusal(plan_remove(&sim.state, reference, force));
        assert_eq!(status, 400);
        text.replace("rpc error: code = FailedPrecondition desc = ", "")
    };
    for force in [false, true] {
        let text = refused(&sim, "n1", force);
        assert!(
            text.starts_with("node node-1 is a cluster manager and is a member of the raft cluster. It must")
        );
    }
    let running = "node node-2 is not down and can't be removed";
    assert_eq!(refused(&sim, "n2", false), running);
    sim.node(2, |node| node.status.state = NodeState::Disconnected);
    assert_eq!(refused(&sim, "n2", false), running);
    assert!(plan_remove(&sim.state, "n2", true).is_ok());
    for gone in [NodeState::Down, NodeState::Unknown] {
        sim.node(2, |node| node.status.state = gone);
        assert!(plan_remove(&sim.state, "n2", false).is_ok(), "{gone:?}");
    }
    // A host that left and joined again is there twice.
    sim.node(3, |node| node.description.hostname = "n2".to_owned());
    let twice = "node n2 is ambiguous (2 matches found): give the id of one";
    assert_eq!(refusal(plan_remove(&sim.state, "n2", true)), (400, twice.to_owned()));
    assert!(plan_remove(&sim.state, "node-2", true).is_ok());
}

#[test]
fn what_a_removed_node_ran_is_made_anew_and_its_addresses_rest() {
    let mut sim = Sim::new(2);
    sim.network("backend", None);
    sim.settle();
    let web = sim.service("web", |spec| {
        spec.mode = replicas(4);
        spec.task_template.networks = on(&["backend"]);
        spec.endpoint_spec = publish(80, 80);
    });
    let agent = sim.service("agent", global);
    sim.run();
    let request = AttachRequest {
        request: 1,
        network: "backend".to_owned(),
        name: String::new(),
        addr: None,
        container: String::new(),
    };
    let (attached, changes) = attach::plan(&sim.state, &node_id(2), &request, sim.now).unwrap();
    sim.commit(changes);
    let of_node = |sim: &Sim| -> Vec<_> {
        sim.state.tasks.values().filter(|task| task.node_id == node_id(2)).cloned().collect()
    };
    let freed: Vec<_> = of_node(&sim).into_iter().flat_map(|task| task.attachments).collect();
    let skep0 = sim.state.nodes[&node_id(2)].skep.ingress_addr;

    let changes = plan_remove(&sim.state, "n2", true).unwrap();
    sim.commit(changes);
    sim.run();
    assert_eq!(sim.running_by_node(&web), [("node-1".to_owned(), 4)].into());
    assert_eq!(sim.running_by_node(&agent), [("node-1".to_owned(), 1)].into());
    assert!(!sim.state.tasks.contains_key(&attached.id));
    assert!(of_node(&sim).iter().all(|task| task.status.state == TaskState::Orphaned));
    sim.join(3);
    sim.run();
    let live = sim.state.tasks.values().filter(|task| task.is_live());
    assert!(live.flat_map(|task| &task.attachments).all(|given| !freed.contains(given)));
    assert_ne!(sim.state.nodes[&node_id(3)].skep.ingress_addr, skep0);
    sim.check_addresses();
}
