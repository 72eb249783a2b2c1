//! The routing mesh's rules, its interface and the ports it holds.

use crate::world::{World, listen, sh};
use skep_agent::host::{MeshPlan, PublishedPort, Skep0};
use skep_dataplane::ids::{MacAddr, PortId};
use skep_model::service::Protocol;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

pub(crate) const SKEP0_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 251);
/// Another node.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

pub(crate) fn plan() -> MeshPlan {
    let addr = ipnet::Ipv4Net::new(SKEP0_ADDR, 24).unwrap();
    MeshPlan {
        skep0: Skep0 { port: PortId(1), addr, mac: MacAddr::for_ip(addr.addr()), mtu: 1450 },
        ports: vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 9000, 9001)],
        reserved: vec!["10.0.0.0/24".parse().unwrap()],
        peers: vec![PEER],
    }
}

fn port(protocol: Protocol, published: u16, target: u16) -> PublishedPort {
    PublishedPort { protocol, published, vip: VIP, target }
}

#[tokio::test]
async fn applying_the_same_plan_again_changes_nothing() {
    let world = World::new();
    let host = world.daemon().await;
    let report = host.apply_mesh(plan()).await.unwrap();
    let (id, _tap) = report.new_tap.unwrap();
    assert_eq!((id, report.conflicts.len()), (PortId(1), 0));
    // Handles number what the kernel was given, so a replaced table has others.
    let loaded = || sh(&world.host, "nft -a list table inet skep; ip -o addr show dev skep0");
    let before = loaded();
    let again = host.apply_mesh(plan()).await.unwrap();
    assert!(again.new_tap.is_none() && again.conflicts.is_empty());
    assert_eq!(loaded(), before);
    assert_eq!(sh(&world.host, "cat /proc/sys/net/ipv4/conf/skep0/route_localnet"), "1");
}

#[tokio::test]
async fn a_port_that_is_no_longer_published_is_free_for_others() {
    let world = World::new();
    let host = world.daemon().await;
    let first = host.apply_mesh(plan()).await.unwrap();
    let held = world.host.run(|| TcpListener::bind("127.0.0.1:8080")).await.unwrap_err();
    assert_eq!(held.kind(), io::ErrorKind::AddrInUse);
    let held = world.host.run(|| UdpSocket::bind("0.0.0.0:9000")).await.unwrap_err();
    assert_eq!(held.kind(), io::ErrorKind::AddrInUse);
    host.apply_mesh(MeshPlan { ports: Vec::new(), ..plan() }).await.unwrap();
    listen(&world.host, "0.0.0.0:8080").await;
    assert!(!sh(&world.host, "nft list table inet skep").contains("8080"));
    drop(first);
}

#[tokio::test]
async fn another_program_keeps_its_port_until_it_lets_go() {
    let world = World::new();
    let host = world.daemon().await;
    let other = listen(&world.host, "127.0.0.1:8080").await;
    let report = host.apply_mesh(plan()).await.unwrap();
    let [conflict] = report.conflicts.as_slice() else { panic!("{:?}", report.conflicts) };
    let holder = conflict.holder.as_ref().expect("the holder is this process");
    assert_eq!(holder.pid, std::process::id());
    assert!(conflict.to_string().contains(&format!("8080/tcp is in use on this node by {}", holder.name)));
    let rules = sh(&world.host, "nft list table inet skep");
    assert!(rules.contains("9000") && !rules.contains("8080"), "{rules}");
    assert_eq!(host.recheck().await.unwrap().conflicts, report.conflicts);

    drop(other);
    assert_eq!(host.recheck().await.unwrap().conflicts, []);
    assert!(sh(&world.host, "nft list table inet skep").contains("8080"));
}

#[tokio::test]
async fn connections_of_a_server_that_is_gone_do_not_hold_its_port() {
    let world = World::new();
    let host = world.daemon().await;
    let server = listen(&world.host, "127.0.0.1:8080").await;
    let client = world.host.run(|| TcpStream::connect("127.0.0.1:8080")).await.unwrap();
    let (accepted, _) = server.accept().unwrap();
    // The side that closes first is left with the TIME_WAIT.
    drop(accepted);
    drop((server, client));
    let plain = world.host.run(plain_bind).await.unwrap_err();
    assert_eq!(plain.kind(), io::ErrorKind::AddrInUse, "the port is in TIME_WAIT");
    assert_eq!(host.apply_mesh(plan()).await.unwrap().conflicts, []);
    let reusing = world.host.run(|| TcpListener::bind("0.0.0.0:8080")).await.unwrap_err();
    assert_eq!(reusing.kind(), io::ErrorKind::AddrInUse, "the guard holds against SO_REUSEADDR");
}

fn plain_bind() -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 8080).into())
}

#[tokio::test]
async fn a_changed_ingress_address_makes_a_new_skep0() {
    let world = World::new();
    let host = world.daemon().await;
    let first = host.apply_mesh(plan()).await.unwrap();
    let mut moved = plan();
    moved.skep0.addr = "10.9.0.3/24".parse().unwrap();
    let second = host.apply_mesh(moved).await.unwrap();
    assert!(first.new_tap.is_some() && second.new_tap.is_some());
    let addr = sh(&world.host, "ip -o -4 addr show dev skep0");
    assert!(addr.contains("10.9.0.3/24") && !addr.contains("10.0.0.251"), "{addr}");
}

#[tokio::test]
async fn a_port_named_twice_goes_to_the_first_and_breaks_nothing() {
    let world = World::new();
    let host = world.daemon().await;
    let mut twice = plan();
    twice.ports.push(PublishedPort { vip: "10.0.0.6".parse().unwrap(), ..twice.ports[0] });
    let _report = host.apply_mesh(twice).await.unwrap();
    let rules = sh(&world.host, "nft list table inet skep");
    assert!(rules.contains("tcp . 8080 : 10.0.0.5 . 80") && !rules.contains("10.0.0.6"), "{rules}");
}

#[tokio::test]
async fn sctp_is_refused_with_a_sentence() {
    let world = World::new();
    let host = world.daemon().await;
    let plan = MeshPlan { ports: vec![port(Protocol::Sctp, 3868, 3868)], ..plan() };
    let error = host.apply_mesh(plan).await.unwrap_err();
    assert_eq!(error.to_string(), "port 3868/sctp cannot be published: the routing mesh carries tcp and udp");
}
