//! Connections through the mesh's rules, to a task on the same host: who gets there, and as whom.

use crate::mesh::{SKEP0_ADDR, VIP, plan};
use crate::sniffer::Sniffer;
use crate::world::{HOST, OUTSIDE, PATIENCE, World, connect, is_silent, listen, sh};
use skep_agent::host::netns::Netns;
use skep_agent::host::{Host, IngressRouting, InterfaceSpec, SKEP0, Sandbox, SandboxNetns, SandboxSpec};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::io::{Handle, Worker, WorkerConfig};
use skep_dataplane::seal::{Identity, KEY_LEN, SecretKey, Suite};
use skep_dataplane::snapshot::{
    Backend, BackendState, Endpoint, EndpointKind, L4, Location, Network, Policy, Service, ServicePorts,
    Snapshot,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(crate) const TASK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

/// A host that publishes tcp 8080 → 80 and udp 9000 → 9001 of one task on it.
pub(crate) struct Mesh {
    pub(crate) world: World,
    pub(crate) host: Host,
    pub(crate) task: Sandbox,
    _engine: Handle,
    pub(crate) server: TcpListener,
}

impl Mesh {
    pub(crate) async fn new() -> Self {
        Self::on(World::new()).await
    }

    pub(crate) async fn on(world: World) -> Self {
        let host = world.daemon().await;
        let report = host.apply_mesh(plan()).await.unwrap();
        let mut task = host.create_sandbox(task()).await.unwrap();
        let engine = world.host.run(|| Ok(Worker::spawn(config(), |_| ())));
        let engine = engine.await.unwrap().unwrap();
        engine.publish(Arc::new(snapshot())).unwrap();
        for (port, tap) in report.new_tap.into_iter().chain(std::mem::take(&mut task.taps)) {
            engine.attach(port, tap).unwrap();
        }
        let server = listen(&task.netns, "0.0.0.0:80").await;
        Self { world, host, task, _engine: engine, server }
    }

    /// The client address the task sees when `netns` connects.
    async fn seen_from(&self, netns: &Netns, to: (impl Into<IpAddr>, u16)) -> IpAddr {
        let to = SocketAddr::new(to.0.into(), to.1);
        let _client = connect(netns, to).await.unwrap();
        self.server.accept().unwrap().1.ip()
    }
}

/// Without peers, so that any key serves.
fn config() -> WorkerConfig {
    let key = SecretKey::from_bytes(Zeroizing::new([1; KEY_LEN]));
    let (context, entropy) = (Vec::new(), Zeroizing::new([2; 32]));
    let identity = Identity { key, suite: Suite::default(), context, entropy };
    WorkerConfig { vtep: HOST, port: 4789, seed: 1, identity }
}

fn task() -> SandboxSpec {
    let ingress = IngressRouting { gateway: Ipv4Addr::new(10, 0, 0, 1), udp_target_ports: vec![9001] };
    let eth0 = InterfaceSpec {
        name: "eth0".to_owned(),
        port: PortId(2),
        addr: ipnet::Ipv4Net::new(TASK, 24).unwrap(),
        mac: MacAddr::for_ip(TASK),
        mtu: 1450,
        offloads: true,
        ingress: Some(ingress),
    };
    let (id, netns) = ("task".to_owned(), SandboxNetns::New);
    SandboxSpec { id, netns, interfaces: vec![eth0], egress: true, dns: false }
}

/// What the agent would tell the engine: one service with one task, on the ingress network.
fn snapshot() -> Snapshot {
    let endpoint =
        |ip, port, kind| Endpoint { ip, mac: MacAddr::for_ip(ip), location: Location::Local(port), kind };
    let backends = vec![Backend { ip: TASK, state: BackendState::Active }];
    let ports = ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 9001)]);
    let network = Network {
        vni: Vni::new(4096).unwrap(),
        policy: Policy::Plain,
        subnet: "10.0.0.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        mtu: 1450,
        endpoints: vec![
            endpoint(SKEP0_ADDR, PortId(1), EndpointKind::Host),
            endpoint(TASK, PortId(2), EndpointKind::Container),
        ],
        services: vec![Service { vip: VIP, backends, ports }],
        ingress: true,
    };
    let (reserved, peers) = (plan().reserved, Vec::new());
    Snapshot { generation: 1, networks: vec![network], reserved, peers, underlay_mtu: 1500 }
}

#[tokio::test]
async fn the_task_sees_the_client_s_own_address() {
    let mesh = Mesh::new().await;
    assert_eq!(mesh.seen_from(&mesh.world.outside, (HOST, 8080)).await, OUTSIDE);
    assert_eq!(mesh.seen_from(&mesh.world.host, (HOST, 8080)).await, HOST);
}

#[tokio::test]
async fn loopback_and_containers_of_the_host_are_seen_as_its_ingress_address() {
    let mesh = Mesh::new().await;
    assert_eq!(mesh.seen_from(&mesh.world.host, (Ipv4Addr::LOCALHOST, 8080)).await, SKEP0_ADDR);
    assert_eq!(mesh.seen_from(&mesh.world.host, (Ipv4Addr::new(127, 5, 5, 5), 8080)).await, SKEP0_ADDR);
    assert_eq!(mesh.seen_from(&mesh.task.netns, (HOST, 8080)).await, SKEP0_ADDR);
    let gateway = mesh.task.egress().unwrap().gateway;
    assert_eq!(mesh.seen_from(&mesh.task.netns, (gateway, 8080)).await, SKEP0_ADDR);
}

