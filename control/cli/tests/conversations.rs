//! `skep` the program against a daemon with prepared answers: what is asked, what is printed, how it exits.
//! Expected outputs are what the stock CLI 28.2.2 printed for the same answers, with its name replaced.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod daemon;

use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::{Answer, Asked, Daemon, frame, not_found, ok};
use serde_json::{Value, json};

const N1: &str = "82ow5r7j1e4sc7u1axaidc76z";
const TOKEN: &str = "SWMTKN-1-y6yysah3i93bvgqid3ajguinhmwzkbjegca9rr3q6xwi7qpxzl-15v5pw9lgntwqnoycsxbnap6a";

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn node(id: &str, hostname: &str, leader: bool) -> Value {
    let mut node = json!({
        "ID": id, "Version": {"Index": 13},
        "Spec": {"Role": "worker", "Availability": "active", "Labels": {"old": ""}},
        "Description": {"Hostname": hostname, "Engine": {"EngineVersion": "28.2.2"}}, "Status": {"State": "ready"},
    });
    if leader {
        node["ManagerStatus"] =
            json!({"Reachability": "reachable", "Addr": "192.0.2.10:2377", "Leader": true});
    }
    node
}

/// A cluster of three nodes.
fn cluster(asked: &Asked) -> Answer {
    let nodes = [
        node("zunvc98w6lebbz9vk5qw0ypow", "node-3", false),
        node(N1, "node-1", true),
        node("8fw0987h98982dteln00m6cbr", "node-2", false),
    ];
    match asked.line.as_str() {
        "POST /swarm/init" => ok(json!(N1)),
        "GET /swarm" => ok(
            json!({"Version": {"Index": 11}, "Spec": {"Name": "default"}, "JoinTokens": {"Worker": TOKEN, "Manager": "M"}}),
        ),
        "GET /info" => ok(json!({"Swarm": {"NodeID": N1, "ControlAvailable": true}})),
        "GET /nodes" => ok(json!(nodes)),
        line if line.starts_with("GET /nodes/82ow") => ok(nodes[1].clone()),
        line if line.starts_with("GET /nodes/node-2") => ok(nodes[2].clone()),
        "DELETE /nodes/node-2?force=1" => ok(Value::Null),
        "DELETE /nodes/node-3" => {
            Answer::Json(400, json!({"message": "node zunv is not down and can't be removed"}))
        }
        line if line.starts_with("POST /nodes/8fw0") => ok(Value::Null),
        line if line.starts_with("POST /swarm/update") => ok(Value::Null),
        line => not_found(line),
    }
}

#[tokio::test]
async fn init_prints_the_command_that_joins() {
    let daemon = Daemon::start(cluster);
    let output = daemon.skep("swarm init --advertise-addr 192.0.2.10").await;
    let expected = format!(
        "Swarm initialized: current node ({N1}) is now a manager.\n\n\
         To add a worker to this swarm, run the following command:\n\n    \
         skep swarm join --token {TOKEN} 192.0.2.10:2377\n\n\
         To add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.\n"
    );
    assert_eq!((stdout(&output), stderr(&output)), (expected.as_str(), ""));
    assert_eq!(daemon.lines(), ["POST /swarm/init", &format!("GET /nodes/{N1}"), "GET /swarm"]);

    assert_eq!(stdout(&daemon.skep("swarm join-token -q worker").await), format!("{TOKEN}\n"));
    let rotated = daemon.skep("swarm join-token --rotate manager").await;
    assert!(stdout(&rotated).starts_with("Successfully rotated manager join token.\n\nTo add a manager"));
    let update = "POST /swarm/update?rotateManagerToken=true&rotateManagerUnlockKey=false&rotateWorkerToken=false&version=11";
    assert_eq!(daemon.body(update), json!({"Name": "default"}));
}

