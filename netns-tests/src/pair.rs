//! Two packet threads on one wire, each with a container on a sealed network, and somebody else on that wire.
//!
//! ```text
//! container 10.9.0.1 ── left 192.168.77.1 ──┐
//!                                           ├── the wire, a bridge ── other 192.168.77.9
//! container 10.9.0.2 ── right 192.168.77.2 ─┘
//! ```

use crate::Netns;
use anyhow::{Context, Result};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::io::{Handle, Tap, TapOptions, Worker, WorkerConfig};
use skep_dataplane::seal::{Identity, SecretKey, Suite};
use skep_dataplane::snapshot::{Endpoint, EndpointKind, Location, Network, Peer, Policy, Snapshot};
use std::net::Ipv4Addr;
use std::sync::Arc;

pub const VNI: u32 = 4097;
pub const DATA_PATH_PORT: u16 = 4789;
const PORT: PortId = PortId(1);
const UNDERLAY_MTU: u16 = 1500;

pub struct Pair {
    pub wire: Netns,
    pub other: Netns,
    pub sides: [Side; 2],
    policy: Policy,
    lives: u8,
}

pub struct Side {
    pub host: Netns,
    pub container: Netns,
    pub worker: Handle,
}

/// Of side 0 and 1.
pub fn vtep(side: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, side as u8 + 1)
}

pub fn container(side: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, side as u8 + 1)
}

pub fn secret(side: usize) -> SecretKey {
    SecretKey::from_bytes([side as u8 + 1; 32].into())
}

impl Pair {
    pub fn new(policy: Policy) -> Result<Self> {
        let (wire, other) = (Netns::new()?, Netns::new()?);
        wire.run("ip link add br0 type bridge")?;
        wire.run("ip link set br0 up")?;
        let hosts = [Netns::new()?, Netns::new()?];
        for (host, name, address) in [(&hosts[0], "left", 1), (&hosts[1], "right", 2), (&other, "other", 9)] {
            wire.veth(name, host, "eth0")?;
            wire.run(&format!("ip link set {name} master br0"))?;
            host.run(&format!("ip addr add 192.168.77.{address}/24 dev eth0"))?;
        }
        let mut sides = Vec::new();
        for (side, host) in hosts.into_iter().enumerate() {
            let worker = worker(&host, side, 0)?;
            sides.push(Side { host, container: Netns::new()?, worker });
        }
        let sides = sides.try_into().ok().context("two sides")?;
        let mut pair = Self { wire, other, sides, policy, lives: 0 };
        (0..2).try_for_each(|side| pair.attach(side))?;
        Ok(pair)
    }

    /// A new packet thread in the place of a side's, which has forgotten everything.
    pub fn restart(&mut self, side: usize) -> Result<()> {
        self.lives += 1;
        self.sides[side].worker.shutdown();
        self.sides[side].worker = worker(&self.sides[side].host, side, self.lives)?;
        self.attach(side)
    }

    fn attach(&mut self, side: usize) -> Result<()> {
        let (snapshot, Side { container: netns, worker, .. }) = (self.snapshot(side), &self.sides[side]);
        let options = TapOptions { name: "eth0".to_owned(), offloads: true };
        let tap = netns.enter(|| Tap::open(&options))??;
        let (mac, mtu) = (MacAddr::for_ip(container(side)), UNDERLAY_MTU - self.policy.overhead());
        netns.run(&format!("ip link set eth0 address {mac} mtu {mtu} txqueuelen 5000 up"))?;
        netns.run(&format!("ip addr add {}/24 dev eth0", container(side)))?;
        worker.attach(PORT, tap)?;
        worker.publish(Arc::new(snapshot))?;
        Ok(())
    }

    fn snapshot(&self, side: usize) -> Snapshot {
        let endpoint = |at: usize| Endpoint {
            ip: container(at),
            mac: MacAddr::for_ip(container(at)),
            location: if at == side { Location::Local(PORT) } else { Location::Remote(vtep(at)) },
            kind: EndpointKind::Container,
        };
        let network = Network {
            vni: Vni::new(VNI).expect("24 bits"),
            policy: self.policy,
            subnet: "10.9.0.0/24".parse().expect("a subnet"),
            gateway: Ipv4Addr::new(10, 9, 0, 254),
            mtu: UNDERLAY_MTU - self.policy.overhead(),
            endpoints: vec![endpoint(0), endpoint(1)],
            services: Vec::new(),
            ingress: false,
        };
        let peers = vec![Peer { vtep: vtep(1 - side), key: secret(1 - side).public() }];
        Snapshot { networks: vec![network], peers, underlay_mtu: UNDERLAY_MTU, ..Snapshot::default() }
    }

    /// Whether both hold a session.
    pub fn is_met(&self) -> Result<bool> {
        for side in &self.sides {
            let paths = side.worker.stats()?.engine.paths;
            if paths.iter().any(|path| path.session.since.is_none()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn worker(host: &Netns, side: usize, life: u8) -> Result<Handle> {
    let entropy = [16 * life + side as u8 + 1; 32].into();
    let identity = Identity { key: secret(side), suite: Suite::default(), context: Vec::new(), entropy };
    let config = WorkerConfig { vtep: vtep(side), port: DATA_PATH_PORT, seed: 1, identity };
    Ok(host.enter(|| Worker::spawn(config, |_| ()))??)
}
