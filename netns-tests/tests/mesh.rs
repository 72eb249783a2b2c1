//! Published ports: whose address the task sees, local clients, UDP, clashes, other programs' ports.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, CLIENT_ADDR, Lab, eventually};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const SECONDS_10: Duration = Duration::from_secs(10);

/// A service whose only task says whom it sees, on TCP and UDP.
fn peers(lab: &Lab) -> Result<()> {
    lab.skep(&[
        "service",
        "create",
        "-d",
        "--name",
        "tcp",
        "-p",
        "8080:8000",
        "host",
        "socat",
        "TCP4-LISTEN:8000,fork,reuseaddr",
        "SYSTEM:echo $SOCAT_PEERADDR; echo seen $SOCAT_PEERADDR >&2",
    ])?;
    lab.skep(&[
        "service",
        "create",
        "-d",
        "--name",
        "udp",
        "-p",
        "9000:9000/udp",
        "host",
        "socat",
        "UDP4-RECVFROM:9000,fork",
        "SYSTEM:cat; echo seen $SOCAT_PEERADDR >&2",
    ])?;
    lab.until_running("tcp", 1)?;
    lab.until_running("udp", 1)?;
    eventually(SECONDS_10, "the TCP task listens", || {
        Ok(lab.read_tcp(CLIENT, &Lab::addr(1), 8080)? == CLIENT_ADDR)
    })
}

/// Sends one datagram from a socket that takes answers from nobody but the address it asked.
fn udp_echo(lab: &Lab, machine: &str, addr: &str, text: &str) -> Result<String> {
    let mut child = lab
        .command(machine, &["socat", "-T", "2", "-", &format!("UDP4:{addr}:9000")])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    drop(stdin);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_task_sees_the_outside_client_whichever_node_was_asked() -> Result<()> {
    let lab = Lab::up(3)?;
    peers(&lab)?;
    for node in 1..=3 {
        let seen = lab.read_tcp(CLIENT, &Lab::addr(node), 8080)?;
        ensure!(seen == CLIENT_ADDR, "asked through n{node}, the task saw {seen}");
        eventually(SECONDS_10, "the UDP echo answers from the asked address", || {
            Ok(udp_echo(&lab, CLIENT, &Lab::addr(node), "hello")? == "hello")
        })?;
    }
    for service in ["tcp", "udp"] {
        // The task writes it to its standard error, and so does `skep`.
        let output = lab.try_exec("n1", &["skep", "service", "logs", service])?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(log.contains(&format!("seen {CLIENT_ADDR}")), "the {service} log: {log}");
    }
    lab.finish()
}

#[test]
fn a_node_and_its_containers_reach_the_port_at_localhost_and_own_address() -> Result<()> {
    let lab = Lab::up(3)?;
    peers(&lab)?;
    for node in 1..=3 {
        let machine = format!("n{node}");
        for addr in ["127.0.0.1", "localhost", &Lab::addr(node), &Lab::addr(node % 3 + 1)] {
            eventually(SECONDS_10, &format!("{machine} asks {addr}"), || {
                lab.read_tcp(&machine, addr, 8080).map(|_| true)
            })?;
        }
        ensure!(udp_echo(&lab, &machine, "127.0.0.1", "local")? == "local", "UDP on {machine}'s loopback");
    }
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "net"])?;
    for node in 1..=3 {
        let ask = format!("TCP4:{}:8080,connect-timeout=3", Lab::addr(node));
        let args = ["skep", "run", "--rm", "--network", "net", "host", "socat", "-T", "3", "-u", &ask, "-"];
        lab.exec(&format!("n{node}"), &args)?;
    }
    lab.finish()
}

#[test]
fn a_published_port_has_one_service_and_is_free_again_after_it() -> Result<()> {
    let lab = Lab::up(1)?;
    lab.skep(&["service", "create", "-d", "--name", "one", "-p", "8080:80", "host", "sleep", "1000"])?;
    let said = lab.skep_refuses(&[
        "service", "create", "-d", "--name", "two", "-p", "8080:80", "host", "sleep", "1000",
    ])?;
    ensure!(said.contains("port '8080' is already in use by service 'one'"), "{said}");
    ensure!(said.contains("as an ingress port"), "{said}");
    lab.skep(&["service", "rm", "one"])?;
    lab.skep(&["service", "create", "-d", "--name", "two", "-p", "8080:80", "host", "sleep", "1000"])?;
    lab.finish()
}

#[test]
fn a_port_another_program_has_stays_with_it_and_the_others_serve() -> Result<()> {
    let lab = Lab::up(2)?;
    let mut other =
        lab.command("n2", &["socat", "TCP4-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo other"])?.spawn()?;
    eventually(SECONDS_10, "the other program listens", || {
        Ok(lab.read_tcp("n2", "127.0.0.1", 8080)? == "other")
    })?;
    lab.skep(&[
        "service",
        "create",
        "-d",
        "--name",
        "web",
        "-p",
        "8080:8000",
        "host",
        "socat",
        "TCP4-LISTEN:8000,fork,reuseaddr",
        "SYSTEM:echo task",
    ])?;
    lab.until_running("web", 1)?;
    eventually(SECONDS_10, "n1 serves", || Ok(lab.read_tcp(CLIENT, &Lab::addr(1), 8080)? == "task"))?;
    ensure!(lab.read_tcp(CLIENT, &Lab::addr(2), 8080)? == "other", "n2's program kept its port");
    eventually(SECONDS_10, "service ps names the program", || {
        let ps = lab.skep(&["service", "ps", "--no-trunc", "web"])?;
        Ok(ps.contains("8080/tcp") && ps.contains("n2") && ps.contains("socat"))
    })?;
    let log = std::fs::read_to_string(lab.dir().join("n2.log"))?;
    ensure!(log.contains("8080") && log.contains("socat"), "n2's log names it: {log}");
    other.kill()?;
    other.wait()?;
    lab.finish()
}
