//! Every refusal's text, and what passes.

use super::{ApiError, CreateNetwork, MAX_REPLICAS, lookup, networks, services};
use crate::control_loop::sim::{Sim, on, publish, replicas, spec};
use crate::state::Change;
use serde_json::{Value, json};
use skep_model::network::NetworkSpec;
use skep_model::service::ServiceSpec;
use skep_model::{NetworkId, ServiceId};

/// What `docker service create` sends, with `extra` laid over it.
fn docker_spec(extra: Value) -> ServiceSpec {
    let mut body = json!({
        "Name": "web",
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "host", "Args": ["sleep", "1d"], "Init": false, "DNSConfig": {}},
            "Resources": {"Limits": {}, "Reservations": {}},
            "Placement": {},
            "ForceUpdate": 0,
        },
        "Mode": {"Replicated": {}},
        "EndpointSpec": {"Mode": "vip"},
    });
    merge(&mut body, extra);
    serde_json::from_value(body).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(name, value)| merge(into.entry(name).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn sim() -> Sim {
    let mut sim = Sim::new(1);
    sim.network("backend", None);
    sim.settle();
    sim
}

fn try_create(sim: &Sim, spec: ServiceSpec) -> Result<Vec<Change>, ApiError> {
    services::plan_create(&sim.state, &ServiceId::from("new"), spec, sim.now)
}

fn refusal(extra: Value) -> (u16, String) {
    let error = try_create(&sim(), docker_spec(extra)).unwrap_err();
    (error.http_status(), error.to_string())
}

fn container(extra: Value) -> Value {
    json!({"TaskTemplate": {"ContainerSpec": extra}})
}

fn invalid(text: &str) -> (u16, String) {
    (400, format!("rpc error: code = InvalidArgument desc = {text}"))
}

fn unsupported(what: &str, remedy: &str) -> (u16, String) {
    (501, format!("{what} is not supported in this release: {remedy}"))
}

#[test]
fn what_the_stock_cli_always_sends_passes() {
    let harmless = [
        json!({}),
        json!({"Mode": null, "Labels": null, "EndpointSpec": {}, "UpdateConfig": null}),
        json!({"TaskTemplate": {"Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]}}}),
        json!({"TaskTemplate": {"Runtime": "container", "RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 3}}}),
        json!({"UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
            "MaxFailureRatio": 0, "Order": "stop-first"}}),
        container(
            json!({"Isolation": "default", "StopGracePeriod": 10_000_000_000_i64, "Labels": {"a": "b"}}),
        ),
        container(
            json!({"Privileges": {"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false}}),
        ),
        container(json!({"Healthcheck": {"Test": ["NONE"]}, "Env": ["A=1", "B="]})),
        container(
            json!({"Hostname": "web-1.example", "Dir": "/srv", "User": "www-data:33", "StopSignal": "SIGINT",
            "StopGracePeriod": i64::MAX}),
        ),
        container(
            json!({"Hostname": null, "Dir": null, "User": null, "StopSignal": null, "StopGracePeriod": null}),
        ),
    ];
    for extra in harmless {
        try_create(&sim(), docker_spec(extra.clone())).unwrap_or_else(|error| panic!("{extra}: {error}"));
    }
}

#[test]
fn replicas_are_filled_in_and_networks_stored_by_id() {
    let mut sim = sim();
    let by_name =
        docker_spec(json!({"TaskTemplate": {"Networks": [{"Target": "backend", "Aliases": ["w"]}]}}));
    let changes = try_create(&sim, by_name).unwrap();
    sim.commit(changes);
    let stored = &sim.state.services[&ServiceId::from("new")];
    assert_eq!(stored.spec.mode.replicated.clone().unwrap().replicas, Some(1));
    assert_eq!(stored.spec.task_template.networks[0].target, "net-backend");
    assert_eq!(stored.endpoint.virtual_ips.len(), 1, "allocated in the same transaction");
    let old_place = docker_spec(json!({"Name": "old", "Networks": [{"Target": "net-backend"}]}));
    let changes = services::plan_create(&sim.state, &ServiceId::from("old"), old_place, sim.now).unwrap();
    sim.commit(changes);
    let stored = &sim.state.services[&ServiceId::from("old")].spec;
    assert_eq!((stored.networks.len(), stored.task_template.networks.len()), (0, 1));
}

#[test]
fn an_empty_name_gets_a_made_up_one() {
    let mut sim = sim();
    let changes = try_create(&sim, docker_spec(json!({"Name": ""}))).unwrap();
    sim.commit(changes);
    assert!(sim.state.services[&ServiceId::from("new")].spec.name.contains('_'));
}

#[test]
fn names_are_checked_and_taken_once() {
    assert_eq!(refusal(json!({"Name": "we b"})), invalid("name must be valid as a DNS name component"));
    assert_eq!(refusal(json!({"Name": "x".repeat(64)})), invalid("name must be 63 characters or fewer"));
    let mut sim = sim();
    sim.service("web", |_| {});
    let error = try_create(&sim, docker_spec(json!({"Name": "Web"}))).unwrap_err();
    assert_eq!(error.http_status(), 409);
    assert_eq!(
        error.to_string(),
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service Web already exists"
    );
}

#[test]
fn container_fields_that_cannot_be_are_refused() {
    let refused = [
        (json!({"StopSignal": "SIGNOPE"}), "invalid signal: SIGNOPE: "),
        (json!({"StopSignal": "0"}), "invalid signal: 0: "),
        (json!({"StopGracePeriod": -1}), "StopGracePeriod must not be negative"),
        (json!({"Hostname": "we_b"}), "invalid hostname: "),
        (json!({"Hostname": "x".repeat(65)}), "invalid hostname: "),
        (json!({"Hostname": "{{.Node.Hostname}}"}), "invalid hostname: "),
        (json!({"Dir": "srv"}), "invalid working directory: "),
        (json!({"Dir": "/\0"}), "invalid working directory: "),
        (json!({"User": ":33"}), "invalid user: "),
        (json!({"User": "a b"}), "invalid user: "),
        (json!({"User": "a:b:c"}), "invalid user: "),
    ];
    for (fields, why) in refused {
        let (status, text) = refusal(container(fields.clone()));
        let start = format!("rpc error: code = InvalidArgument desc = ContainerSpec: {why}");
        assert!(status == 400 && text.starts_with(&start), "{fields}: {text}");
    }
}

#[test]
fn what_this_release_cannot_do_is_refused_by_name() {
    let task = |field: &str, value: Value| json!({"TaskTemplate": {field: value}});
    let refused = [
        (
            container(json!({"Mounts": [{"Type": "tmpfs", "Target": "/t"}]})),
            "TaskTemplate.ContainerSpec.Mounts",
        ),
        (container(json!({"Secrets": [{"SecretID": "x"}]})), "TaskTemplate.ContainerSpec.Secrets"),
        (container(json!({"Configs": [{"ConfigID": "x"}]})), "TaskTemplate.ContainerSpec.Configs"),
        (container(json!({"Healthcheck": {"Test": ["CMD", "x"]}})), "TaskTemplate.ContainerSpec.Healthcheck"),
        (container(json!({"Init": true})), "TaskTemplate.ContainerSpec.Init"),
        (container(json!({"TTY": true})), "TaskTemplate.ContainerSpec.TTY"),
        (
            container(json!({"DNSConfig": {"Nameservers": ["1.1.1.1"]}})),
            "TaskTemplate.ContainerSpec.DNSConfig",
        ),
        (task("Resources", json!({"Limits": {"MemoryBytes": 1}})), "TaskTemplate.Resources"),
        (task("Placement", json!({"Zones": ["a"]})), "TaskTemplate.Placement.Zones"),
        (task("LogDriver", json!({"Name": "syslog"})), "TaskTemplate.LogDriver"),
        (task("Runtime", json!("plugin")), "TaskTemplate.Runtime"),
        (json!({"UpdateConfig": {"Order": "start-first"}}), "UpdateConfig"),
        (json!({"RollbackConfig": {"Parallelism": 2}}), "RollbackConfig"),
        (
            task("Networks", json!([{"Target": "backend", "DriverOpts": {"a": "b"}}])),
            "TaskTemplate.Networks.DriverOpts",
        ),
    ];
    for (extra, what) in refused {
        assert_eq!(refusal(extra), unsupported(what, "leave it out"));
    }
    let job = refusal(json!({"Mode": {"Replicated": null, "GlobalJob": {}}}));
    assert_eq!(job, unsupported("mode GlobalJob", "use replicated or global"));
}

#[test]
fn specs_that_cannot_be_are_refused() {
    let mismatch = "mismatched Runtime and *Spec fields";
    assert_eq!(refusal(json!({"TaskTemplate": {"ContainerSpec": null}})), (400, mismatch.to_owned()));
    let two_modes = json!({"Mode": {"Replicated": {"Replicas": 1}, "Global": {}}});
    assert_eq!(refusal(two_modes), (400, "must specify only one service mode".to_owned()));
    let many = json!({"Mode": {"Replicated": {"Replicas": MAX_REPLICAS + 1}}});
    let text =
        format!("a service can have {MAX_REPLICAS} replicas at most, {} were asked for", MAX_REPLICAS + 1);
    assert_eq!(refusal(many), invalid(&text));
    let policy = json!({"TaskTemplate": {"RestartPolicy": {"Delay": -1}}});
    assert_eq!(refusal(policy), invalid("TaskSpec: invalid RestartPolicy: Delay must not be negative"));
    let labels = json!({"Labels": {"a": "x".repeat(70_000)}});
    assert_eq!(refusal(labels), invalid("labels are longer than 65536 bytes altogether"));
}

#[test]
fn only_commands_of_the_host_run() {
    let image = |image: &str| refusal(container(json!({ "Image": image })));
    assert_eq!(image(""), invalid("ContainerSpec: image reference must be provided"));
    for other in ["nginx", "host:1", "host@sha256:ac7c"] {
        let text = format!(
            "image {other} is not available: this release runs commands of the host, as image \"host\""
        );
        assert_eq!(image(other), invalid(&text));
    }
    let no_command = refusal(container(json!({"Args": null})));
    assert_eq!(
        no_command,
        invalid("ContainerSpec: image \"host\" has no command of its own: say what to run")
    );
    let nul = refusal(container(json!({"Args": ["a\0b"]})));
    assert_eq!(nul, invalid("ContainerSpec: command and environment must not contain NUL bytes"));
    let env = refusal(container(json!({"Env": ["=x"]})));
    assert_eq!(env, invalid("invalid environment variable: =x"));
    let long = refusal(container(json!({"Env": [format!("A={}", "x".repeat(65_536))]})));
    assert_eq!(long, invalid("ContainerSpec: command and environment are longer than 65536 bytes"));
}

#[test]
fn networks_of_a_service_are_checked() {
    let networks = |targets: &[&str]| {
        let configs: Vec<Value> = targets.iter().map(|target| json!({ "Target": target })).collect();
        refusal(json!({"TaskTemplate": {"Networks": configs}}))
    };
    assert_eq!(networks(&["nosuch"]), (404, "network nosuch not found".to_owned()));
    let ingress = "Service cannot be explicitly attached to the ingress network \"ingress\"";
    assert_eq!(networks(&["ingress"]), invalid(ingress));
    assert_eq!(networks(&["backend", "net-backend"]), invalid("network backend is given twice"));
    assert_eq!(networks(&["host"]), unsupported("network host", "use an overlay network"));
    assert_eq!(networks(&["backend"; 33]), invalid("a service can be on 32 networks at most"));
    let alias = json!({"TaskTemplate": {"Networks": [{"Target": "backend", "Aliases": ["a b"]}]}});
    assert_eq!(refusal(alias), invalid("alias a b: name must be valid as a DNS name component"));
}

#[test]
fn ports_are_checked() {
    let ports = |ports: Value| refusal(json!({"EndpointSpec": {"Ports": ports}}));
    let twice = json!([{"TargetPort": 80, "PublishedPort": 80}, {"TargetPort": 81, "PublishedPort": 80}]);
    assert_eq!(ports(twice), invalid("EndpointSpec: duplicate published ports provided"));
    let dnsrr = json!({"EndpointSpec": {"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}});
    let text = "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
    assert_eq!(refusal(dnsrr), invalid(text));
    assert_eq!(
        ports(json!([{"PublishedPort": 80}])),
        invalid("EndpointSpec: TargetPort must be from 1 to 65535")
    );
    assert_eq!(
        ports(json!([{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}])),
        unsupported("port 8080: publish mode host", "use mode ingress")
    );
    assert_eq!(
        ports(json!([{"TargetPort": 80, "PublishedPort": 8080, "Protocol": "sctp"}])),
        unsupported("port 8080: protocol sctp", "use tcp or udp")
    );
    let many: Vec<Value> = (0..257).map(|_| json!({"TargetPort": 80})).collect();
    assert_eq!(ports(json!(many)), invalid("EndpointSpec: a service can publish 256 ports at most"));
    let own = "is already in use by Skep itself";
    assert_eq!(
        ports(json!([{"TargetPort": 80, "PublishedPort": 2377}])),
        invalid(&format!("port '2377' {own} (the managers' port of every node): publish another one"))
    );
    assert_eq!(
        ports(json!([{"TargetPort": 80, "PublishedPort": 4789, "Protocol": "udp"}])),
        invalid(&format!("port '4789' {own} (the data path port of every node): publish another one"))
    );
    let both = json!([{"TargetPort": 53, "PublishedPort": 53, "Protocol": "udp"},
        {"TargetPort": 53, "PublishedPort": 53}]);
    try_create(&sim(), docker_spec(json!({"EndpointSpec": {"Ports": both}}))).unwrap();
}

#[test]
fn a_published_port_belongs_to_one_service() {
    let mut sim = sim();
    sim.service("s2", |spec| spec.endpoint_spec = publish(8090, 80));
    let open = sim.service("open", |spec| spec.endpoint_spec = publish(0, 80));
    let text = |port: u16, name: &str, id: &str| {
        let spec =
            docker_spec(json!({"EndpointSpec": {"Ports": [{"TargetPort": 1, "PublishedPort": port}]}}));
        let error = try_create(&sim, spec).unwrap_err();
        let expected =
            format!("port '{port}' is already in use by service '{name}' ({id}) as an ingress port");
        assert_eq!((error.http_status(), error.to_string()), invalid(&expected));
    };
    text(8090, "s2", "service-s2");
    text(sim.state.services[&open].endpoint.ports[0].published_port, "open", "service-open");
}

#[test]
fn publishing_needs_the_ingress_network() {
    let mut sim = sim();
    sim.put(Change::DeleteNetwork(NetworkId::from("net-ingress")));
    let spec = docker_spec(json!({"EndpointSpec": {"Ports": [{"TargetPort": 80}]}}));
    assert_eq!(
        try_create(&sim, spec).unwrap_err().to_string(),
        "rpc error: code = FailedPrecondition desc = service needs ingress network, but no ingress network is present"
    );
}

#[test]
fn replicas_labels_and_placement_can_be_updated_and_nothing_else() {
    let mut sim = sim();
    let changes = try_create(&sim, docker_spec(json!({}))).unwrap();
    sim.commit(changes);
    sim.settle();
    let version = |sim: &Sim| sim.state.services[&ServiceId::from("new")].meta.version.index;
    let update = |sim: &Sim, version: u64, extra: Value| {
        services::plan_update(&sim.state, "web", version, docker_spec(extra), sim.now)
    };
    let said = |result: Result<Vec<Change>, ApiError>| {
        let error = result.unwrap_err();
        (error.http_status(), error.to_string())
    };
    let stale = said(update(&sim, 1, json!({"Mode": {"Replicated": {"Replicas": 3}}})));
    assert_eq!(stale, (500, "rpc error: code = Unknown desc = update out of sequence".to_owned()));
    let at = version(&sim);
    assert_eq!(
        said(update(&sim, at, json!({"Name": "b"}))),
        (501, "renaming services is not supported".to_owned())
    );
    let global = json!({"Mode": {"Replicated": null, "Global": {}}});
    assert_eq!(said(update(&sim, at, global)), (501, "service mode change is not allowed".to_owned()));
    let changed = [
        (json!({"TaskTemplate": {"ForceUpdate": 1}}), "TaskTemplate"),
        (container(json!({"Env": ["A=1"]})), "TaskTemplate"),
        (json!({"EndpointSpec": {"Ports": [{"TargetPort": 80}]}}), "EndpointSpec"),
    ];
    for (extra, field) in changed {
        let text = format!(
            "{field} cannot be changed in this release, only replicas, labels, placement and restart policy: \
             remove the service and create it again"
        );
        assert_eq!(said(update(&sim, at, extra)), (501, text));
    }
    let nosuch = services::plan_update(&sim.state, "nosuch", at, spec("nosuch"), sim.now);
    assert_eq!(said(nosuch), (404, "service nosuch not found".to_owned()));
    // Go leaves out what is empty when it sends a spec back.
    let mut scaled = docker_spec(json!({"Mode": {"Replicated": {"Replicas": 3}}}));
    scaled.task_template.extra.clear();
    let changes = services::plan_update(&sim.state, "web", at, scaled, sim.now).unwrap();
    sim.commit(changes);
    sim.run();
    let service = &sim.state.services[&ServiceId::from("new")];
    assert_eq!(sim.live(&service.id).len(), 3);
    assert_eq!(service.previous_spec.clone().unwrap().mode.replicas(), 1);
}

/// `docker service inspect`, edited in one place or none, and sent back.
#[test]
fn what_was_read_may_be_sent_back() {
    let mut sim = sim();
    let changes = try_create(&sim, docker_spec(json!({"Labels": {"a": "b"}}))).unwrap();
    sim.commit(changes);
    sim.run();
    let id = ServiceId::from("new");
    let tasks = sim.state.tasks.clone();
    for with_defaults in [false, true] {
        let mut read = serde_json::to_value(&sim.state.services[&id].spec).unwrap();
        if with_defaults {
            super::insert_defaults(&mut read);
        }
        read["Labels"] = json!({"a": "c"});
        read["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.hostname==n1"]});
        let spec = serde_json::from_value(read).unwrap();
        let version = sim.state.services[&id].meta.version.index;
        let changes = services::plan_update(&sim.state, "web", version, spec, sim.now).unwrap();
        sim.commit(changes);
        sim.run();
    }
    let service = &sim.state.services[&id].spec;
    assert_eq!(service.labels["a"], "c");
    assert!(sim.state.tasks.keys().eq(tasks.keys()), "a task whose node still fits stays");
    assert!(sim.state.tasks.values().all(|task| task.spec.placement == service.task_template.placement));
}

#[test]
fn placement_is_checked() {
    let place = |placement: Value| json!({"TaskTemplate": {"Placement": placement}});
    let constraint = |text: &str| refusal(place(json!({"Constraints": [text]})));
    assert_eq!(constraint("no de==x"), invalid("key 'no de' is invalid"));
    assert_eq!(constraint("node.id==;"), invalid("value ';' is invalid"));
    assert!(constraint("node.id=x").1.contains("constraint expected one operator from ==, !="));
    assert!(constraint("engine.labels.x==y").1.contains("says nothing of a node"));
    let many: Vec<String> = (0..65).map(|n| format!("node.id!={n}")).collect();
    assert!(refusal(place(json!({"Constraints": many}))).1.contains("64 constraints"));
    let long = format!("node.labels.x=={}", "y".repeat(20_000));
    assert_eq!(constraint(&long), invalid("Placement is longer than 16384 bytes"));
    let spread = |over: &str| place(json!({"Preferences": [{"Spread": {"SpreadDescriptor": over}}]}));
    assert!(refusal(spread("node.role")).1.contains("placement preference \"node.role\" cannot be followed"));
    assert!(refusal(place(json!({"Preferences": [{}]}))).1.contains("placement preference \"\""));
    let mut global = place(json!({"MaxReplicas": 1}));
    global["Mode"] = json!({"Replicated": null, "Global": {}});
    assert!(refusal(global).1.contains("replicas-max-per-node can only be used with replicated"));
    for fine in [
        place(json!({"Constraints": null, "Preferences": null, "MaxReplicas": null})),
        place(json!({"Constraints": ["node.role == manager"], "MaxReplicas": 2})),
        spread("Node.Labels.zone"),
    ] {
        try_create(&sim(), docker_spec(fine.clone())).unwrap_or_else(|error| panic!("{fine}: {error}"));
    }
}

#[test]
fn objects_are_found_by_id_name_or_the_start_of_an_id() {
    let mut sim = sim();
    sim.service("web", |_| {});
    sim.service("web2", |_| {});
    let found = |reference: &str| {
        lookup::service(&sim.state, reference).map(|s| s.spec.name.clone()).map_err(|e| e.to_string())
    };
    assert_eq!(found("service-web").as_deref(), Ok("web"), "a whole id before a prefix");
    assert_eq!(found("web2").as_deref(), Ok("web2"));
    assert_eq!(found("service-web2").as_deref(), Ok("web2"));
    assert_eq!(found("serv").unwrap_err(), "service serv is ambiguous (2 matches found): give the id of one");
    assert_eq!(found("").unwrap_err(), "service  not found");
    let said = |error: ApiError| error.to_string();
    assert_eq!(lookup::node(&sim.state, "n1").unwrap().id.as_str(), "node-1");
    assert_eq!(said(lookup::node(&sim.state, "nosuch").unwrap_err()), "node nosuch not found");
    assert_eq!(said(lookup::task(&sim.state, "nosuch").unwrap_err()), "task nosuch not found");
    assert_eq!(said(lookup::network(&sim.state, "nosuch").unwrap_err()), "network nosuch not found");
    assert_eq!(lookup::network(&sim.state, "net-b").unwrap().spec.name, "backend");
}

/// What `docker network create -d overlay` sends, with `extra` laid over it.
fn docker_network(extra: Value) -> CreateNetwork {
    let mut body = json!({
        "Name": "front", "Driver": "overlay", "Scope": "", "IPAM": {"Driver": "default", "Options": {}, "Config": []},
        "Internal": false, "Attachable": true, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null,
        "Options": {}, "Labels": {}, "CheckDuplicate": true,
    });
    merge(&mut body, extra);
    serde_json::from_value(body).unwrap()
}

fn try_network(sim: &Sim, extra: Value) -> Result<Vec<Change>, ApiError> {
    let spec = docker_network(extra).read()?;
    networks::plan_create(&sim.state, &NetworkId::from("new"), &spec, sim.now)
}

fn network_refusal(extra: Value) -> (u16, String) {
    let error = try_network(&sim(), extra).unwrap_err();
    (error.http_status(), error.to_string())
}

fn subnet(subnet: &str) -> Value {
    json!({"IPAM": {"Config": [{"Subnet": subnet}]}})
}

#[test]
fn a_network_is_allocated_as_it_is_created() {
    let mut sim = sim();
    let changes = try_network(&sim, json!({"IPAM": null, "Options": {"encrypted": "false"}})).unwrap();
    sim.commit(changes);
    let made = sim.state.networks[&NetworkId::from("new")].clone();
    let allocation = made.allocation.unwrap();
    assert_eq!((allocation.vni, allocation.subnet.to_string()), (4098, "10.0.2.0/24".to_owned()));
    assert!(made.spec.attachable && !made.spec.internal);
    let mut sim = self::sim();
    let own = json!({"IPAM": {"Config": [{"Subnet": "172.30.0.0/16", "Gateway": "172.30.0.9"}]}});
    let changes = try_network(&sim, own).unwrap();
    sim.commit(changes);
    let allocation = sim.state.networks[&NetworkId::from("new")].allocation.unwrap();
    assert_eq!(
        (allocation.subnet.to_string(), allocation.gateway.to_string()),
        ("172.30.0.0/16".into(), "172.30.0.9".into())
    );
}

/// Go's strconv.ParseBool, and a bare `--opt encrypted`.
#[test]
fn a_network_is_encrypted_unless_it_is_asked_not_to_be() {
    let is_plain = |extra: Value| docker_network(extra).read().unwrap().plain;
    assert!(!is_plain(json!({})) && !is_plain(json!({"Options": null})));
    for yes in ["", "1", "t", "T", "TRUE", "true", "True"] {
        assert!(!is_plain(json!({"Options": {"encrypted": yes}})), "{yes}");
    }
    for no in ["0", "f", "F", "FALSE", "false", "False"] {
        assert!(is_plain(json!({"Options": {"encrypted": no}})), "{no}");
    }
    for odd in ["no", "yes", "2", " false", "fALSE", "off"] {
        let (status, message) = network_refusal(json!({"Options": {"encrypted": odd}}));
        assert_eq!(status, 400);
        assert!(message.contains("network front was not created") && message.contains(odd), "{message}");
    }
}

/// What a store says nothing of, as those of earlier releases, is sealed as well.
#[test]
fn networks_that_say_nothing_are_sealed() {
    let spec = r#"{"name":"old","labels":{},"options":{},"subnet":null,"gateway":null,"attachable":false,"internal":false,"ingress":false}"#;
    assert!(!serde_json::from_str::<NetworkSpec>(spec).unwrap().plain);
}

#[test]
fn networks_that_cannot_be_are_refused() {
    let taken = |name: &str| (409, format!("network with name {name} already exists"));
    for name in ["backend", "ingress", "bridge", "host", "none", "docker_gwbridge"] {
        assert_eq!(network_refusal(json!({ "Name": name })), taken(name));
    }
    assert_eq!(
        network_refusal(json!({"Name": "a.b"})),
        invalid("name must be valid as a DNS name component")
    );
    let driver = |driver: &str| network_refusal(json!({ "Driver": driver }));
    assert_eq!(driver("nosuchdrv"), (404, "plugin \"nosuchdrv\" not found".to_owned()));
    assert_eq!(driver("bridge"), unsupported("network driver bridge", "use --driver overlay"));
    assert_eq!(driver(""), unsupported("network driver bridge", "use --driver overlay"));
    let scope = network_refusal(json!({"Scope": "local"}));
    assert_eq!(scope, invalid("an overlay network has scope swarm, not local"));
    let undecided = network_refusal(json!({"Options": {"encrypted": "no"}}));
    let text = "network front was not created: its option encrypted is \"no\", choose true or false \
                (without the option it is encrypted)";
    assert_eq!(undecided, invalid(text));
    let mtu = network_refusal(json!({"Options": {"com.docker.network.driver.mtu": "1400"}}));
    let text = "option com.docker.network.driver.mtu is not supported: the MTU follows from the underlay's, leave it out";
    assert_eq!(mtu, (501, text.to_owned()));
    let not_there = [
        (json!({"Options": {"x": "y"}}), "network option x"),
        (json!({"EnableIPv6": true}), "IPv6"),
        (json!({"EnableIPv4": false}), "a network without IPv4"),
        (json!({"Ingress": true}), "another ingress network"),
        (json!({"ConfigOnly": true}), "a configuration-only network"),
        (json!({"ConfigFrom": {"Network": "x"}}), "a network made from a configuration-only one"),
        (json!({"IPAM": {"Driver": "dhcp"}}), "IPAM driver dhcp"),
        (json!({"IPAM": {"Options": {"a": "b"}}}), "IPAM option a"),
        (json!({"IPAM": {"Config": [{"Zone": "a"}]}}), "IPAM Zone"),
        (
            json!({"IPAM": {"Config": [{"Subnet": "10.7.0.0/24"}, {"Subnet": "10.8.0.0/24"}]}}),
            "a network of several subnets",
        ),
        (subnet("fd00::/64"), "IPv6"),
        (json!({"Peers": ["x"]}), "Peers"),
    ];
    for (extra, what) in not_there {
        assert_eq!(network_refusal(extra), unsupported(what, "leave it out"));
    }
}

#[test]
fn subnets_are_checked() {
    let said = |text: &str, why: &str| {
        assert_eq!(network_refusal(subnet(text)), invalid(&format!("invalid subnet {text}: {why}")));
    };
    said("ten", "it should look like 10.1.2.0/24");
    said("10.7.0.1/24", "it should be 10.7.0.0/24");
    said("10.7.0.0/30", "its length must be from /8 to /29");
    said("0.0.0.0/0", "its length must be from /8 to /29");
    said("127.1.0.0/16", "addresses of 127.0.0.0/8 cannot be given to hosts");
    said("224.0.0.0/8", "addresses of 224.0.0.0/3 cannot be given to hosts");
    said("169.254.0.0/16", "addresses of 169.254.0.0/16 cannot be given to hosts");
    let overlap = |text: &str, with: &str| {
        let words = "Pool overlaps with other one on this address space";
        assert_eq!(network_refusal(subnet(text)), invalid(&format!("{words}: {text} overlaps {with}")));
    };
    overlap("10.0.1.128/25", "10.0.1.0/24 of network backend");
    overlap("10.0.0.0/8", "10.0.1.0/24 of network backend");
    overlap("192.168.0.0/16", "192.168.77.0/24 that node n1 routes");
    let gateway = |config: Value| network_refusal(json!({"IPAM": {"Config": [config]}}));
    let words = "invalid gateway 10.8.0.1";
    let alone = gateway(json!({"Gateway": "10.8.0.1"}));
    assert_eq!(alone, invalid(&format!("{words}: it needs a --subnet")));
    let outside = gateway(json!({"Subnet": "10.7.0.0/24", "Gateway": "10.8.0.1"}));
    assert_eq!(outside, invalid(&format!("{words}: it is no host address of 10.7.0.0/24")));
}

#[test]
fn an_exhausted_pool_is_said() {
    let mut sim = sim();
    sim.node(1, |node| node.skep.routed.push("10.0.0.0/8".parse().unwrap()));
    let error = try_network(&sim, json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rpc error: code = InvalidArgument desc = all predefined address pools have been fully subnetted; \
         the pool lies in 10.0.0.0/8 that node n1 routes: give `--subnet`"
    );
}

#[test]
fn networks_in_use_stay() {
    let mut sim = sim();
    let remove = |sim: &Sim, reference: &str| {
        networks::plan_remove(&sim.state, reference).map_err(|error| (error.http_status(), error.to_string()))
    };
    let in_use = |by: &str| {
        let text = "rpc error: code = FailedPrecondition desc = network net-backend is in use by";
        Err((400, format!("{text} {by}")))
    };
    assert_eq!(remove(&sim, "nosuch"), Err((404, "network nosuch not found".to_owned())));
    let ingress = remove(&sim, "ingress").unwrap_err();
    let text = "the ingress network cannot be removed in this release: published ports live on it";
    assert_eq!(ingress, (501, text.to_owned()));
    let web = sim.service("web", |spec| {
        spec.mode = replicas(1);
        spec.task_template.networks = on(&["backend"]);
    });
    sim.run();
    assert_eq!(remove(&sim, "backend"), in_use("service service-web"));
    let task = sim.live(&web)[0].id.clone();
    sim.put(Change::DeleteService(web));
    assert_eq!(remove(&sim, "backend"), in_use(&format!("task {task}")));
    sim.settle();
    assert_eq!(remove(&sim, "backend"), Ok(vec![Change::DeleteNetwork(NetworkId::from("net-backend"))]));
}
