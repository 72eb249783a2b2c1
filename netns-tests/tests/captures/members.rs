//! Nodes and networks that come and go while somebody talks.

use crate::stage::{AGAIN, Container, Stage};
use anyhow::{Context, Result, ensure};
use netns_tests::lab::eventually;
use netns_tests::talk::{self, Murmur};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const NET: &str = "net";
const WORDS: usize = 1000;
const SUBNET: &str = "10.99.0.0/24";
/// Where the toggled network's containers are, sealed or not.
const NEAR: &str = "10.99.0.20";
const FAR: &str = "10.99.0.21";

#[test]
fn whoever_comes_or_goes_nothing_of_a_sealed_network_shows() -> Result<()> {
    let stage = Stage::new(3, &[], 4789)?;
    stage.create_network(NET, &["--subnet", "10.98.0.0/24"])?;
    let here = Container::new(&stage.lab, "n1", NET, "here")?;
    join(&stage, &here)?;
    drain(&stage, &here)?;
    leave_one_of_two(&stage, &here)?;
    toggle(&stage)?;
    remove(&stage, &here)?;
    // Of nodes that were removed and don't know it yet; or that came a moment ago, when nobody knows how wide the path to
    // them is, or that they have another key now; and of words for nobody.
    stage.lab.expect_absence();
    stage.lab.expect_drops(&["arp_unknown_address", "handshake_forged"]);
    stage.finish()
}

/// Words for every address of the network, long before anybody is there: the new node's container hears them from the
/// first moment on.
fn join(stage: &Stage, here: &Container) -> Result<()> {
    stage.sealed("words for a node that has yet to join", |marker| {
        let everybody: Vec<_> =
            (10..40).map(|last| SocketAddrV4::new(Ipv4Addr::new(10, 98, 0, last), 8000)).collect();
        let early = Murmur::udp(&here.netns, everybody, marker.payload(WORDS))?;
        stage.lab.xtask(&["lab", "add"])?;
        stage.sealed("the first words of and to a node that has just joined", |marker| {
            let new = Container::new(&stage.lab, "n4", NET, "new")?;
            talk::udp(&new.netns, here.addr, &marker.payload(WORDS))?;
            talk::udp(&here.netns, new.addr, &marker.payload(WORDS))?;
            talk::tcp(&new.netns, here.addr, &marker.payload(1 << 20))
        })?;
        let there = Container::at(&stage.lab, "n4", NET, "there", "10.98.0.25")?;
        early.until_heard(3, AGAIN)?;
        drop(there);
        Ok(())
    })
}

/// Tasks are moved from one node to another while they are asked.
fn drain(stage: &Stage, here: &Container) -> Result<()> {
    let vip = stage.echo_service("web", NET, &["--constraint", "node.hostname!=n1"])?;
    stage.sealed("the node of a service's task is drained", |marker| {
        let udp = Murmur::udp(&here.netns, vec![vip], marker.payload(WORDS))?;
        let tcp = Murmur::tcp(here.netns.again()?, vip, marker.payload(20 * WORDS));
        udp.until_heard(10, AGAIN)?;
        tcp.until_heard(2, AGAIN)?;
        let (_, node) = stage.lab.running("web")?.pop().context("a task")?;
        stage.lab.skep(&["node", "update", "--availability", "drain", &node])?;
        eventually(AGAIN, "the task runs elsewhere", || {
            Ok(stage.lab.running("web")?.iter().any(|(_, now)| *now != node))
        })?;
        udp.until_heard(10, AGAIN)?;
        tcp.until_heard(2, AGAIN)?;
        stage.lab.skep(&["node", "update", "--availability", "active", &node]).map(|_| ())
    })
}

/// A container leaves the network it talks on, and still has another, and a way out.
fn leave_one_of_two(stage: &Stage, here: &Container) -> Result<()> {
    let lab = &stage.lab;
    stage.create_network("other", &[])?;
    let both = Container::new(lab, "n2", NET, "both")?;
    lab.exec("n2", &["skep", "attach", "other", "--netns", "/run/netns/both", "--name", "both"])?;
    stage.sealed("a container leaves one of two networks", |marker| {
        let murmur = Murmur::udp(&both.netns, vec![here.addr], marker.payload(WORDS))?;
        murmur.until_heard(10, AGAIN)?;
        both.detach(lab, NET)?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    both.detach(lab, "other")
}

/// The same name and addresses: sealed, plain, and sealed again, while the same sockets go on.
fn toggle(stage: &Stage) -> Result<()> {
    let lab = &stage.lab;
    let (near, far) = (lab.add_netns("n2", "near")?, lab.add_netns("n3", "far")?);
    let to = SocketAddrV4::new(FAR.parse()?, 8000);
    for (round, is_sealed) in [true, false, true].into_iter().enumerate() {
        let title = format!("a network that is plain and sealed in turn, {}", round + 1);
        let play = |marker: &netns_tests::marker::Marker| {
            let options: &[&str] = if is_sealed { &[] } else { &["--opt", "encrypted=false"] };
            stage.create_network("turns", &[&["--subnet", SUBNET], options].concat())?;
            let near = Container::on(lab, &near, "n2", "turns", "near", NEAR)?;
            let far = Container::on(lab, &far, "n3", "turns", "far", FAR)?;
            let murmur = Murmur::udp(&near.netns, vec![to], marker.payload(WORDS))?;
            murmur.until_heard(20, AGAIN)?;
            // It is the far end that goes first, so that there is nobody for the last words.
            far.detach(lab, "turns")?;
            std::thread::sleep(Duration::from_secs(1));
            near.detach(lab, "turns")?;
            drop(murmur);
            lab.skep(&["network", "rm", "turns"]).map(|_| ())
        };
        if is_sealed { stage.sealed(&title, play)? } else { stage.plain(&title, play)? }
    }
    Ok(())
}

/// A node is removed while it is talked to, and comes back as a new one.
fn remove(stage: &Stage, here: &Container) -> Result<()> {
    let lab = &stage.lab;
    let leaver = Container::new(lab, "n3", NET, "leaver")?;
    stage.sealed("a node is removed, and joins again", |marker| {
        let to = Murmur::udp(&here.netns, vec![leaver.addr], marker.payload(WORDS))?;
        let from = Murmur::udp(&leaver.netns, vec![here.addr], marker.payload(WORDS))?;
        to.until_heard(10, AGAIN)?;
        from.until_heard(10, AGAIN)?;
        lab.skep(&["node", "rm", "--force", "n3"])?;
        eventually(AGAIN, "n3 knows that it was removed", || {
            Ok(lab.exec("n3", &["skep", "info"])?.contains("this node was removed from the cluster"))
        })?;
        std::thread::sleep(Duration::from_secs(1));
        let heard = to.heard();
        std::thread::sleep(Duration::from_secs(1));
        ensure!(to.heard() == heard, "the removed node is still heard");
        lab.try_exec("n3", &["skep", "swarm", "leave", "--force"])?;
        let token = lab.skep(&["swarm", "join-token", "-q", "worker"])?;
        let manager = "192.168.77.1:2377";
        lab.exec("n3", &["skep", "swarm", "join", "--token", token.trim(), manager])?;
        leaver.attach_again(lab, NET)?;
        to.until_heard(10, AGAIN)?;
        from.until_heard(10, AGAIN)
    })
}
