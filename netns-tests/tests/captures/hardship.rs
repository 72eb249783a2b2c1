//! Handshakes that fail, daemons that die, paths that change: in mid-flow, with another cipher and port than usual.
//! Each of these ways of losing a session is one on which others' overlays have fallen back to sending in the clear.

use crate::stage::{AGAIN, Container, Stage};
use anyhow::{Result, ensure};
use netns_tests::lab::Lab;
use netns_tests::marker::Marker;
use netns_tests::talk::{self, Murmur};
use std::time::Duration;

const DATA_PATH_PORT: u16 = 7789;
const OPTIONS: &[&str] = &["--data-cipher", "aes-256-gcm", "--data-path-port", "7789"];
const NET: &str = "net";
const WORDS: usize = 1000;
/// Long enough for what must not leave to leave.
const A_WHILE: Duration = Duration::from_secs(2);

/// Too many frames that wait for a session; a link that is narrower than it was.
const EXPECTED: &[&str] = &["bridge_full", "underlay_too_big"];

struct World {
    stage: Stage,
    client: Container,
    server: Container,
}

#[test]
fn whatever_fails_nothing_of_a_sealed_network_shows() -> Result<()> {
    let stage = Stage::new(3, OPTIONS, DATA_PATH_PORT)?;
    stage.create_network(NET, &["--subnet", "10.97.0.0/24"])?;
    let client = Container::new(&stage.lab, "n2", NET, "client")?;
    let server = Container::new(&stage.lab, "n3", NET, "server")?;
    let world = World { stage, client, server };
    world.usual()?;
    world.daemons()?;
    world.own_way_out()?;
    world.handshakes()?;
    world.paths()?;
    world.managers()?;
    world.stage.lab.expect_drops(EXPECTED);
    world.stage.finish()
}

impl World {
    fn murmur(&self, marker: &Marker) -> Result<Murmur> {
        Murmur::udp(&self.client.netns, vec![self.server.addr], marker.payload(WORDS))
    }

    /// Plays `change` while datagrams and connections go on, which have to be answered before, and again after.
    fn mid_flow(&self, title: &str, change: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
        self.stage.sealed(title, |marker| {
            let (udp, tcp) = (self.murmur(marker)?, self.connections(marker)?);
            udp.until_heard(10, AGAIN)?;
            tcp.until_heard(2, AGAIN)?;
            change(&self.stage.lab)?;
            udp.until_heard(10, AGAIN)?;
            tcp.until_heard(2, AGAIN)
        })
    }

    fn connections(&self, marker: &Marker) -> Result<Murmur> {
        Ok(Murmur::tcp(self.client.netns.again()?, self.server.addr, marker.payload(20 * WORDS)))
    }

    fn usual(&self) -> Result<()> {
        let (from, to) = (&self.client.netns, self.server.addr);
        self.stage.sealed("aes-256-gcm, datagrams", |marker| talk::udp(from, to, &marker.payload(WORDS)))?;
        self.stage
            .sealed("another data path port, TCP", |marker| talk::tcp(from, to, &marker.payload(4 << 20)))?;
        self.stage.create_network("open", &["--opt", "encrypted=false"])?;
        let near = Container::new(&self.stage.lab, "n2", "open", "near")?;
        let far = Container::new(&self.stage.lab, "n3", "open", "far")?;
        self.stage.plain("another data path port, datagrams", |marker| {
            talk::udp(&near.netns, far.addr, &marker.payload(WORDS))
        })?;
        self.stage.plain("another data path port, TCP", |marker| {
            talk::tcp(&near.netns, far.addr, &marker.payload(1 << 20))
        })
    }

    /// A namespace that had a default route before it was attached: Skep's rules on the egress bridge know nothing of it.
    fn own_way_out(&self) -> Result<()> {
        let lab = &self.stage.lab;
        let netns = lab.add_netns("n2", "own")?;
        let outside = "ip link add own0 type veth peer name up0 netns own && ip link set own0 up && ip addr add 10.200.0.1/24 dev own0";
        lab.exec("n2", &["sh", "-c", outside])?;
        for line in ["link set up0 up", "addr add 10.200.0.2/24 dev up0", "route add default via 10.200.0.1"]
        {
            netns.run(&format!("ip {line}"))?;
        }
        self.stage.by_outsiders("a namespace has a way out of its own", |marker| {
            let murmur = Murmur::udp(&netns, vec!["203.0.113.1:9".parse()?], marker.payload(WORDS))?;
            std::thread::sleep(A_WHILE);
            ensure!(murmur.said() > 0);
            Ok(())
        })?;
        let own = Container::on(lab, &netns, "n2", NET, "own", "10.97.0.200")?;
        self.stage.sealed("its daemon is killed and started", |marker| {
            let murmur = Murmur::udp(&own.netns, vec![self.server.addr], marker.payload(WORDS))?;
            murmur.until_heard(10, AGAIN)?;
            lab.xtask(&["lab", "daemon", "n2", "kill"])?;
            self.back(lab, &own)?;
            murmur.until_heard(10, AGAIN)?;
            self.client.attach_again(lab, NET)
        })
    }

