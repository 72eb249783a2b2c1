//! Published ports: what the outside machine says is in the clear up to the node it asks, and sealed from there on.

use crate::stage::{PORT, Stage};
use anyhow::Result;
use netns_tests::lab::{CLIENT, Lab, eventually};
use netns_tests::talk::{self, Murmur};
use std::net::SocketAddrV4;
use std::time::Duration;

#[test]
fn published_ports_show_nothing_between_nodes() -> Result<()> {
    let stage = Stage::new(3, &[], 4789)?;
    stage.create_network("net", &[])?;
    let publish = ["-p", &format!("8080:{PORT}"), "-p", &format!("8080:{PORT}/udp")];
    let options = [&["--constraint", "node.hostname==n3"], &publish[..]].concat();
    stage.echo_service("web", "net", &options)?;
    let outside = stage.lab.netns(CLIENT)?;
    let entry =
        |node: usize| -> Result<SocketAddrV4> { Ok(SocketAddrV4::new(Lab::addr(node).parse()?, 8080)) };
    for node in [1, 2] {
        let to = entry(node)?;
        eventually(Duration::from_secs(20), "the published port answers", || {
            talk::tcp(&outside, to, b"?").map(|()| true)
        })?;
        stage.by_outsiders(&format!("ingress by TCP, through n{node}"), |marker| {
            talk::tcp(&outside, to, &marker.payload(4 << 20))
        })?;
        stage.by_outsiders(&format!("ingress by UDP, through n{node}"), |marker| {
            talk::udp(&outside, to, &marker.payload(1000))?;
            talk::udp(&outside, to, &marker.payload(20_000))
        })?;
    }
    stage.by_outsiders("ingress while the entry's daemon is killed and started", |marker| {
        let tcp = Murmur::tcp(stage.lab.netns(CLIENT)?, entry(2)?, marker.payload(20_000));
        let udp = Murmur::udp(&outside, vec![entry(2)?], marker.payload(1000))?;
        udp.until_heard(10, Duration::from_secs(20))?;
        stage.lab.xtask(&["lab", "daemon", "n2", "kill"])?;
        std::thread::sleep(Duration::from_secs(1));
        stage.lab.xtask(&["lab", "daemon", "n2", "start"])?;
        udp.until_heard(10, Duration::from_secs(60))?;
        tcp.until_heard(3, Duration::from_secs(60))
    })?;
    stage.finish()
}
