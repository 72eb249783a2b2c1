//! What is in a container's namespace.

use crate::world::{World, sh};
use skep_agent::host::netns::Netns;
use skep_agent::host::{IngressRouting, InterfaceSpec, SandboxNetns, SandboxSpec};
use skep_dataplane::ids::{MacAddr, PortId};
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use tokio::net::{TcpListener, UdpSocket as TokioUdpSocket};

fn interface(name: &str, port: u32, addr: &str, ingress: Option<IngressRouting>) -> InterfaceSpec {
    let addr: ipnet::Ipv4Net = addr.parse().unwrap();
    let (name, port, mac) = (name.to_owned(), PortId(port), MacAddr::for_ip(addr.addr()));
    InterfaceSpec { name, port, addr, mac, mtu: 1450, offloads: true, ingress }
}

fn spec(netns: SandboxNetns, interfaces: Vec<InterfaceSpec>) -> SandboxSpec {
    SandboxSpec { id: "task".to_owned(), netns, interfaces, egress: true, dns: true }
}

fn ingress() -> IngressRouting {
    IngressRouting { gateway: "10.0.0.1".parse().unwrap(), udp_target_ports: vec![9000, 53] }
}

#[tokio::test]
async fn a_task_with_an_overlay_ingress_and_egress() {
    let world = World::new();
    let host = world.daemon().await;
    let interfaces =
        vec![interface("eth0", 7, "10.0.1.5/24", None), interface("eth1", 8, "10.0.0.7/24", Some(ingress()))];
    let sandbox = host.create_sandbox(spec(SandboxNetns::New, interfaces)).await.unwrap();

    let ports: Vec<_> = sandbox.taps.iter().map(|(port, tap)| (*port, tap.name().to_owned())).collect();
    assert_eq!(ports, [(PortId(7), "eth0".to_owned()), (PortId(8), "eth1".to_owned())]);
    assert_eq!(sandbox.egress().unwrap().name, "eth2");
    let link = sh(&sandbox.netns, "ip link show eth1");
    for part in ["mtu 1450", "qlen 1000", "02:42:0a:00:00:07", "UP"] {
        assert!(link.contains(part), "no {part} in {link}");
    }
    assert_eq!(sh(&sandbox.netns, "ip -6 addr show dev eth1; ip -6 addr show dev eth2"), "");
    assert_eq!(
        sh(&sandbox.netns, "ip rule"),
        "0:\tfrom all lookup local\n97:\tfrom 10.0.0.7 lookup 100\n98:\tfrom all lookup main suppress_prefixlength 0\n\
         99:\tfrom all ipproto udp sport 9000 lookup 100\n99:\tfrom all ipproto udp sport 53 lookup 100\n\
         32766:\tfrom all lookup main\n32767:\tfrom all lookup default"
    );
    let route_of = |question: &str| sh(&sandbox.netns, &format!("ip route get {question}"));
    assert!(route_of("192.0.2.200 from 10.0.0.7").contains("via 10.0.0.1 dev eth1"));
    assert!(route_of("192.0.2.200 ipproto udp sport 9000").contains("dev eth1 table 100 src 10.0.0.7"));
    assert!(route_of("192.0.2.200 ipproto udp sport 9001").contains("dev eth2"));
    assert!(route_of("10.0.1.9 ipproto udp sport 9000").contains("dev eth0"), "overlays stay direct");
    host.remove_sandbox(sandbox).await.unwrap();
    assert!(!sh(&world.host, "ip -o link").contains("skv"), "the veth is gone with its sandbox");
}

