//! Two nodes: *here* is measured, *there* makes what comes from outside.

use crate::frames::{Ends, Size};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::seal::{Identity, PublicKey, SecretKey, Suite};
use skep_dataplane::snapshot::*;
use skep_dataplane::{Engine, Output, VnetHdr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Both know each other's sessions and paths after this: nobody answers that slowly.
const ACQUAINTANCE: Duration = Duration::from_secs(3);
pub(crate) const UNDERLAY_MTU: u16 = 1500;

pub(crate) fn vtep(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 0, 0).to_bits() + n as u32)
}

/// Node `n`'s.
pub(crate) fn identity(n: usize, suite: Suite) -> Identity {
    let mut entropy = [0; 32];
    entropy[..8].copy_from_slice(&(n as u64).to_be_bytes());
    Identity { key: secret(n), suite, context: Vec::new(), entropy: Zeroizing::new(entropy) }
}

fn secret(n: usize) -> SecretKey {
    let mut key = [1; 32];
    key[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    SecretKey::from_bytes(Zeroizing::new(key))
}

pub(crate) fn peer(n: usize) -> Peer {
    let key: PublicKey = secret(n).public();
    Peer { vtep: vtep(n), key }
}

pub(crate) fn endpoint(ip: Ipv4Addr, location: Location, kind: EndpointKind) -> Endpoint {
    Endpoint { ip, mac: MacAddr::for_ip(ip), location, kind }
}

pub(crate) fn service(vip: Ipv4Addr, backends: impl IntoIterator<Item = Ipv4Addr>) -> Service {
    let active = |ip| Backend { ip, state: BackendState::Active };
    Service { vip, backends: backends.into_iter().map(active).collect(), ports: ServicePorts::All }
}

/// A network with nobody on it.
pub(crate) fn network(vni: u32, subnet: &str, policy: Policy) -> Network {
    let subnet: ipnet::Ipv4Net = subnet.parse().unwrap();
    Network {
        vni: Vni::new(vni).unwrap(),
        policy,
        subnet,
        gateway: subnet.hosts().next().unwrap(),
        mtu: UNDERLAY_MTU - policy.overhead(),
        endpoints: Vec::new(),
        services: Vec::new(),
        ingress: false,
    }
}

/// What came out, counted and let go.
pub(crate) struct Counted {
    pub(crate) outputs: u64,
    place: Box<[u8]>,
}

impl Default for Counted {
    fn default() -> Self {
        Self { outputs: 0, place: vec![0; 1 << 16].into() }
    }
}

impl Output for Counted {
    fn frame(&mut self, _: PortId, _: VnetHdr, _: &[u8]) {
        self.outputs += 1;
    }

    fn datagram(&mut self, _: Ipv4Addr, _: &[u8]) {
        self.outputs += 1;
    }

    fn datagram_in_place(&mut self, _: Ipv4Addr, len: usize, write: impl FnOnce(&mut [u8])) {
        write(&mut self.place[..len]);
        self.outputs += 1;
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}
}

/// Keeps the datagrams, with whom they are for.
#[derive(Default)]
pub(crate) struct Kept(pub(crate) VecDeque<(Ipv4Addr, Vec<u8>)>);

impl Output for Kept {
    fn frame(&mut self, _: PortId, _: VnetHdr, _: &[u8]) {}

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        self.0.push_back((to, datagram.to_vec()));
    }

    fn reachability(&mut self, _: &[Ipv4Addr]) {}
}

pub(crate) const HERE: usize = 1;
pub(crate) const THERE: usize = 2;

