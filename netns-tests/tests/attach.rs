//! Namespaces that are not Skep's own, and tasks on two networks.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT_ADDR, Lab, eventually};
use std::time::Duration;

const SECONDS_10: Duration = Duration::from_secs(10);

/// A service that says its name, on the networks.
fn named(lab: &Lab, name: &str, networks: &[&str]) -> Result<()> {
    let say = format!("SYSTEM:echo {name}");
    let networks = networks.iter().flat_map(|network| ["--network", network]);
    let command = ["host", "socat", "TCP4-LISTEN:8000,fork,reuseaddr", &say];
    let create = ["service", "create", "-d", "--name", name];
    lab.skep(&create.into_iter().chain(networks).chain(command).collect::<Vec<_>>())?;
    lab.until_running(name, 1)
}

fn networks(lab: &Lab) -> Result<()> {
    for network in ["red", "blue"] {
        lab.skep(&["network", "create", "-d", "overlay", "--attachable", network])?;
    }
    Ok(())
}

#[test]
fn a_namespace_comes_onto_networks_and_leaves_as_it_was() -> Result<()> {
    let lab = Lab::up(2)?;
    networks(&lab)?;
    named(&lab, "both", &["red", "blue"])?;
    let n2 = |args: &str| lab.exec("n2", &args.split(' ').collect::<Vec<_>>());
    let inside = |args: &str| n2(&format!("ip netns exec legacy {args}"));
    n2("ip netns add legacy")?;
    let state =
        || Ok::<_, anyhow::Error>(inside("ip -br link")? + &inside("ip route")? + &inside("ip rule")?);
    let before = state()?;
    for network in ["red", "blue"] {
        n2(&format!("skep attach {network} --netns /run/netns/legacy --name legacy"))?;
    }

    for network in ["red", "blue"] {
        let vip = inside(&format!("dig +short @127.0.0.11 both.{network}"))?;
        eventually(SECONDS_10, &format!("the namespace reaches the VIP of both on {network}"), || {
            let ask = format!("TCP4:{}:8000,connect-timeout=3", vip.trim());
            Ok(inside(&format!("socat -T 3 -u {ask} -"))?.trim() == "both")
        })?;
        let ping = ["skep", "run", "--rm", "--network", network, "host", "ping", "-c1", "-W2", "legacy"];
        lab.exec("n1", &ping)?;
    }
    let reaches_outside = || inside(&format!("ping -c1 -W2 {CLIENT_ADDR}"));
    reaches_outside()?;

    n2("skep detach red --netns /run/netns/legacy")?;
    reaches_outside()?;
    ensure!(inside("dig +short @127.0.0.11 both.red")?.is_empty(), "red is still known");
    ensure!(!inside("dig +short @127.0.0.11 both.blue")?.is_empty(), "blue is unknown");
    n2("skep detach blue --netns /run/netns/legacy")?;
    ensure!(state()? == before, "before: {before}after: {}", state()?);
    lab.finish()
}

#[test]
fn a_service_on_two_networks_is_reached_on_both_and_reaches_both() -> Result<()> {
    let lab = Lab::up(2)?;
    networks(&lab)?;
    named(&lab, "both", &["red", "blue"])?;
    named(&lab, "onlyred", &["red"])?;
    named(&lab, "onlyblue", &["blue"])?;
    let ask = |networks: &[&str], service: &str| {
        let target = format!("TCP4:{service}:8000,connect-timeout=2");
        let networks = networks.iter().flat_map(|network| ["--network", network]);
        let run = ["skep", "run", "--rm"].into_iter().chain(networks);
        let command = ["host", "socat", "-T", "3", "-u", &target, "-"];
        lab.try_exec("n1", &run.chain(command).collect::<Vec<_>>())
    };
    let cases: [(&[&str], &[&str], &[&str]); 3] = [
        (&["red"], &["both", "both.red", "onlyred"], &["onlyblue", "both.blue"]),
        (&["blue"], &["both", "both.blue", "onlyblue"], &["onlyred", "both.red"]),
        (&["red", "blue"], &["both", "both.red", "both.blue", "onlyred", "onlyblue"], &[]),
    ];
    for (networks, known, unknown) in cases {
        for service in known {
            let name = service.split('.').next().unwrap_or_default();
            eventually(SECONDS_10, &format!("{service} answers on {networks:?}"), || {
                let output = ask(networks, service)?;
                Ok(String::from_utf8_lossy(&output.stdout).trim() == name)
            })?;
        }
        for service in unknown {
            ensure!(!ask(networks, service)?.status.success(), "{service} is reached from {networks:?}");
        }
    }
    lab.finish()
}