    /// By SIGKILL and by SIGTERM, at the end that asks and at the one that answers.
    fn daemons(&self) -> Result<()> {
        for (whose, container) in [("client", &self.client), ("server", &self.server)] {
            let node = container.node();
            self.mid_flow(&format!("the {whose}'s daemon is killed and started"), |lab| {
                lab.xtask(&["lab", "daemon", node, "kill"])?;
                self.back(lab, container)
            })?;
            self.mid_flow(&format!("the {whose}'s daemon ends and is started"), |lab| {
                lab.exec(node, &["sh", "-c", END])?;
                self.back(lab, container)
            })?;
        }
        Ok(())
    }

    /// A while later the daemon is started, and the container put on the network again.
    fn back(&self, lab: &Lab, container: &Container) -> Result<()> {
        std::thread::sleep(A_WHILE);
        lab.xtask(&["lab", "daemon", container.node(), "start"])?;
        std::thread::sleep(A_WHILE);
        container.attach_again(lab, NET)
    }

    /// A daemon that started anew has no session, and gets none while the underlay swallows what leads to one.
    fn handshakes(&self) -> Result<()> {
        let ways: [(&str, &[(usize, usize)]); 3] = [
            ("no handshake arrives", &[(2, 3), (3, 2)]),
            ("handshakes arrive and answers don't", &[(3, 2)]),
            ("answers would arrive and handshakes don't", &[(2, 3)]),
        ];
        for (title, shut) in ways {
            self.stage.sealed(title, |marker| {
                let lab = &self.stage.lab;
                shut.iter().try_for_each(|(from, to)| swallow(lab, *from, *to))?;
                lab.xtask(&["lab", "daemon", "n2", "kill"])?;
                lab.xtask(&["lab", "daemon", "n2", "start"])?;
                self.client.attach_again(lab, NET)?;
                let (udp, tcp) = (self.murmur(marker)?, self.connections(marker)?);
                // Longer than frames wait for a session.
                std::thread::sleep(Duration::from_secs(7));
                ensure!(udp.said() > 0 && udp.heard() == 0, "{} words were answered", udp.heard());
                lab.underlay()?.run("nft delete table bridge shut")?;
                udp.until_heard(10, AGAIN)?;
                tcp.until_heard(1, AGAIN)
            })?;
        }
        Ok(())
    }

    fn paths(&self) -> Result<()> {
        self.mid_flow("a node's link goes down and up", |lab| {
            lab.exec("n3", &["ip", "link", "set", "eth0", "down"])?;
            std::thread::sleep(A_WHILE);
            lab.exec("n3", &["ip", "link", "set", "eth0", "up"]).map(|_| ())
        })?;
        self.mid_flow("a node's cable is pulled and plugged in", |lab| {
            lab.plug(2, false)?;
            std::thread::sleep(A_WHILE);
            lab.plug(2, true)
        })?;
        // Both the path's, which only probes tell, and the interface's, which the kernel tells.
        self.mid_flow("the path becomes narrower", |lab| {
            lab.underlay()?.run("ip link set n3 mtu 1300")?;
            std::thread::sleep(A_WHILE);
            Ok(())
        })?;
        self.mid_flow("the interface becomes narrower, and wide again", |lab| {
            lab.exec("n3", &["ip", "link", "set", "eth0", "mtu", "1300"])?;
            std::thread::sleep(A_WHILE);
            lab.exec("n3", &["ip", "link", "set", "eth0", "mtu", "1500"])?;
            lab.underlay()?.run("ip link set n3 mtu 1500").map(|_| ())
        })
    }

    fn managers(&self) -> Result<()> {
        self.mid_flow("the manager is killed and started", |lab| {
            lab.xtask(&["lab", "daemon", "n1", "kill"])?;
            std::thread::sleep(A_WHILE);
            lab.xtask(&["lab", "daemon", "n1", "start"]).map(|_| ())
        })
    }
}

/// SIGTERM, and waits until it has ended. In a host there is one skepd, and its own /proc.
const END: &str = "kill -TERM $(pgrep -x skepd) && while pgrep -x skepd >/dev/null; do sleep 0.05; done";

/// What one node sends to the other on the data path gets lost between them.
fn swallow(lab: &Lab, from: usize, to: usize) -> Result<()> {
    let underlay = lab.underlay()?;
    underlay.run("nft add table bridge shut")?;
    underlay.run("nft add chain bridge shut path { type filter hook forward priority 0 ; }")?;
    let (from, to) = (Lab::addr(from), Lab::addr(to));
    let rule = format!("ip saddr {from} ip daddr {to} udp dport {DATA_PATH_PORT} drop");
    underlay.run(&format!("nft add rule bridge shut path {rule}")).map(|_| ())
}
