//! A node and the machine it runs on: what others do to it, and who gets at its sockets.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

/// The promise: what somebody removes is back by then.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_node_whose_rules_and_interfaces_are_taken_away_heals() -> Result<()> {
    let lab = Lab::up(2)?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "net"])?;
    let create = ["service", "create", "-d", "--name", "web", "--network", "net", "--publish", "8080:8000"];
    let command = ["host", "socat", "TCP4-LISTEN:8000,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"];
    lab.skep(&create.into_iter().chain(command).collect::<Vec<_>>())?;
    lab.until_running("web", 1)?;
    let answers = || {
        let seen: Vec<_> = (1..=2).map(|n| lab.read_tcp(CLIENT, &Lab::addr(n), 8080)).collect();
        Ok(seen.iter().all(|seen| seen.as_ref().is_ok_and(|seen| !seen.trim().is_empty())))
    };
    eventually(HEALED_WITHIN, "both nodes serve the port", answers)?;
    for harm in [
        "nft flush ruleset",
        "ip link del skep0",
        "ip link del skep_gwbridge",
        "sysctl -q net.ipv4.ip_forward=0",
    ] {
        for node in ["n1", "n2"] {
            lab.exec(node, &harm.split(' ').collect::<Vec<_>>())?;
        }
        eventually(HEALED_WITHIN, &format!("both nodes serve the port after `{harm}`"), || {
            let tables = lab.exec("n1", &["nft", "list", "tables"])?;
            let forwards = lab.exec("n1", &["sysctl", "-n", "net.ipv4.ip_forward"])?;
            Ok(tables.contains("inet skep_quota") && forwards.trim() == "1" && answers()?)
        })?;
    }
    lab.finish()
}

#[test]
fn a_firewall_in_the_way_is_told_by_info() -> Result<()> {
    let lab = Lab::up(1)?;
    let chain = "add table inet mine; add chain inet mine guard { type filter hook forward priority 0; policy drop; }";
    lab.exec("n1", &["nft", chain])?;
    eventually(HEALED_WITHIN, "info tells of it", || {
        let info = lab.exec("n1", &["skep", "info"])?;
        Ok(info.contains("WARNING: the nft chain inet mine guard drops what this host forwards"))
    })?;
    lab.exec("n1", &["nft", "delete", "table", "inet", "mine"])?;
    eventually(HEALED_WITHIN, "info tells nothing", || {
        Ok(!lab.exec("n1", &["skep", "info"])?.contains("WARNING"))
    })
}

/// The API is root on the host for whoever may write to its socket.
#[test]
fn sockets_and_ports_of_a_node() -> Result<()> {
    let lab = Lab::up(1)?;
    let socket = lab.dir().join("n1.sock");
    let metadata = fs::metadata(&socket)?;
    ensure!(metadata.file_type().is_socket(), "{} is no socket", socket.display());
    ensure!(metadata.permissions().mode() & 0o777 == 0o660, "mode {:o}", metadata.permissions().mode());

    let connect = format!("UNIX-CONNECT:{}", socket.display());
    let ask = ["socat", "-u", "OPEN:/dev/null", &connect];
    lab.exec("n1", &ask)?;
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let refused = lab.try_exec("n1", &[&nobody[..], &ask[..]].concat())?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && why.contains("Permission denied"), "another user: {why}");

    // Abstract sockets have no owner to check, and a container in the host's network namespace sees them. The
    // only one is the name that keeps a second daemon out, which takes nothing.
    let unix = lab.exec("n1", &["cat", "/proc/net/unix"])?;
    let abstract_ones: Vec<_> = unix
        .lines()
        .filter_map(|line| line.split_whitespace().last().filter(|name| name.starts_with('@')))
        .collect();
    ensure!(abstract_ones == ["@skepd"], "{abstract_ones:?}");
    let sent = lab.try_exec("n1", &["sh", "-c", "echo x | socat -u - ABSTRACT-SENDTO:skepd"])?;
    let why = String::from_utf8_lossy(&sent.stderr).into_owned();
    ensure!(why.contains("Broken pipe") || why.contains("Connection refused"), "it takes datagrams: {why}");

    // The managers' port for nodes, and the VTEP's on its one address: nothing else can be asked from outside.
    let listening = lab.exec("n1", &["ss", "-lnHtu"])?;
    let mut ports: Vec<_> = listening
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.nth(3)?))
        })
        .collect();
    ports.sort();
    let vtep = format!("udp {}:4789", Lab::addr(1));
    ensure!(ports.len() == 2 && ports[0].starts_with("tcp ") && ports[0].ends_with(":2377"), "{ports:?}");
    ensure!(ports[1] == vtep, "{ports:?}");
    lab.finish()
}