/// The bodies are those the stock CLI sends.
#[tokio::test]
async fn nodes_are_changed_and_removed_as_docker_does() {
    let daemon = Daemon::start(cluster);
    let update = "POST /nodes/8fw0987h98982dteln00m6cbr/update?version=13";
    let line = "node update --availability drain --label-add dc=east --label-add ssd --label-rm old node-2";
    assert_eq!(stdout(&daemon.skep(line).await), "node-2\n");
    let sent = json!({"Role": "worker", "Availability": "drain", "Labels": {"dc": "east", "ssd": ""}});
    assert_eq!(daemon.body(update), sent);
    let missing = daemon.skep("node update --label-rm nosuch node-2").await;
    assert_eq!(stderr(&missing), "key nosuch doesn't exist in node's labels\n");
    let demoted = daemon.skep("node demote node-2").await;
    assert_eq!(stdout(&demoted), "Node node-2 is already a worker.\n");

    let removed = daemon.skep("node rm -f node-2").await;
    assert_eq!((stdout(&removed), removed.status.code()), ("node-2\n", Some(0)));
    let refused = daemon.skep("node rm node-3").await;
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(stderr(&refused), "Error response from daemon: node zunv is not down and can't be removed\n");

    let updated = daemon.skep("swarm update --task-history-limit 3").await;
    assert_eq!(stdout(&updated), "Swarm updated.\n");
    let update = "POST /swarm/update?rotateManagerToken=false&rotateManagerUnlockKey=false&rotateWorkerToken=false&version=11";
    let sent = json!({"Name": "default", "Orchestration": {"TaskHistoryRetentionLimit": 3}});
    assert_eq!(daemon.body(update), sent);
}

#[tokio::test]
async fn nodes_are_listed_as_docker_lists_them() {
    let daemon = Daemon::start(cluster);
    let expected = "\
ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
82ow5r7j1e4sc7u1axaidc76z *   node-1     Ready     Active         Leader           28.2.2
8fw0987h98982dteln00m6cbr     node-2     Ready     Active                          28.2.2
zunvc98w6lebbz9vk5qw0ypow     node-3     Ready     Active                          28.2.2
";
    assert_eq!(stdout(&daemon.skep("node ls").await), expected);
    let templated = daemon.skep("node ls --format {{.Hostname}}={{.Status}}").await;
    assert_eq!(stdout(&templated), "node-1=Ready\nnode-2=Ready\nnode-3=Ready\n");
    let json = daemon.skep("node ls --format json").await;
    let first: Value = serde_json::from_str(stdout(&json).lines().next().unwrap()).unwrap();
    assert_eq!((&first["ID"], &first["Self"]), (&json!(N1), &json!(true)));
    let wrong = daemon.skep("node ls --format {{.Nope}}").await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        stderr(&wrong).contains("there is no field .Nope; there are .Availability"),
        "{}",
        stderr(&wrong)
    );
}

#[tokio::test]
async fn failures_say_what_to_do() {
    let daemon = Daemon::start(|_| {
        Answer::Json(
            503,
            json!({"message": "This node is not a swarm manager. Use \"docker swarm init\" or so."}),
        )
    });
    let refused = daemon.skep("node ls").await;
    assert_eq!(refused.status.code(), Some(1));
    let said =
        "Error response from daemon: This node is not a swarm manager. Use \"skep swarm init\" or so.\n";
    assert_eq!(stderr(&refused), said);

    let nowhere = daemon.skep("-H unix:///nowhere/skep.sock info").await;
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("Is skepd running?"), "{}", stderr(&nowhere));
    let tcp = daemon.skep("-H tcp://127.0.0.1:2375 info").await;
    assert!(stderr(&tcp).contains("only unix sockets"), "{}", stderr(&tcp));

    let later = daemon.skep("service rollback web").await;
    assert_eq!((later.status.code(), stdout(&later)), (Some(1), ""));
    assert!(stderr(&later).contains("`skep service rollback` isn't there yet"), "{}", stderr(&later));
    let flag = daemon.skep("service create --limit-cpu 1 host").await;
    assert_eq!(flag.status.code(), Some(125));
    assert!(stderr(&flag).starts_with("--limit-cpu isn't there yet"), "{}", stderr(&flag));
    assert_eq!(daemon.lines().len(), 1, "what is refused here is not asked there");
}

