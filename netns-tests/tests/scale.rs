//! Replicas, global services, and who is asked.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::collections::BTreeSet;
use std::time::Duration;

const WHO: &str = "TCP4-LISTEN:8000,fork,reuseaddr";

fn who(lab: &Lab, name: &str, options: &[&str]) -> Result<()> {
    let mut args = vec!["service", "create", "-d", "--name", name];
    args.extend(options);
    args.extend(["host", "socat", WHO, "SYSTEM:hostname"]);
    lab.skep(&args).map(|_| ())
}

fn answers(lab: &Lab, node: usize, port: u16, count: usize) -> Result<BTreeSet<String>> {
    (0..count).map(|_| lab.read_tcp(CLIENT, &Lab::addr(node), port)).collect()
}

#[test]
fn the_next_five_connections_after_scaling_to_five_meet_five_tasks() -> Result<()> {
    let lab = Lab::up(3)?;
    who(&lab, "web", &["--replicas", "3", "-p", "8080:8000"])?;
    lab.until_running("web", 3)?;
    eventually(Duration::from_secs(10), "three tasks listen", || Ok(answers(&lab, 2, 8080, 3)?.len() == 3))?;
    let said = lab.skep(&["service", "scale", "web=5"])?;
    ensure!(said.contains("web scaled to 5"), "{said}");
    eventually(Duration::from_secs(10), "five tasks listen", || {
        answers(&lab, 1, 8080, 5)?;
        Ok(true)
    })?;
    let met = answers(&lab, 2, 8080, 5)?;
    ensure!(met.len() == 5, "five connections met {met:?}");
    lab.finish()
}

#[test]
fn four_tasks_on_three_nodes_all_answer_and_scaling_down_leaves_the_rest() -> Result<()> {
    let lab = Lab::up(3)?;
    who(&lab, "web", &["--replicas", "4", "-p", "8080:8000"])?;
    lab.until_running("web", 4)?;
    let nodes: BTreeSet<_> = lab.running("web")?.into_iter().map(|(_, node)| node).collect();
    ensure!(nodes.len() == 3, "spread over {nodes:?}");
    for node in 1..=3 {
        eventually(Duration::from_secs(10), "all four answer", || {
            Ok(answers(&lab, node, 8080, 4)?.len() == 4)
        })?;
    }
    lab.skep(&["service", "scale", "web=1"])?;
    for node in 1..=3 {
        eventually(Duration::from_secs(15), "one answers", || Ok(answers(&lab, node, 8080, 3)?.len() == 1))?;
    }
    lab.finish()
}

#[test]
fn a_global_service_has_a_task_on_each_node_also_on_one_that_joins() -> Result<()> {
    let lab = Lab::up(2)?;
    who(&lab, "agent", &["--mode", "global", "-p", "8081:8000"])?;
    lab.until_running("agent", 2)?;
    lab.xtask(&["lab", "add"])?;
    lab.until_running("agent", 3)?;
    let nodes: BTreeSet<_> = lab.running("agent")?.into_iter().map(|(_, node)| node).collect();
    ensure!(nodes.len() == 3, "one each: {nodes:?}");
    eventually(Duration::from_secs(10), "the new node's port answers for all", || {
        Ok(answers(&lab, 3, 8081, 3)?.len() == 3)
    })?;
    lab.finish()
}