const fn on_overlay(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

const fn on_ingress(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// The client, here.
pub(crate) const CLIENT: Ipv4Addr = on_overlay(3);
pub(crate) const CLIENT_PORT: PortId = PortId(1);
/// Its neighbour, here too, behind no service.
pub(crate) const NEIGHBOUR: Ipv4Addr = on_overlay(4);
/// There.
pub(crate) const REMOTE: Ipv4Addr = on_overlay(5);
pub(crate) const REMOTE_PORT: PortId = PortId(9);
/// Behind the VIP, here.
pub(crate) const SERVER: Ipv4Addr = on_overlay(6);
pub(crate) const SERVER_PORT: PortId = PortId(3);
pub(crate) const VIP: Ipv4Addr = on_overlay(2);

/// On the ingress network: a node's host port, the tasks on either node, and their services' VIPs.
pub(crate) const HOST_PORT: PortId = PortId(100);
pub(crate) const TASK_PORT: PortId = PortId(101);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

pub(crate) const fn host(node: usize) -> Ipv4Addr {
    on_ingress(250 + node as u8)
}

pub(crate) const fn task(node: usize) -> Ipv4Addr {
    on_ingress(10 + node as u8)
}

/// Of the service whose one task is on a node.
pub(crate) const fn ingress_vip(node: usize) -> Ipv4Addr {
    on_ingress(20 + node as u8)
}

/// A node's view of the two networks.
fn snapshot(node: usize, policy: Policy) -> Snapshot {
    let at = |owner: usize, port| match owner == node {
        true => Location::Local(port),
        false => Location::Remote(vtep(owner)),
    };
    let container = |ip, location| endpoint(ip, location, EndpointKind::Container);
    let mut overlay = network(4097, "10.1.0.0/24", policy);
    overlay.endpoints = vec![
        container(CLIENT, at(HERE, CLIENT_PORT)),
        container(NEIGHBOUR, at(HERE, PortId(2))),
        container(REMOTE, at(THERE, REMOTE_PORT)),
        container(SERVER, at(HERE, SERVER_PORT)),
    ];
    overlay.services = vec![service(VIP, [SERVER])];
    let mut ingress = network(4096, "10.0.0.0/24", policy);
    ingress.ingress = true;
    for node in [HERE, THERE] {
        ingress.endpoints.push(endpoint(host(node), at(node, HOST_PORT), EndpointKind::Host));
        ingress.endpoints.push(container(task(node), at(node, TASK_PORT)));
        ingress.services.push(service(ingress_vip(node), [task(node)]));
    }
    Snapshot {
        generation: 1,
        networks: vec![ingress, overlay],
        reserved: vec!["10.0.0.0/8".parse().unwrap()],
        peers: vec![peer(HERE + THERE - node)],
        underlay_mtu: UNDERLAY_MTU,
    }
}

/// Both nodes, acquainted. Their clock stands still unless it is moved.
pub(crate) struct Pair {
    pub(crate) here: Engine,
    pub(crate) there: Engine,
    pub(crate) now: Instant,
    /// Of a packet, in bytes, on either network.
    pub(crate) mtu: u16,
}

impl Pair {
    pub(crate) fn new(policy: Policy, suite: Suite) -> Self {
        let now = Instant::now();
        let mut engines = [HERE, THERE].map(|node| Engine::new(node as u64, identity(node, suite)));
        for (node, engine) in [HERE, THERE].into_iter().zip(&mut engines) {
            engine.apply(Arc::new(snapshot(node, policy)), now, &mut Kept::default());
        }
        let [here, there] = engines;
        let mut pair = Self { here, there, now, mtu: UNDERLAY_MTU - policy.overhead() };
        pair.meet();
        pair
    }

    /// Both do what they do by themselves, and hear each other at once.
    fn meet(&mut self) {
        let until = self.now + ACQUAINTANCE;
        loop {
            let due = [&self.here, &self.there].into_iter().filter_map(Engine::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            let (mut by_here, mut by_there) = (Kept::default(), Kept::default());
            self.here.handle_timeout(self.now, &mut by_here);
            self.there.handle_timeout(self.now, &mut by_there);
            self.exchange(by_here, by_there);
        }
        self.now = until;
    }

    fn exchange(&mut self, mut by_here: Kept, mut by_there: Kept) {
        loop {
            if let Some((_, mut datagram)) = by_here.0.pop_front() {
                self.there.handle_datagram(vtep(HERE), &mut datagram, self.now, &mut by_there);
            } else if let Some((_, mut datagram)) = by_there.0.pop_front() {
                self.here.handle_datagram(vtep(THERE), &mut datagram, self.now, &mut by_here);
            } else {
                return;
            }
        }
    }

    /// A conversation through a service of this node: the client's port and its packets' ends, the server's likewise.
    /// What opens it depends on what follows.
    pub(crate) fn converse(&mut self, size: Size, asker: (PortId, Ends), answerer: (PortId, Ends)) {
        let mut buffer = Vec::new();
        for (nth, (port, ends)) in [asker, answerer, asker].into_iter().enumerate() {
            match size {
                Size::Small => _ = ends.datagram(&mut buffer),
                Size::Large if nth < 2 => ends.opening(nth == 1, &mut buffer),
                Size::Large => return,
            }
            self.here.handle_frame(port, VnetHdr::default(), &mut buffer, self.now, &mut Counted::default());
        }
    }
}