/// A service `web` of one task, whose first try fails.
fn web(polls: &AtomicUsize, asked: &Asked) -> Answer {
    let task = |id: &str, second: u8, desired: &str, state: &str, err: &str| {
        json!({
            "ID": id, "Slot": 1, "ServiceID": "sid", "NodeID": N1, "DesiredState": desired,
            "CreatedAt": format!("2026-11-21T04:36:0{second}Z"),
            "Spec": {"ContainerSpec": {"Image": "host:latest"}},
            "Status": {"State": state, "Err": err, "Timestamp": "2026-11-21T04:36:30Z"},
        })
    };
    let service = json!({
        "ID": "sid", "Version": {"Index": 7},
        "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 1}}, "UpdateConfig": {"Monitor": 1}, "Unknown": {"kept": [1]}},
    });
    match asked.line.split('?').next().unwrap() {
        "GET /networks/backend" => ok(json!({"Id": "netid", "Name": "backend"})),
        "POST /services/create" => Answer::Json(201, json!({"ID": "sid", "Warnings": ["careful"]})),
        "POST /services/sid/update" => ok(json!({"Warnings": null})),
        "GET /services/web" | "GET /services/sid" => ok(service),
        "GET /nodes" => ok(json!([node(N1, "node-1", true)])),
        "GET /tasks" => {
            let failed = task("t1xxxxxxxxxxxxxxx", 1, "shutdown", "failed", "task: non-zero exit (3)");
            ok(match polls.fetch_add(1, Ordering::Relaxed) {
                0 => json!([]),
                1 => json!([task("t1xxxxxxxxxxxxxxx", 1, "running", "starting", "")]),
                2 => {
                    json!([failed, task("t2", 2, "running", "pending", "no suitable node (1 node is down)")])
                }
                _ => json!([failed, task("t2", 2, "running", "running", "")]),
            })
        }
        _ if asked.line.starts_with("GET /nodes/82ow") => ok(node(N1, "node-1", true)),
        "GET /tasks/t2" => ok(task("t2", 2, "running", "running", "")),
        "GET /services/sid/logs" => {
            let line = |text: &str| {
                format!(
                    "com.docker.swarm.node.id={N1},com.docker.swarm.service.id=sid,com.docker.swarm.task.id=t2 {text}\n"
                )
            };
            Answer::Stream(
                [frame(1, line("hello 1").as_bytes()), frame(2, line("hello 2").as_bytes())].concat(),
            )
        }
        line => not_found(line),
    }
}

fn web_daemon() -> Daemon {
    let polls = AtomicUsize::new(0);
    Daemon::start(move |asked| web(&polls, asked))
}