#[tokio::test]
async fn a_udp_server_on_the_wildcard_address_answers_from_where_it_was_asked() {
    let mesh = Mesh::new().await;
    let server = mesh.task.netns.run(|| UdpSocket::bind("0.0.0.0:9001")).await.unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let serve = mesh.task.netns.run(move || {
        let mut buf = [0; 16];
        let (len, client) = server.recv_from(&mut buf)?;
        server.send_to(&buf[..len], client)?;
        Ok(client.ip())
    });
    // A connected socket takes an answer from nobody else.
    let ask = mesh.world.outside.run(|| {
        let client = UdpSocket::bind("0.0.0.0:0")?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.connect((HOST, 9000))?;
        client.send(b"hello")?;
        client.recv(&mut [0; 16])
    });
    let (seen, answered) = tokio::join!(serve, ask);
    assert_eq!((seen.unwrap(), answered.unwrap()), (IpAddr::V4(OUTSIDE), 5));
}

#[tokio::test]
async fn a_client_that_claims_an_overlay_address_is_dropped() {
    let mesh = Mesh::new().await;
    sh(&mesh.world.outside, "ip addr add 10.0.0.77/32 dev lo");
    let skep0 = Sniffer::on(&mesh.world.host, SKEP0).await;
    let claim = |from: Ipv4Addr| {
        mesh.world.outside.run(move || UdpSocket::bind((from, 0))?.send_to(b"x", (HOST, 9000)))
    };
    claim(Ipv4Addr::new(10, 0, 0, 77)).await.unwrap();
    // An honest packet after it shows that the first had its chance.
    claim(OUTSIDE).await.unwrap();
    let seen = skep0.until(|packet| packet.source == OUTSIDE);
    assert!(seen.iter().all(|packet| packet.source != Ipv4Addr::new(10, 0, 0, 77)), "{seen:?}");
}

#[tokio::test]
async fn nobody_reaches_the_ingress_network_past_the_published_ports() {
    let mesh = Mesh::new().await;
    sh(&mesh.world.outside, &format!("ip route add 10.0.0.0/24 via {HOST}"));
    let skep0 = Sniffer::on(&mesh.world.host, SKEP0).await;
    assert!(is_silent(&mesh.world.outside, (VIP, 80)).await);
    assert!(is_silent(&mesh.world.outside, (TASK, 80)).await);
    // The published way shows what passed before it.
    assert_eq!(mesh.seen_from(&mesh.world.outside, (HOST, 8080)).await, OUTSIDE);
    let seen = skep0.until(|packet| packet.source == OUTSIDE && packet.protocol == 6);
    assert_eq!(seen.iter().filter(|packet| packet.source == OUTSIDE).count(), 1, "{seen:?}");
}

#[tokio::test]
async fn a_client_learns_the_mtu_of_the_overlay() {
    let mesh = Mesh::new().await;
    let too_big = mesh.world.outside.run(|| {
        let client = UdpSocket::bind("0.0.0.0:0")?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.connect((HOST, 9000))?;
        // Linux sets DF on it, and tells a connected socket what ICMP says.
        client.send(&[0; 1472])?;
        Ok(client.recv(&mut [0; 1]).unwrap_err().raw_os_error())
    });
    assert_eq!(too_big.await.unwrap(), Some(libc::EMSGSIZE));
}

#[tokio::test]
async fn an_icmp_error_about_an_answer_finds_its_way_to_the_task() {
    let mesh = Mesh::new().await;
    let client = connect(&mesh.world.outside, (HOST, 8080)).await.unwrap();
    let port = client.local_addr().unwrap().port();
    let frag_needed = frag_needed_about((HOST, 8080), (OUTSIDE, port));
    let skep0 = Sniffer::on(&mesh.world.host, SKEP0).await;
    let send = move || {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        raw.send_to(&frag_needed, &SockAddr::from(SocketAddrV4::new(HOST, 0)))
    };
    mesh.world.outside.run(send).await.unwrap();
    let seen = skep0.until(|packet| packet.protocol == 1);
    let error = seen.last().unwrap();
    assert_eq!((error.source, error.destination), (OUTSIDE, VIP));
    assert_eq!(error.payload[8 + 12..8 + 16], VIP.octets(), "the quoted packet is the VIP's");
    assert_eq!(error.payload[8 + 20..8 + 22], 80u16.to_be_bytes());
}

#[tokio::test]
async fn a_container_s_question_from_a_published_port_gets_its_answer() {
    let mesh = Mesh::new().await;
    let server = mesh.world.outside.run(|| UdpSocket::bind("0.0.0.0:53")).await.unwrap();
    let ask = mesh.task.netns.run(|| {
        let client = UdpSocket::bind("0.0.0.0:9000")?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.send_to(b"question", (OUTSIDE, 53))?;
        client.recv_from(&mut [0; 16])
    });
    let serve = mesh.world.outside.run(move || {
        server.set_read_timeout(Some(PATIENCE))?;
        let (_, client) = server.recv_from(&mut [0; 16])?;
        server.send_to(b"answer", client)
    });
    let (answer, served) = tokio::join!(ask, serve);
    served.unwrap();
    assert_eq!(answer.unwrap(), (6, SocketAddr::from((OUTSIDE, 53))));
}

/// "Fragmentation needed" (RFC 792, RFC 1191), quoting a TCP packet.
fn frag_needed_about(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut quoted = vec![0x45, 0, 0x05, 0xaa, 0, 1, 0x40, 0, 64, 6, 0, 0];
    quoted.extend(from.0.octets());
    quoted.extend(to.0.octets());
    let header = internet_checksum(&quoted);
    quoted[10..12].copy_from_slice(&header);
    quoted.extend(from.1.to_be_bytes());
    quoted.extend(to.1.to_be_bytes());
    quoted.extend([0; 4]);
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend(1300u16.to_be_bytes());
    icmp.extend(quoted);
    let sum = internet_checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    icmp
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
