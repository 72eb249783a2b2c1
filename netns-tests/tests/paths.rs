//! Large and awkward traffic through VIPs and the mesh.

use anyhow::{Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::time::Duration;

const SECONDS_10: Duration = Duration::from_secs(10);
const FILE_MIB: u32 = 32;
/// The most a packet of a sealed network holds, a few fragments, many.
const DATAGRAMS: [u32; 3] = [1390, 4000, 30_000];
/// A packet outside that is too wide for the path to the task.
const TOO_WIDE: u32 = 1400;

fn shell(lab: &Lab, machine: &str, script: &str) -> Result<String> {
    Ok(lab.exec(machine, &["sh", "-c", script])?.split_whitespace().next().unwrap_or_default().to_owned())
}

/// In a container of the node, on the network `net`.
fn contained(lab: &Lab, machine: &str, script: &str) -> Result<String> {
    let said = lab.exec(machine, &["skep", "run", "--rm", "--network", "net", "host", "sh", "-c", script])?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A file both ways over TCP, and its beginnings in one datagram each.
fn exchange(file: &str, target: &str, ports: [u16; 3], run: impl Fn(&str) -> Result<String>) -> Result<()> {
    let [up, down, echo] = ports;
    let digest = run(&format!("sha256sum {file}"))?;
    let received = run(&format!("socat -b 65536 -t 20 - TCP4:{target}:{up},connect-timeout=3 < {file}"))?;
    ensure!(received == digest, "to {target}: sent {digest}, the task got {received}");
    let received = run(&format!("socat -b 65536 -u TCP4:{target}:{down},connect-timeout=3 - | sha256sum"))?;
    ensure!(received == digest, "from {target}: the task sent {digest}, received {received}");
    let comes_back = |len: u32| -> Result<bool> {
        let digest = run(&format!("head -c {len} {file} | sha256sum"))?;
        let ask = format!("socat -b 65536 -t 3 - UDP4:{target}:{echo},readbytes={len}");
        Ok(run(&format!("head -c {len} {file} | {ask} | sha256sum"))? == digest)
    };
    for len in DATAGRAMS {
        ensure!(comes_back(len)?, "a datagram of {len} bytes did not come back whole from {target}");
    }
    // The first is answered with the size that fits, by which the sender's kernel cuts the next.
    ensure!(comes_back(TOO_WIDE)? || comes_back(TOO_WIDE)?, "{TOO_WIDE} bytes never came back from {target}");
    Ok(())
}

#[test]
fn files_and_datagrams_arrive_whole_through_vip_and_mesh_by_every_node() -> Result<()> {
    let lab = Lab::up(2)?;
    let file = lab.program("file");
    lab.exec("n1", &["sh", "-c", &format!("head -c {FILE_MIB}M /dev/urandom > {file}")])?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "net"])?;
    let listen = "fork,reuseaddr";
    let serve = format!(
        "socat -b 65536 TCP4-LISTEN:8000,{listen} SYSTEM:sha256sum & socat -b 65536 UDP4-RECVFROM:9000,fork EXEC:cat & \
         exec socat -b 65536 -U TCP4-LISTEN:8001,{listen} OPEN:{file},rdonly"
    );
    let create =
        "service create -d --name files --network net -p 8080:8000 -p 8081:8001 -p 9090:9000/udp host sh -c";
    lab.skep(&create.split(' ').chain([serve.as_str()]).collect::<Vec<_>>())?;
    lab.until_running("files", 1)?;
    eventually(SECONDS_10, "the task listens", || {
        lab.exec(CLIENT, &["socat", "-u", "/dev/null", "TCP4:192.168.77.1:8081"]).map(|_| true)
    })?;
    // The only task is on one of the two nodes: one of each pair is local, the other goes by the underlay.
    for node in 1..=2 {
        let machine = format!("n{node}");
        exchange(&file, "files", [8000, 8001, 9000], |script| contained(&lab, &machine, script))?;
        exchange(&file, &Lab::addr(node), [8080, 8081, 9090], |script| shell(&lab, CLIENT, script))?;
    }
    lab.finish()
}

#[test]
fn a_task_reaches_itself_by_its_vip_and_by_its_published_port() -> Result<()> {
    let lab = Lab::up(2)?;
    lab.skep(&["network", "create", "-d", "overlay", "net"])?;
    let listen = |port: u16, then: &str| format!("socat TCP4-LISTEN:{port},fork,reuseaddr SYSTEM:'{then}'");
    let call = |target: &str| format!("socat -T 3 -u TCP4\\:{target} -");
    let serve = [
        listen(8000, "echo itself"),
        listen(8001, &call("self\\:8000")),
        listen(8002, &call("192.168.77.1\\:8080")),
        listen(8003, &call("192.168.77.2\\:8080")),
    ]
    .join(" & ");
    let create = "service create -d --name self --network net -p 8080:8000 -p 8081:8001 -p 8082:8002 -p 8083:8003 host sh -c";
    lab.skep(&create.split(' ').chain([serve.as_str()]).collect::<Vec<_>>())?;
    lab.until_running("self", 1)?;
    for (port, way) in [(8081, "its VIP"), (8082, "n1's published port"), (8083, "n2's published port")] {
        eventually(SECONDS_10, &format!("the task reaches itself by {way}"), || {
            let said = lab.read_tcp(CLIENT, &Lab::addr(1), port)?;
            ensure!(said == "itself", "by {way}: {said:?}");
            Ok(true)
        })?;
    }
    lab.finish()
}

#[test]
fn a_client_port_used_by_one_node_is_no_hindrance_by_another() -> Result<()> {
    let lab = Lab::up(3)?;
    let serve =
        "service create -d --name web -p 8080:8000 host socat TCP4-LISTEN:8000,fork,reuseaddr SYSTEM:true";
    lab.skep(&serve.split(' ').collect::<Vec<_>>())?;
    lab.until_running("web", 1)?;
    let connect = |node: usize, from: u16| {
        let to = format!("TCP4:{}:8080,connect-timeout=0.7,reuseaddr,bind=:{from}", Lab::addr(node));
        lab.exec(CLIENT, &["socat", "-u", &to, "-"])
    };
    eventually(SECONDS_10, "the task listens", || connect(1, 39_999).map(|_| true))?;
    // The task ends each connection first, so that TIME-WAIT is on its side.
    for from in 40_000..40_010 {
        for node in 1..=3 {
            connect(node, from)?;
        }
    }
    lab.finish()
}
