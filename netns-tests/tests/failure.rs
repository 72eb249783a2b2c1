//! Killed tasks, killed nodes, killed daemons.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::time::{Duration, Instant};

fn web(lab: &Lab, replicas: &str) -> Result<()> {
    lab.skep(&[
        "service",
        "create",
        "-d",
        "--name",
        "web",
        "--replicas",
        replicas,
        "-p",
        "8080:8000",
        "host",
        "socat",
        "TCP4-LISTEN:8000,fork,reuseaddr",
        "SYSTEM:hostname",
    ])?;
    lab.until_running("web", replicas.parse()?)?;
    eventually(Duration::from_secs(10), "web answers", || {
        lab.read_tcp(CLIENT, &Lab::addr(1), 8080).map(|_| true)
    })
}

fn pid_of(lab: &Lab, task: &str) -> Result<String> {
    let inspect: serde_json::Value = serde_json::from_str(&lab.exec(
        "n1",
        &[
            "curl",
            "-sS",
            "--unix-socket",
            &lab.dir().join("n1.sock").to_string_lossy(),
            &format!("http://skep/tasks/{task}"),
        ],
    )?)?;
    Ok(inspect["Status"]["ContainerStatus"]["PID"].to_string())
}

#[test]
fn a_killed_task_is_noticed_shown_and_replaced_within_six_seconds() -> Result<()> {
    let lab = Lab::up(2)?;
    web(&lab, "1")?;
    let (task, node) = lab.running("web")?.remove(0);
    let killed = Instant::now();
    lab.exec(&node, &["kill", "-9", &pid_of(&lab, &task)?])?;
    eventually(Duration::from_secs(2), "the failure is shown", || {
        let ps = lab.skep(&["service", "ps", "--no-trunc", "web"])?;
        Ok(ps.contains("Failed") && ps.contains("task: non-zero exit (137)"))
    })?;
    eventually(Duration::from_secs(6), "a new task serves", || {
        Ok(lab.running("web")?.iter().any(|(id, _)| *id != task)
            && lab.read_tcp(CLIENT, &Lab::addr(2), 8080).is_ok())
    })?;
    let took = killed.elapsed();
    ensure!(took < Duration::from_secs(7), "served again after {took:?}");
    lab.finish()
}

#[test]
fn a_killed_nodes_tasks_serve_from_elsewhere_within_thirty_seconds() -> Result<()> {
    let lab = Lab::up(3)?;
    web(&lab, "3")?;
    lab.xtask(&["lab", "kill", "n3"])?;
    eventually(Duration::from_secs(30), "three tasks run on two nodes and all answer", || {
        let live = lab.running("web")?.into_iter().filter(|(_, node)| node != "n3").count();
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..3 {
            met.insert(lab.read_tcp(CLIENT, &Lab::addr(1), 8080)?);
        }
        Ok(live == 3 && met.len() == 3)
    })?;
    let nodes = lab.skep(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])?;
    ensure!(nodes.contains("n3 Down"), "{nodes}");
    lab.finish()
}

#[test]
fn after_kill_nine_of_a_daemon_and_a_new_start_nothing_stale_is_left() -> Result<()> {
    let lab = Lab::up(2)?;
    web(&lab, "2")?;
    lab.xtask(&["lab", "daemon", "n2", "kill"])?;
    eventually(Duration::from_secs(5), "its tasks ended with it", || {
        Ok(!lab.try_exec("n2", &["ip", "link", "show", "skep0"])?.status.success())
    })?;
    lab.xtask(&["lab", "daemon", "n2", "start"])?;
    eventually(Duration::from_secs(30), "n2 is back and two tasks answer", || {
        let nodes = lab.skep(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])?;
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..2 {
            met.insert(lab.read_tcp(CLIENT, &Lab::addr(2), 8080)?);
        }
        Ok(nodes.contains("n2 Ready") && met.len() == 2)
    })?;
    lab.skep(&["service", "rm", "web"])?;
    eventually(Duration::from_secs(20), "no veth, no rule of the service is left", || {
        let links = lab.exec("n2", &["ip", "-o", "link"])?;
        let rules = lab.exec("n2", &["nft", "list", "ruleset"])?;
        Ok(!links.contains("skv") && !rules.contains("8080"))
    })?;
    // The host's own port: free for anybody.
    let mut own =
        lab.command("n2", &["socat", "TCP4-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo own"])?.spawn()?;
    eventually(Duration::from_secs(5), "n2's own program answers on the port", || {
        Ok(lab.read_tcp(CLIENT, &Lab::addr(2), 8080)? == "own")
    })?;
    own.kill()?;
    own.wait()?;
    lab.finish()
}
