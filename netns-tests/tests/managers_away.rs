//! Without its manager a cluster goes on as it is: forwarding, names, published ports and tasks.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn met(lab: &Lab, node: usize, times: usize) -> Result<BTreeSet<String>> {
    (0..times).map(|_| lab.read_tcp(CLIENT, &Lab::addr(node), 8080)).collect()
}

fn on_workers(lab: &Lab) -> Result<BTreeSet<(String, String)>> {
    Ok(lab.running("web")?.into_iter().filter(|(_, node)| node != "n1").collect())
}

#[test]
fn workers_go_on_without_their_manager_also_one_that_restarts_meanwhile() -> Result<()> {
    let lab = Lab::up(3)?;
    lab.skep(&["network", "create", "--driver", "overlay", "net"])?;
    let create = ["service", "create", "-d", "--name", "web", "--mode", "global", "--network", "net"];
    let server = "socat TCP4-LISTEN:8000,fork,reuseaddr EXEC:hostname & \
                  socat TCP4-LISTEN:8001,fork,reuseaddr EXEC:'getent hosts web' & wait";
    lab.skep(&[&create[..], &["-p", "8080:8000", "-p", "8081:8001", "host", "sh", "-c", server]].concat())?;
    lab.until_running("web", 3)?;
    eventually(Duration::from_secs(10), "three tasks answer", || Ok(met(&lab, 2, 3)?.len() == 3))?;
    let before = on_workers(&lab)?;

    lab.xtask(&["lab", "daemon", "n1", "kill"])?;
    for node in [2, 3] {
        let is_out = || Ok(met(&lab, node, 4)?.len() == 2);
        eventually(Duration::from_secs(5), &format!("n1 is out of n{node}'s backends"), is_out)?;
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        for node in [2, 3] {
            // That they take turns strictly is for the engine's own tests to say.
            let met = met(&lab, node, 4)?;
            ensure!(
                met.len() == 2,
                "{:?} later both workers' tasks answer at n{node}, not {met:?}",
                began.elapsed()
            );
        }
    }

    lab.xtask(&["lab", "daemon", "n2", "kill"])?;
    lab.xtask(&["lab", "daemon", "n2", "start"])?;
    let refused = lab.try_exec("n2", &["skep", "node", "ls"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(said.contains("This node is not a swarm manager"), "{said}");
    eventually(Duration::from_secs(15), "n2 serves what it was told last", || {
        Ok(met(&lab, 2, 4)?.len() == 2)
    })?;
    let name = lab.read_tcp(CLIENT, &Lab::addr(2), 8081)?;
    ensure!(name.contains("web"), "a task finds its service by name: {name}");
    let info = lab.exec("n2", &["skep", "info"])?;
    ensure!(info.contains("no session with the manager at 192.168.77.1:2377"), "{info}");

    lab.xtask(&["lab", "daemon", "n1", "start"])?;
    eventually(Duration::from_secs(40), "n1 is back with a task of its own", || {
        Ok(lab.running("web")?.len() == 3 && met(&lab, 2, 3)?.len() == 3)
    })?;
    ensure!(
        on_workers(&lab)? == before,
        "no worker's task was replaced: {before:?}, {:?}",
        on_workers(&lab)?
    );
    lab.finish()
}

#[test]
fn a_manager_that_stood_still_for_half_a_minute_takes_nobody_for_dead() -> Result<()> {
    let lab = Lab::up(2)?;
    let create = ["service", "create", "-d", "--name", "web", "--mode", "global", "-p", "8080:8000", "host"];
    lab.skep(&[&create[..], &["socat", "TCP4-LISTEN:8000,fork,reuseaddr", "EXEC:hostname"]].concat())?;
    lab.until_running("web", 2)?;
    let before = lab.running("web")?;
    let skepd = lab.exec("n1", &["pgrep", "-o", "-x", "skepd"])?;
    lab.exec("n1", &["kill", "-STOP", skepd.trim()])?;
    std::thread::sleep(Duration::from_secs(25));
    lab.exec("n1", &["kill", "-CONT", skepd.trim()])?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let nodes = lab.skep(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])?;
        ensure!(!nodes.contains("Down"), "{:?} after it went on:\n{nodes}", began.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(lab.running("web")? == before, "no task was replaced");
    // What n1 was asked meanwhile it answers all at once, when nobody waits for it any more.
    lab.expect_absence();
    lab.finish()
}