#[tokio::test]
async fn dns_questions_of_a_container_arrive_at_its_sockets() {
    let world = World::new();
    let host = world.daemon().await;
    let mut sandbox = host.create_sandbox(spec(SandboxNetns::New, Vec::new())).await.unwrap();
    let (udp, tcp) = sandbox.dns.take().unwrap();
    let (udp, tcp) = (TokioUdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap());

    let ask = || UdpSocket::bind("127.0.0.1:0")?.send_to(b"question", "127.0.0.11:53");
    sandbox.netns.run(ask).await.unwrap();
    let mut buf = [0; 16];
    let (len, _) = udp.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..len], b"question");

    let ask = || TcpStream::connect("127.0.0.11:53")?.write_all(b"q");
    sandbox.netns.run(ask).await.unwrap();
    tcp.accept().await.unwrap();
}

#[tokio::test]
async fn somebody_else_s_namespace_is_left_as_it_was() {
    let world = World::new();
    let host = world.daemon().await;
    let netns = Netns::anonymous().unwrap();
    sh(
        &netns,
        "ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; ip addr add 198.51.100.2/24 dev eth0; ip link set eth0 up
         ip route add default via 198.51.100.1",
    );
    let state = || sh(&netns, "ip -o addr; ip rule; ip route show table all");
    let before = state();
    let interfaces = vec![interface("eth0", 7, "10.0.0.7/24", Some(ingress()))];
    let existing = SandboxNetns::Existing(netns.try_clone().unwrap());
    let sandbox = host.create_sandbox(spec(existing, interfaces)).await.unwrap();
    assert_eq!(sandbox.interfaces, [(PortId(7), "eth1".to_owned())], "eth0 was taken");
    assert!(sandbox.egress().is_none(), "it has a default route of its own");
    assert_ne!(state(), before);
    host.remove_sandbox(sandbox).await.unwrap();
    assert_eq!(state(), before);
}

#[tokio::test]
async fn the_way_out_of_somebody_else_s_namespace_stays_until_the_last_sandbox_leaves_it() {
    let world = World::new();
    let host = world.daemon().await;
    host.ensure_gwbridge().await.unwrap();
    let before = world.kernel_state();
    let netns = Netns::anonymous().unwrap();
    let state = || sh(&netns, "ip -br link; ip route; ip rule");
    let before_inside = state();
    let enter = |port, addr| {
        let existing = SandboxNetns::Existing(netns.try_clone().unwrap());
        SandboxSpec { dns: false, ..spec(existing, vec![interface("eth0", port, addr, None)]) }
    };
    let mut first = host.create_sandbox(enter(7, "10.0.1.7/24")).await.unwrap();
    let mut second = host.create_sandbox(enter(8, "10.0.2.7/24")).await.unwrap();
    assert!(first.egress().is_some() && second.egress().is_none());

    first.bequeath(&mut second);
    host.remove_sandbox(first).await.unwrap();
    let between = state();
    assert!(between.contains("default via") && between.contains("<LOOPBACK,UP"), "{between}");
    // What is still said to the network that was left must not go out by the default route.
    assert_eq!(between.matches("10.0.1.0/24").count(), 1, "{between}");
    assert!(between.contains("unreachable 10.0.1.0/24"), "{between}");

    host.remove_sandbox(second).await.unwrap();
    assert_eq!(state(), before_inside);
    assert_eq!(world.kernel_state(), before);
}

#[tokio::test]
async fn a_sandbox_that_fails_half_way_leaves_nothing() {
    let world = World::new();
    let host = world.daemon().await;
    host.ensure_gwbridge().await.unwrap();
    let before = world.kernel_state();
    let netns = Netns::anonymous().unwrap();
    sh(&netns, "ip link set lo up");
    let state = || sh(&netns, "ip -o addr; ip rule; ip route show table all");
    let before_inside = state();
    let _taken = crate::world::listen(&netns, "127.0.0.11:53").await;
    let existing = SandboxNetns::Existing(netns.try_clone().unwrap());
    let interfaces = vec![interface("eth0", 7, "10.0.0.7/24", Some(ingress()))];
    let error = host.create_sandbox(spec(existing, interfaces)).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.11:53"), "{error}");
    assert_eq!(world.kernel_state(), before);
    assert_eq!(state(), before_inside);
}
