//! Scaling down under load: a task leaves names and backends everywhere before it is told to stop.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Answers with its name. On SIGTERM it accepts what waits in its queue, which on a busy machine may take a moment, then
/// nothing new, and gives what it has accepted a second to end.
const SERVER: &str = "trap 'sleep 0.2; kill $listener; sleep 1; exit 0' TERM
socat TCP4-LISTEN:8000,fork,reuseaddr,backlog=128 EXEC:hostname & listener=$!
wait";

/// One short connection after the other to each of the targets in turn; prints those that failed, then how many
/// there were.
const LOAD: &str = "end=$(($(date +%s) + $1)); shift; n=0
while [ $(date +%s) -lt $end ]; do for target; do
    [ -n \"$(socat -T 3 -u TCP4:$target,connect-timeout=3 -)\" ] || echo failed $n $target
    n=$((n + 1))
done; done
echo requests $n";

const LOAD_SECONDS: u64 = 6;

#[test]
fn no_request_fails_while_a_service_is_scaled_down() -> Result<()> {
    let lab = Lab::up(3)?;
    lab.skep(&["network", "create", "--driver", "overlay", "--attachable", "net"])?;
    let create = ["service", "create", "-d", "--name", "web", "--replicas", "5", "--network", "net"];
    lab.skep(&[&create[..], &["-p", "8080:8000", "host", "sh", "-c", SERVER]].concat())?;
    for round in 1..=3 {
        until_all_listen(&lab)?;
        let load = start_load(&lab)?;
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        lab.skep(&["service", "scale", "-d", "web=2"])?;
        eventually(Duration::from_secs(20), "two tasks are left", || {
            let rows =
                lab.skep(&["service", "ps", "--format", "{{.DesiredState}} {{.CurrentState}}", "web"])?;
            Ok(rows.lines().filter(|row| row.contains("Running")).count() == 2)
        })?;
        println!("round {round}: scaled down in {:?}", began.elapsed());
        for (from, load) in load {
            let output = load.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(
                !said.contains("failed"),
                "round {round}, from {from}:\n{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let requests: u32 =
                said.trim().rsplit(' ').next().unwrap_or_default().parse().unwrap_or_default();
            println!("round {round}: {requests} requests from {from}");
            ensure!(requests > 20, "{from} asked {requests} times only: {said}");
        }
        lab.skep(&["service", "scale", "-d", "web=5"])?;
    }
    lab.finish()
}

#[test]
fn a_removed_services_tasks_wait_no_longer_than_nodes_need_to_answer() -> Result<()> {
    const DRAIN_LIMIT: Duration = Duration::from_secs(2);
    let lab = Lab::up(2)?;
    let server = "trap 'exit 0' TERM; sleep 1000 & wait";
    let create = ["service", "create", "-d", "--name", "web", "--replicas", "4", "host", "sh", "-c", server];
    // The best of a few, for a busy machine.
    let mut took = Vec::new();
    while took.len() < 3 && took.iter().min().is_none_or(|took| *took >= DRAIN_LIMIT) {
        lab.skep(&create)?;
        lab.until_running("web", 4)?;
        let began = Instant::now();
        lab.skep(&["service", "rm", "web"])?;
        eventually(Duration::from_secs(10), "no process of it is left", || {
            Ok(!lab.exec("n1", &["ps", "-e", "-o", "args"])?.contains(server)
                && !lab.exec("n2", &["ps", "-e", "-o", "args"])?.contains(server))
        })?;
        took.push(began.elapsed());
    }
    println!("removed in {took:?}");
    ensure!(
        took.iter().any(|took| *took < DRAIN_LIMIT),
        "the drain took as long as if a node did not answer: {took:?}"
    );
    lab.finish()
}

fn until_all_listen(lab: &Lab) -> Result<()> {
    lab.until_running("web", 5)?;
    // Running means started: five different answers say that all of them listen.
    eventually(Duration::from_secs(10), "five tasks answer on every node", || {
        for node in 1..=3 {
            let mut met = std::collections::BTreeSet::new();
            for _ in 0..5 {
                met.insert(lab.read_tcp(CLIENT, &Lab::addr(node), 8080)?);
            }
            if met.len() < 5 {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// From the outside machine through every node, from each node through itself, and from a container on each node
/// through the VIP.
fn start_load(lab: &Lab) -> Result<Vec<(String, Child)>> {
    let seconds = LOAD_SECONDS.to_string();
    let load = |targets: &[String]| -> Vec<String> {
        let words = ["sh", "-c", LOAD, "load", &seconds].into_iter().map(str::to_owned);
        words.chain(targets.iter().cloned()).collect()
    };
    let mesh: Vec<String> = (1..=3).map(|node| format!("{}:8080", Lab::addr(node))).collect();
    let mut started = vec![("the outside machine".to_owned(), start(lab, CLIENT, &load(&mesh))?)];
    for node in 1..=3 {
        let name = format!("n{node}");
        started.push((name.clone(), start(lab, &name, &load(&mesh[node - 1..node]))?));
        let run = ["skep", "run", "--rm", "--network", "net", "host"].into_iter().map(str::to_owned);
        let container: Vec<String> = run.chain(load(&["web:8000".to_owned()])).collect();
        started.push((format!("a container on {name}"), start(lab, &name, &container)?));
    }
    Ok(started)
}

fn start(lab: &Lab, machine: &str, words: &[String]) -> Result<Child> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = lab.command(machine, &words)?;
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}
