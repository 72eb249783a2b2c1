//! Names inside containers.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT_ADDR, Lab, eventually};
use std::collections::BTreeSet;
use std::time::Duration;

/// `dig` on a network, from a container of its own.
fn dig(lab: &Lab, network: &str, question: &[&str]) -> Result<String> {
    let args =
        [&["run", "--rm", "--network", network, "host", "dig", "+tries=1", "+time=3"], question].concat();
    lab.skep(&args)
}

fn short(lab: &Lab, network: &str, name: &str) -> Result<BTreeSet<String>> {
    Ok(dig(lab, network, &["+short", name])?.lines().map(str::to_owned).collect())
}

fn setup() -> Result<Lab> {
    let lab = Lab::up(3)?;
    for network in ["front", "back"] {
        lab.skep(&["network", "create", "-d", "overlay", "--attachable", network])?;
    }
    let sleep = ["host", "sleep", "1000"];
    lab.skep(
        &[&["service", "create", "-d", "--name", "web", "--replicas", "3", "--network", "back"], &sleep[..]]
            .concat(),
    )?;
    lab.skep(
        &[
            &[
                "service",
                "create",
                "-d",
                "--name",
                "rr",
                "--replicas",
                "2",
                "--endpoint-mode",
                "dnsrr",
                "--network",
                "back",
            ],
            &sleep[..],
        ]
        .concat(),
    )?;
    lab.until_running("web", 3)?;
    lab.until_running("rr", 2)?;
    eventually(Duration::from_secs(10), "all tasks are in DNS", || {
        Ok(short(&lab, "back", "tasks.web")?.len() == 3 && short(&lab, "back", "rr")?.len() == 2)
    })?;
    Ok(lab)
}

#[test]
fn each_rule_for_names_holds_and_other_networks_know_nothing() -> Result<()> {
    let lab = setup()?;
    let inspect: serde_json::Value = serde_json::from_str(&lab.skep(&["service", "inspect", "web"])?)?;
    let vip = inspect[0]["Endpoint"]["VirtualIPs"][0]["Addr"].as_str().unwrap_or_default();
    let vip = vip.split('/').next().unwrap_or_default().to_owned();

    ensure!(short(&lab, "back", "web")? == BTreeSet::from([vip.clone()]), "service → VIP");
    ensure!(short(&lab, "back", "WEB.back")? == BTreeSet::from([vip.clone()]), "<name>.<network>, any case");
    let tasks = short(&lab, "back", "tasks.web")?;
    ensure!(tasks.len() == 3 && !tasks.contains(&vip), "tasks.<service> → addresses: {tasks:?}");
    let (id, _) = lab.running("web")?.into_iter().next().expect("a running task");
    let slots = lab.skep(&[
        "service",
        "ps",
        "--no-trunc",
        "--filter",
        "desired-state=running",
        "--format",
        "{{.ID}} {{.Name}}",
        "web",
    ])?;
    let name =
        slots.lines().find_map(|row| row.strip_prefix(&format!("{id} "))).unwrap_or_default().to_owned();
    let by_name = short(&lab, "back", &format!("{name}.{id}"))?;
    ensure!(by_name.len() == 1 && by_name.is_subset(&tasks), "task name {name}.{id} → {by_name:?}");

    let orders: BTreeSet<String> =
        (0..12).map(|_| dig(&lab, "back", &["+short", "rr"])).collect::<Result<_>>()?;
    ensure!(orders.len() == 2, "dnsrr comes in changing order: {orders:?}");

    let aaaa = dig(&lab, "back", &["web", "AAAA"])?;
    ensure!(aaaa.contains("status: NOERROR") && aaaa.contains("ANSWER: 0"), "no AAAA: {aaaa}");
    for name in ["web", "tasks.web", "rr", "web.back"] {
        ensure!(short(&lab, "front", name)?.is_empty(), "{name} is known on another network");
    }
    let outside = short(&lab, "back", "outside.example")?;
    ensure!(outside == BTreeSet::from([CLIENT_ADDR.to_owned()]), "an outside name: {outside:?}");
    Ok(())
}

#[test]
fn a_dead_first_resolver_does_not_stop_outside_names() -> Result<()> {
    let lab = setup()?;
    lab.xtask(&["lab", "dns", "1", "dead"])?;
    let outside = short(&lab, "back", "outside.example")?;
    ensure!(outside.contains(CLIENT_ADDR), "with the first resolver dead: {outside:?}");
    Ok(())
}
