//! Nodes come, step aside and go.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// The nodes of the service's tasks that are meant to run and do, sorted.
fn nodes_of(lab: &Lab, service: &str) -> Result<Vec<String>> {
    let format = "{{.Node}} {{.CurrentState}}";
    let wanted = ["service", "ps", "--filter", "desired-state=running", "--format", format, service];
    let rows = lab.skep(&wanted)?;
    let running = rows.lines().filter_map(|row| row.split_once(" Running"));
    let mut nodes: Vec<String> = running.map(|(node, _)| node.to_owned()).collect();
    nodes.sort();
    Ok(nodes)
}

fn until_on(lab: &Lab, service: &str, right: impl Fn(&[&str]) -> bool, what: &str) -> Result<()> {
    eventually(LIMIT, &format!("{service} runs {what}"), || {
        let nodes = nodes_of(lab, service)?;
        Ok(right(&nodes.iter().map(String::as_str).collect::<Vec<_>>()))
    })
}

#[test]
fn a_rotated_token_lets_nobody_in_and_a_host_that_returns_is_a_new_node() -> Result<()> {
    let lab = Lab::up(2)?;
    let token =
        || Ok::<_, anyhow::Error>(lab.skep(&["swarm", "join-token", "-q", "worker"])?.trim().to_owned());
    let manager = format!("{}:2377", Lab::addr(1));
    let old = token()?;
    lab.exec("n2", &["skep", "swarm", "leave"])?;
    lab.skep(&["swarm", "join-token", "--rotate", "worker"])?;
    let refused = lab.try_exec("n2", &["skep", "swarm", "join", "--token", &old, &manager])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("this one was rotated"), "{said}");
    lab.exec("n2", &["skep", "swarm", "join", "--token", &token()?, &manager])?;

    let ambiguous = lab.skep_refuses(&["node", "rm", "n2"])?;
    ensure!(ambiguous.contains("node n2 is ambiguous (2 matches found)"), "{ambiguous}");
    let nodes = lab.skep(&["node", "ls", "--format", "{{.ID}} {{.Status}}"])?;
    let former = nodes.lines().find_map(|row| row.strip_suffix(" Down")).context(nodes.clone())?;
    lab.skep(&["node", "rm", former])?;
    eventually(LIMIT, "the new n2 is ready", || {
        Ok(lab.skep(&["node", "ls", "--filter", "name=n2", "--format", "{{.Status}}"])?.trim() == "Ready")
    })?;
    let running = lab.skep_refuses(&["node", "rm", "n2"])?;
    ensure!(running.contains("is not down and can't be removed"), "{running}");
    let own = lab.skep_refuses(&["node", "rm", "-f", "n1"])?;
    ensure!(own.contains("is a cluster manager and is a member of the raft cluster"), "{own}");
    // The new n2 has another key than the one at its address that n1 still knew.
    lab.expect_drops(&["handshake_forged"]);
    lab.finish()
}

#[test]
fn tasks_follow_availability_labels_and_membership() -> Result<()> {
    let lab = Lab::up(3)?;
    let web = ["service", "create", "-d", "--name", "web", "--replicas", "3", "-p", "8080:8000"];
    let shunning = ["--constraint", "node.labels.out!=yes", "host"];
    let server = ["socat", "TCP4-LISTEN:8000,fork,reuseaddr", "EXEC:hostname"];
    lab.skep(&[&web[..], &shunning, &server].concat())?;
    let agent = ["service", "create", "-d", "--name", "agent", "--mode", "global", "host"];
    lab.skep(&[&agent[..], &server].concat())?;
    let everywhere = ["n1", "n2", "n3"];
    for service in ["web", "agent"] {
        until_on(&lab, service, |nodes| nodes == everywhere, "on every node")?;
    }

    lab.skep(&["node", "update", "--availability", "drain", "n1"])?;
    let left = |nodes: &[&str]| nodes.len() == 3 && !nodes.contains(&"n1");
    until_on(&lab, "web", left, "elsewhere than on the drained manager")?;
    until_on(&lab, "agent", |nodes| nodes == ["n2", "n3"], "on the others")?;
    ensure!(!lab.read_tcp(CLIENT, &Lab::addr(1), 8080)?.is_empty(), "the drained node's port is dead");

    lab.skep(&["node", "update", "--availability", "active", "n1"])?;
    until_on(&lab, "agent", |nodes| nodes == everywhere, "on every node again")?;
    ensure!(
        left(&nodes_of(&lab, "web")?.iter().map(String::as_str).collect::<Vec<_>>()),
        "web was moved back"
    );

    lab.skep(&["node", "update", "--label-add", "out=yes", "n3"])?;
    let shunned = |nodes: &[&str]| nodes.len() == 3 && !nodes.contains(&"n3");
    until_on(&lab, "web", shunned, "where its constraint is met")?;
    let history = lab.skep(&["service", "ps", "--no-trunc", "web"])?;
    ensure!(history.contains("assigned node no longer meets constraints"), "{history}");

    lab.skep(&["node", "rm", "-f", "n2"])?;
    until_on(&lab, "web", |nodes| nodes == ["n1", "n1", "n1"], "on the only node left for it")?;
    until_on(&lab, "agent", |nodes| nodes == ["n1", "n3"], "on the members")?;
    ensure!(!lab.read_tcp(CLIENT, &Lab::addr(3), 8080)?.is_empty(), "a member's port is dead");
    let removed = lab.exec("n2", &["skep", "info"])?;
    ensure!(removed.contains("this node was removed from the cluster"), "{removed}");
    // Until it heard of its removal, n2 went on asking peers that had.
    lab.expect_absence();
    lab.finish()
}
