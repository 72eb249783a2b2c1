//! Names inside containers.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT_ADDR, Lab, eventually, xtask};
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
    lab.finish()
}

#[test]
fn a_dead_first_resolver_does_not_stop_outside_names() -> Result<()> {
    let lab = setup()?;
    lab.xtask(&["lab", "dns", "1", "dead"])?;
    let outside = short(&lab, "back", "outside.example")?;
    ensure!(outside.contains(CLIENT_ADDR), "with the first resolver dead: {outside:?}");
    lab.finish()
}

/// The questions both of the host's resolvers have seen.
fn asked_outside(lab: &Lab) -> Result<Vec<String>> {
    let mut questions = Vec::new();
    for log in ["dns1.log", "dns2.log"] {
        let text = std::fs::read_to_string(lab.dir().join(log))?;
        questions.extend(text.lines().filter(|line| line.starts_with("question")).map(str::to_owned));
    }
    Ok(questions)
}

#[test]
fn aliases_ids_ports_and_addresses_have_names_over_udp_and_tcp() -> Result<()> {
    let lab = Lab::up(2)?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "back"])?;
    let network = ["--network", "name=back,alias=www", "--publish", "8081:8080"];
    let many = [&["service", "create", "-d", "--name", "web", "--replicas", "40"], &network[..]].concat();
    lab.skep(&[&many[..], &["host", "sleep", "1000"]].concat())?;
    lab.until_running("web", 40)?;
    eventually(Duration::from_secs(10), "all tasks are in DNS", || {
        Ok(dig(&lab, "back", &["+short", "+tcp", "tasks.web"])?.lines().count() == 40)
    })?;

    let vip = short(&lab, "back", "web")?;
    ensure!(vip.len() == 1 && short(&lab, "back", "WWW.back")? == vip, "an alias: {vip:?}");
    let (id, _) = lab.running("web")?.into_iter().next().expect("a running task");
    let address = short(&lab, "back", &id)?;
    ensure!(address.len() == 1 && address != vip, "a task's id: {address:?}");
    let address = address.first().map(String::as_str).unwrap_or_default();

    let cut = dig(&lab, "back", &["+noedns", "+ignore", "tasks.web"])?;
    ensure!(cut.contains(" tc ") && !cut.contains("ANSWER: 40"), "512 bytes: {cut}");
    let whole = dig(&lab, "back", &["+bufsize=1232", "tasks.web"])?;
    ensure!(whole.contains("ANSWER: 40") && whole.contains("EDNS: version: 0"), "EDNS: {whole}");
    let retried = dig(&lab, "back", &["+noedns", "tasks.www"])?;
    ensure!(retried.contains("ANSWER: 40") && retried.contains("(TCP)"), "asked again over TCP: {retried}");

    let ptr = dig(&lab, "back", &["+short", "-x", address])?;
    ensure!(ptr.starts_with("web.") && ptr.trim().ends_with(&format!(".{id}.back.")), "{address}: {ptr}");
    let nobody = dig(&lab, "back", &["-x", "10.0.1.250"])?;
    ensure!(nobody.contains("NXDOMAIN"), "nobody's address: {nobody}");
    let srv = dig(&lab, "back", &["+tcp", "_8080._tcp.web", "SRV"])?;
    ensure!(srv.contains("ANSWER: 40") && srv.contains(&format!("0 1 8080 {}", ptr.trim())), "SRV: {srv}");

    ensure!(dig(&lab, "back", &["version.bind", "CH", "TXT"])?.contains("REFUSED"), "CHAOS");
    ensure!(
        dig(&lab, "back", &["+edns=1", "+noednsnegotiation", "web"])?.contains("BADVERS"),
        "EDNS version 1"
    );
    let leaked = asked_outside(&lab)?;
    ensure!(leaked.is_empty(), "nothing of this is anybody else's business: {leaked:?}");
    let refused: BTreeSet<_> = lab.drops(1)?.into_iter().filter(|(why, _)| why.starts_with("dns_")).collect();
    let expected = [("dns_bad_edns_version".to_owned(), 1), ("dns_refused_class".to_owned(), 1)];
    ensure!(refused == BTreeSet::from(expected), "counted: {refused:?}");
    lab.expect_drops(&["dns_bad_edns_version", "dns_refused_class"]);
    lab.finish()
}

#[test]
fn from_an_internal_network_no_question_leaves_but_a_server_inside_is_reached() -> Result<()> {
    let lab = Lab::up(2)?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "--internal", "closed"])?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "open"])?;
    // The lab's own DNS server, as a task.
    let program = lab.program("dns-server");
    std::fs::copy(xtask()?, &program)?;
    let line = format!("exec {program} lab dns-server $(hostname -i) /tmp/dns.log /tmp/dns.dead");
    let service =
        ["service", "create", "-d", "--name", "inner", "--network", "closed", "host", "sh", "-c", &line];
    lab.skep(&service)?;
    lab.until_running("inner", 1)?;
    eventually(Duration::from_secs(10), "the server inside has a name", || {
        Ok(short(&lab, "closed", "tasks.inner")?.len() == 1)
    })?;

    let outside = dig(&lab, "closed", &["outside.example"])?;
    ensure!(outside.contains("SERVFAIL"), "from inside: {outside}");
    ensure!(dig(&lab, "closed", &["+tcp", "outside.example"])?.contains("SERVFAIL"), "over TCP");
    let leaked = asked_outside(&lab)?;
    ensure!(leaked.is_empty(), "{leaked:?}");

    let address = short(&lab, "closed", "tasks.inner")?.pop_first().unwrap_or_default();
    eventually(Duration::from_secs(10), "the server inside answers", || {
        let inside = dig(&lab, "closed", &["+short", &format!("@{address}"), "outside.example"])?;
        Ok(inside.trim() == CLIENT_ADDR)
    })?;
    let both = ["run", "--rm", "--network", "closed", "--network", "open", "host", "dig", "+short"];
    ensure!(lab.skep(&[&both[..], &["outside.example"]].concat())?.trim() == CLIENT_ADDR, "with a way out");
    ensure!(lab.skep(&[&both[..], &["tasks.inner"]].concat())?.trim() == address, "and the name inside");
    lab.expect_drops(&["dns_no_upstreams"]);
    lab.finish()
}
