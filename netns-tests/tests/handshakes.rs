//! Handshakes between packet threads on an underlay that loses or spoils datagrams: fifty of fifty succeed.

use anyhow::{Result, ensure};
use netns_tests::Netns;
use skep_dataplane::DropReason;
use skep_dataplane::io::{Handle, Worker, WorkerConfig};
use skep_dataplane::seal::{Identity, SecretKey, Suite};
use skep_dataplane::snapshot::{Peer, Snapshot};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LEFT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// Each pair has a port of its own, so that all of them can share two hosts.
const PORTS: std::ops::Range<u16> = 5_001..5_051;
/// The measure of QUIC's interop runner: all of them take no more, one after the other.
const IN_ALL: Duration = Duration::from_secs(300);
/// Of a sealed datagram's bytes, where each kind of it is read.
const SPOILT: [u64; 10] = [0, 4, 6, 7, 9, 15, 17, 24, 70, 120];

/// What somebody says of a datagram that is not as it was sealed.
const FORGED: [DropReason; 3] =
    [DropReason::SealBroken, DropReason::HandshakeMac, DropReason::HandshakeForged];

struct Pair {
    nodes: [Handle; 2],
    begun: Instant,
    took: Option<Duration>,
}

impl Pair {
    fn start(hosts: [&Netns; 2], port: u16) -> Result<Self> {
        let begun = Instant::now();
        let left = start(hosts[0], [LEFT, RIGHT], port)?;
        Ok(Self { nodes: [left, start(hosts[1], [RIGHT, LEFT], port)?], begun, took: None })
    }

    /// Both hold a session in which the other's answer came.
    fn look(&mut self) -> Result<()> {
        let mut holds = true;
        for node in &self.nodes {
            let path = &node.stats()?.engine.paths[0];
            holds &= path.session.since.is_some() && path.answered > 0;
        }
        if holds && self.took.is_none() {
            self.took = Some(self.begun.elapsed());
        }
        Ok(())
    }
}

fn start(host: &Netns, [vtep, peer]: [Ipv4Addr; 2], port: u16) -> Result<Handle> {
    let entropy = [port.to_be_bytes()[1] ^ vtep.octets()[3] << 7; 32].into();
    let identity = Identity { key: key(vtep, port), suite: Suite::default(), context: Vec::new(), entropy };
    let config = WorkerConfig { vtep, port, seed: port.into(), identity };
    let handle = host.enter(|| Worker::spawn(config, |_| ()))??;
    let peers = vec![Peer { vtep: peer, key: key(peer, port).public() }];
    handle.publish(Arc::new(Snapshot { peers, ..Snapshot::default() }))?;
    Ok(handle)
}

fn key(vtep: Ipv4Addr, port: u16) -> SecretKey {
    let mut bytes = [vtep.octets()[3]; 32];
    bytes[..2].copy_from_slice(&port.to_be_bytes());
    SecretKey::from_bytes(bytes.into())
}

/// Two hosts that receive what the rules leave of the datagrams to each port.
fn underlay(rules: &[String]) -> Result<[Netns; 2]> {
    let hosts = [Netns::new()?, Netns::new()?];
    hosts[0].veth("underlay", &hosts[1], "underlay")?;
    for (host, address) in hosts.iter().zip([LEFT, RIGHT]) {
        host.run(&format!("ip addr add {address}/24 dev underlay"))?;
        host.run("nft add table inet fate")?;
        host.run("nft add chain inet fate arrive { type filter hook input priority 0; }")?;
        for rule in rules {
            host.run(&format!("nft add rule inet fate arrive {rule}"))?;
        }
    }
    Ok(hosts)
}

/// Returns what both sides of all pairs counted as dropped because it was forged, as spoilt datagrams seem to be.
fn shake_hands(rules: &[String], what: &str) -> Result<u64> {
    let [left, right] = underlay(rules)?;
    let pairs: Result<Vec<Pair>> = PORTS.map(|port| Pair::start([&left, &right], port)).collect();
    let mut pairs = pairs?;
    let begun = Instant::now();
    while begun.elapsed() < IN_ALL && pairs.iter().any(|pair| pair.took.is_none()) {
        sleep(Duration::from_millis(20));
        pairs.iter_mut().try_for_each(Pair::look)?;
    }
    let took: Vec<Duration> = pairs.iter().filter_map(|pair| pair.took).collect();
    let (all, longest): (Duration, _) = (took.iter().sum(), took.iter().max());
    println!("{} of {} handshakes with {what}: {all:?} in all, {longest:?} at most", took.len(), PORTS.len());
    ensure!(took.len() == PORTS.len() && all < IN_ALL);
    let mut refused = 0;
    for node in pairs.iter().flat_map(|pair| &pair.nodes) {
        let drops = node.stats()?.engine.drops;
        let forged = drops.iter().filter(|(reason, _)| FORGED.contains(reason));
        refused += forged.map(|(_, count)| count).sum::<u64>();
    }
    Ok(refused)
}

#[test]
fn fifty_of_fifty_where_a_third_is_lost_each_way() -> Result<()> {
    let lose = format!("udp dport {}-{} numgen random mod 100 < 30 drop", PORTS.start, PORTS.end);
    shake_hands(&[lose], "30 % lost")?;
    Ok(())
}

#[test]
fn fifty_of_fifty_where_three_in_a_row_of_ten_are_lost_each_way() -> Result<()> {
    let lose = |port| format!("udp dport {port} numgen inc mod 10 < 3 drop");
    shake_hands(&PORTS.map(lose).collect::<Vec<_>>(), "three in a row of ten lost")?;
    Ok(())
}

/// Checksums are left to a wire that has none, so that what is spoilt is for the sessions to notice.
#[test]
fn fifty_of_fifty_where_a_third_is_spoilt_each_way() -> Result<()> {
    let ports = format!("{}-{}", PORTS.start, PORTS.end);
    let spoil = |at| format!("udp dport {ports} numgen random mod 100 < 4 @th,{},8 set 0x5a", 64 + 8 * at);
    let refused = shake_hands(&SPOILT.map(spoil), "30 % spoilt")?;
    println!("{refused} spoilt datagrams refused");
    ensure!(refused > 0, "no spoilt datagram reached a session");
    Ok(())
}
