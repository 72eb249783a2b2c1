//! Egress and what must not be reachable.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, CLIENT_ADDR, Lab, eventually};
use std::time::Duration;

fn run(lab: &Lab, network: &str, args: &[&str]) -> Result<std::process::Output> {
    lab.try_exec("n1", &[&["skep", "run", "--rm", "--network", network, "host"], args].concat())
}

#[test]
fn a_task_goes_out_as_its_node() -> Result<()> {
    let lab = Lab::up(2)?;
    let mut outside = lab
        .command(CLIENT, &["socat", "TCP4-LISTEN:7000,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"])?
        .spawn()?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "net"])?;
    let target = format!("TCP4:{CLIENT_ADDR}:7000,connect-timeout=3");
    for node in ["n1", "n2"] {
        eventually(Duration::from_secs(10), "the outside machine answers", || {
            let args = ["skep", "run", "--rm", "--network", "net", "host", "socat", "-u", &target, "-"];
            let seen = lab.exec(node, &args)?;
            ensure!(seen.trim() == Lab::addr(node[1..].parse()?), "a task of {node} is seen as {seen}");
            Ok(true)
        })?;
    }
    outside.kill()?;
    outside.wait()?;
    lab.finish()
}

#[test]
fn tasks_do_not_meet_on_the_gwbridge_and_networks_exchange_nothing() -> Result<()> {
    let lab = Lab::up(1)?;
    for network in ["red", "blue"] {
        lab.skep(&["network", "create", "-d", "overlay", "--attachable", network])?;
        lab.skep(&[
            "service",
            "create",
            "-d",
            "--name",
            &format!("{network}svc"),
            "--network",
            network,
            "host",
            "socat",
            "TCP4-LISTEN:8000,fork,reuseaddr",
            "SYSTEM:hostname -I",
        ])?;
        lab.until_running(&format!("{network}svc"), 1)?;
    }
    let ask = |network: &str, addr: &str| {
        run(&lab, network, &["socat", "-T", "2", "-u", &format!("TCP4:{addr}:8000,connect-timeout=2"), "-"])
    };
    let mut addresses = String::new();
    eventually(Duration::from_secs(10), "the red task answers on red", || {
        let output = ask("red", "redsvc")?;
        addresses = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success())
    })?;
    let (overlay, bridge): (Vec<&str>, Vec<&str>) =
        addresses.split_whitespace().partition(|a| a.starts_with("10."));
    ensure!(overlay.len() == 1 && bridge.len() == 1, "one overlay and one egress address: {addresses}");
    for (network, addr) in [("red", bridge[0]), ("blue", bridge[0]), ("blue", overlay[0])] {
        ensure!(!ask(network, addr)?.status.success(), "{addr} answers a container on {network}");
    }
    ensure!(ask("red", overlay[0])?.status.success(), "{} answers on its own network", overlay[0]);
    lab.finish()
}