#[tokio::test]
async fn create_waits_and_says_why_tasks_fail() {
    let daemon = web_daemon();
    let output = daemon.skep("service create --name web --network backend -p 80:8080 host sh -c true").await;
    let expected = "\
sid
overall progress: 0 out of 1 tasks
1/1: pending: no suitable node (1 node is down)
task t1xxxxxxxxxx failed: task: non-zero exit (3)
overall progress: 1 out of 1 tasks
verify: Service sid converged
";
    let printed: String = stdout(&output)
        .lines()
        .filter(|line| !line.starts_with("verify: Waiting"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!((printed.as_str(), stderr(&output)), (expected, "WARNING: careful\n"));
    let sent = daemon.body("POST /services/create");
    assert_eq!(sent["TaskTemplate"]["Networks"], json!([{"Target": "netid"}]));
    assert_eq!(sent["TaskTemplate"]["ContainerSpec"]["Args"], json!(["sh", "-c", "true"]));

    let daemon = web_daemon();
    assert_eq!(stdout(&daemon.skep("service create -d host").await), "sid\n");
    assert_eq!(daemon.lines(), ["POST /services/create"]);
    let missing = daemon.skep("service create -d --network nope host").await;
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(daemon.lines().len(), 2, "nothing is created");
}

#[tokio::test]
async fn scale_sends_the_spec_back_with_what_it_does_not_know() {
    let daemon = web_daemon();
    let output = daemon.skep("service scale -d web=5 nope=1").await;
    assert_eq!((stdout(&output), output.status.code()), ("web scaled to 5\n", Some(1)));
    assert_eq!(stderr(&output), "nope: Error response from daemon: GET /services/nope not found\n");
    let sent = daemon.body("POST /services/sid/update?version=7");
    assert_eq!(sent["Mode"], json!({"Replicated": {"Replicas": 5}}));
    assert_eq!(sent["Unknown"], json!({"kept": [1]}));
}

#[tokio::test]
async fn tasks_and_logs_carry_names() {
    let daemon = web_daemon();
    for _ in 0..2 {
        daemon.skep("service ps web").await;
    }
    let listed = daemon.skep("service ps --format {{.Name}}|{{.Node}}|{{.Error}} web nope").await;
    assert_eq!(
        stdout(&listed),
        "web.1|node-1|\"no suitable node (1 node is d…\"\nweb.1|node-1|\"task: non-zero exit (3)\"\n"
    );
    assert_eq!((listed.status.code(), stderr(&listed)), (Some(1), "no such service: nope\n"));
    let table = daemon.skep("service ps web").await;
    assert!(
        stdout(&table).contains("\nt1xxxxxxxxxx    \\_ web.1   host:latest   node-1    Shutdown"),
        "{}",
        stdout(&table)
    );

    let logs = daemon.skep("service logs web").await;
    assert_eq!(stdout(&logs), "web.1.t2@node-1    | hello 1\n");
    assert_eq!(stderr(&logs), "web.1.t2@node-1    | hello 2\n");
    let nobody = daemon.skep("service logs nope").await;
    assert_eq!((stderr(&nobody), nobody.status.code()), ("no such task or service: nope\n", Some(1)));
}

/// A container that writes, echoes its input and ends with 3.
fn container(asked: &Asked) -> Answer {
    match asked.line.split('?').next().unwrap() {
        "POST /containers/create" => Answer::Json(201, json!({"Id": "cid", "Warnings": []})),
        "POST /containers/cid/attach" => {
            Answer::Hijack([frame(1, b"PONG\n"), frame(2, b"warned\n")].concat())
        }
        "POST /containers/cid/wait" => ok(json!({"StatusCode": 3})),
        "POST /containers/cid/start" => Answer::Json(204, Value::Null),
        line => not_found(line),
    }
}

#[tokio::test]
async fn run_passes_on_output_input_and_exit_code() {
    let daemon = Daemon::start(container);
    let output = daemon
        .skep_with("run -i --rm --network backend --name c host redis-cli -h redis ping", b"typed\n")
        .await;
    assert_eq!((stdout(&output), stderr(&output)), ("PONG\ntyped\n", "warned\n"));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        daemon.lines(),
        [
            "POST /containers/create?name=c",
            "POST /containers/cid/attach?stderr=1&stdin=1&stdout=1&stream=1",
            "POST /containers/cid/wait?condition=removed",
            "POST /containers/cid/start",
        ]
    );
    assert_eq!(daemon.body("POST /containers/create")["Cmd"], json!(["redis-cli", "-h", "redis", "ping"]));
}

#[tokio::test]
async fn run_that_cannot_start_exits_as_dockers() {
    let daemon = Daemon::start(|asked| match asked.line.as_str() {
        "POST /containers/cid/start" => {
            Answer::Json(400, json!({"message": "exec: \"nope\": executable file not found in $PATH"}))
        }
        _ => container(asked),
    });
    assert_eq!(daemon.skep("run --rm --network backend host nope").await.status.code(), Some(127));
    let terminal = daemon.skep("run -it --rm --network backend host sh").await;
    assert_eq!(terminal.status.code(), Some(125));
    assert!(stderr(&terminal).starts_with("the input device is not a TTY"), "{}", stderr(&terminal));
}

#[tokio::test]
async fn a_namespace_is_attached_by_path() {
    let daemon = Daemon::start(|asked| match asked.line.as_str() {
        "POST /skep/attach" => {
            ok(json!({"Id": "aid", "Address": "10.0.1.7/24", "Name": "box", "Interface": "eth0"}))
        }
        _ => Answer::Json(204, Value::Null),
    });
    let pid = std::process::id();
    let output = daemon.skep(&format!("attach backend --pid {pid} --name box --ip 10.0.1.7")).await;
    assert_eq!(stdout(&output), "Attached to backend as box: 10.0.1.7/24 on eth0 (aid)\n");
    let netns = format!("/proc/{pid}/ns/net");
    assert_eq!(
        daemon.body("POST /skep/attach"),
        json!({"Network": "backend", "Netns": netns, "Name": "box", "Ip": "10.0.1.7"})
    );
    daemon.skep(&format!("detach backend --pid {pid}")).await;
    assert_eq!(daemon.body("POST /skep/detach"), json!({"Netns": netns, "Network": "backend"}));
    daemon.skep("detach aid").await;
    assert_eq!(daemon.body("POST /skep/detach"), json!({"Id": "aid"}));
}
