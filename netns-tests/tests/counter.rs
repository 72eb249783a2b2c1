//! The visitor counter: several tasks, one redis found by name, one published port on every node.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, CLIENT_ADDR, Lab};
use std::collections::BTreeSet;

#[test]
fn every_node_counts_in_one_redis_and_every_task_answers() -> Result<()> {
    let lab = counter()?;
    let mut counts = Vec::new();
    let mut tasks = BTreeSet::new();
    for _ in 0..3 {
        for node in 1..=3 {
            let page = lab.exec(
                CLIENT,
                &["curl", "-sS", "--max-time", "5", &format!("http://{}:4568/", Lab::addr(node))],
            )?;
            // visitor 7, counted by 84c42ca15432, you are 192.168.77.200
            let words: Vec<&str> = page.split_whitespace().collect();
            ensure!(words.len() == 8, "{page}");
            counts.push(words[1].trim_end_matches(',').parse::<u32>()?);
            tasks.insert(words[4].to_owned());
            ensure!(page.contains(CLIENT_ADDR), "the client's own address is in: {page}");
        }
    }
    let first = counts[0];
    ensure!(counts == Vec::from_iter(first..first + 9), "counts go up by one: {counts:?}");
    ensure!(tasks.len() == 3, "all three tasks answer: {tasks:?}");
    lab.finish()
}

#[test]
fn redis_answers_on_its_network_and_not_outside() -> Result<()> {
    let lab = counter()?;
    let pong =
        lab.skep(&["run", "--rm", "--network", "backend", "host", "redis-cli", "-h", "redis", "ping"])?;
    ensure!(pong.trim() == "PONG", "redis says {pong}");
    for node in 1..=3 {
        let target = format!("{}:6379", Lab::addr(node));
        let outside = lab.try_exec(CLIENT, &["curl", "-sS", "--max-time", "2", &target])?;
        ensure!(!outside.status.success(), "redis is reachable from outside at {target}");
    }
    lab.finish()
}

fn counter() -> Result<Lab> {
    let lab = Lab::up(3)?;
    lab.skep(&["network", "create", "--driver", "overlay", "--attachable", "backend"])?;
    lab.skep(&[
        "service",
        "create",
        "-d",
        "--name",
        "redis",
        "--network",
        "backend",
        "host",
        "redis-server",
        "--save",
        "",
        "--protected-mode",
        "no",
    ])?;
    lab.skep(&[
        "service",
        "create",
        "-d",
        "--name",
        "counter",
        "--network",
        "backend",
        "--replicas",
        "3",
        "--env",
        "REDIS_HOST=redis",
        "--publish",
        "4568:4567",
        "host",
        &lab.program("visitor-counter"),
    ])?;
    lab.until_running("redis", 1)?;
    lab.until_running("counter", 3)?;
    // Running means started: the first answer says that counter and redis listen.
    netns_tests::lab::eventually(std::time::Duration::from_secs(10), "the counter answers", || {
        for node in 1..=3 {
            lab.exec(
                CLIENT,
                &["curl", "-sS", "--fail", "--max-time", "5", &format!("http://{}:4568/", Lab::addr(node))],
            )?;
        }
        Ok(true)
    })?;
    Ok(lab)
}
