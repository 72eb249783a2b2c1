//! What containers, users of the host and the network around it may reach, and what not: each refusal with
//! the rule that counts it.

use crate::egress::container;
use crate::mesh::{PEER, VIP, plan};
use crate::mesh_path::{Mesh, TASK};
use crate::world::{
    CONTROL_PORT, DATA_PATH_PORT, HOST, OUTSIDE, World, arrives, connect, dropped, is_silent, listen, sh,
};
use ipnet::Ipv4Net;
use skep_agent::host::netns::Netns;
use skep_agent::host::{Host, InterfaceSpec, MeshReport, Sandbox, SandboxNetns, SandboxSpec};
use skep_dataplane::ids::{MacAddr, PortId};
use std::net::{Ipv4Addr, SocketAddr};

const TO_VTEP: &str = "to a member's VTEP";
const TO_CONTROL: &str = "container to a manager's port for nodes";
const NOT_PUBLISHED: &str = "not published";
const CLAIMS_ANOTHER: &str = "container claims another's address";

/// On a network neither container is on.
const OTHER_OVERLAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);

/// A node with two containers; the outside machine has another node's address besides its own.
struct Node {
    world: World,
    host: Host,
    a: Sandbox,
    b: Sandbox,
    _report: MeshReport,
}

impl Node {
    async fn new() -> Self {
        let world = World::new();
        sh(&world.outside, &format!("ip addr add {PEER}/24 dev eth0"));
        let host = world.daemon().await;
        let mut plan = plan();
        plan.reserved.push(Ipv4Net::new_assert(OTHER_OVERLAY, 24).trunc());
        let report = host.apply_mesh(plan).await.unwrap();
        let (a, b) = (container(&host, "a").await, container(&host, "b").await);
        Self { world, host, a, b, _report: report }
    }

    fn gateway(&self) -> Ipv4Addr {
        self.a.egress().unwrap().gateway
    }

    /// What the rule of that comment drops while `probe` is made.
    async fn drops<T>(&self, why: &str, probe: impl Future<Output = T>) -> (T, u64) {
        let before = dropped(&self.world.host, why);
        let result = probe.await;
        (result, dropped(&self.world.host, why) - before)
    }
}

#[tokio::test]
async fn a_container_cannot_send_to_the_vtep_of_a_member() {
    let node = Node::new().await;
    let (host, outside, from) = (&node.world.host, &node.world.outside, &node.a.netns);
    for (server, to) in [(outside, PEER), (host, HOST), (host, node.gateway())] {
        let probe = arrives(from, server, (to, DATA_PATH_PORT));
        assert_eq!(node.drops(TO_VTEP, probe).await, (false, 1), "to {to}");
    }
    assert!(arrives(from, outside, (OUTSIDE, DATA_PATH_PORT)).await, "VXLAN to others is their own business");
    assert!(arrives(from, outside, (PEER, DATA_PATH_PORT + 1)).await, "and so is another port of a member");
    // In fragments as well: the kernel puts them together first.
    let large =
        from.run(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(&[0; 4000], (PEER, DATA_PATH_PORT)));
    let (sent, dropped) = node.drops(TO_VTEP, large).await;
    sent.unwrap();
    assert_ne!(dropped, 0);
}

/// Peers know a member by its address alone, and on plain networks everything else can be made up.
#[tokio::test]
async fn nobody_of_the_host_but_the_daemon_sends_to_the_vtep_of_a_member() {
    let node = Node::new().await;
    let (host, outside) = (&node.world.host, &node.world.outside);
    let as_nobody = |to: Ipv4Addr| {
        let send = format!("echo x > /dev/udp/{to}/{DATA_PATH_PORT}");
        format!(
            "setpriv --reuid 65534 --regid 65534 --clear-groups bash -c '{send}' 2>/dev/null && echo sent || echo refused"
        )
    };
    let attempt = async { sh(host, &as_nobody(PEER)) };
    assert_eq!(node.drops(TO_VTEP, attempt).await, ("refused".to_owned(), 1));
    assert_eq!(sh(host, &as_nobody(OUTSIDE)), "sent");
    assert!(arrives(host, outside, (PEER, DATA_PATH_PORT)).await, "the daemon's user may");

    // A container of another engine would be seen with the host's address.
    let other = behind_another_bridge(host);
    let probe = arrives(&other, outside, (PEER, DATA_PATH_PORT));
    assert_eq!(node.drops(TO_VTEP, probe).await, (false, 1));
    assert!(arrives(&other, outside, (OUTSIDE, DATA_PATH_PORT)).await);
}

/// A container as Docker's default bridge has them.
fn behind_another_bridge(host: &Netns) -> Netns {
    let netns = Netns::anonymous().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&netns));
    sh(
        host,
        &format!(
            "ip link add docker0 type veth peer name eth0 netns /proc/{}/fd/{fd}
             ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
             nft add table ip nat; nft add chain ip nat POSTROUTING '{{ type nat hook postrouting priority 100; }}'
             nft add rule ip nat POSTROUTING ip saddr 172.17.0.0/16 masquerade",
            std::process::id()
        ),
    );
    sh(
        &netns,
        "ip addr add 172.17.0.2/16 dev eth0; ip link set eth0 up; ip route add default via 172.17.0.1",
    );
    netns
}

#[tokio::test]
async fn what_a_container_may_reach_besides_its_networks() {
    let node = Node::new().await;
    let (host, outside, from) = (&node.world.host, &node.world.outside, &node.a.netns);
    sh(outside, "ip addr add 169.254.169.254/32 dev lo");
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let _servers = [
        listen(outside, "0.0.0.0:80").await,
        listen(outside, &format!("0.0.0.0:{CONTROL_PORT}")).await,
        listen(host, "0.0.0.0:22").await,
        listen(host, &format!("0.0.0.0:{CONTROL_PORT}")).await,
    ];
    // As with Docker: the world, a cloud's metadata, and what the host serves on all its addresses.
    for to in [(OUTSIDE, 80), (metadata, 80), (node.gateway(), 22), (HOST, 22), (OUTSIDE, CONTROL_PORT)] {
        connect(from, to).await.unwrap_or_else(|error| panic!("{to:?}: {error}"));
    }
    for to in [PEER, HOST, node.gateway()] {
        let (silent, drops) = node.drops(TO_CONTROL, is_silent(from, (to, CONTROL_PORT))).await;
        assert!(silent && drops > 0, "{to}:{CONTROL_PORT}");
    }
    let elsewhere = "overlay address by the egress bridge";
    for (to, why) in [(TASK, NOT_PUBLISHED), (VIP, NOT_PUBLISHED), (OTHER_OVERLAY, elsewhere)] {
        let (silent, drops) = node.drops(why, is_silent(from, (to, 80))).await;
        assert!(silent && drops > 0, "{to}");
    }
}

#[tokio::test]
async fn the_host_s_loopback_is_closed_to_containers_whatever_route_localnet_says() {
    let node = Node::new().await;
    let (host, from) = (&node.world.host, &node.a.netns);
    let _server = listen(host, "127.0.0.1:6379").await;
    sh(host, "sysctl -q net.ipv4.conf.all.route_localnet=1");
    let name = &node.a.egress().unwrap().name;
    sh(
        from,
        &format!(
            "sysctl -q net.ipv4.conf.all.route_localnet=1; ip addr flush dev lo
             ip route add 127.0.0.1/32 via {} dev {name} src {}",
            node.gateway(),
            node.a.egress().unwrap().addr.addr()
        ),
    );
    let probe = is_silent(from, SocketAddr::from(([127, 0, 0, 1], 6379)));
    let (silent, drops) = node.drops("container asks for the host's loopback", probe).await;
    assert!(silent && drops > 0);
    sh(host, "nft flush chain inet skep container");
    connect(from, SocketAddr::from(([127, 0, 0, 1], 6379))).await.expect("only the rule was in the way");
}

#[tokio::test]
async fn a_container_speaks_for_no_other_one() {
    let node = Node::new().await;
    let (host, outside) = (&node.world.host, &node.world.outside);
    let (mine, other) = (node.a.egress().unwrap(), node.b.egress().unwrap());
    let _server = listen(outside, "0.0.0.0:80").await;
    connect(&node.b.netns, (OUTSIDE, 80)).await.unwrap();
    let neighbours = || {
        sh(
            host,
            "ip neigh show dev skep_gwbridge | cut -d' ' -f1-3 | sort; bridge fdb show br skep_gwbridge | sort",
        )
    };
    let before = neighbours();

    // Another's address, by IP and in ARP; then another's MAC as well.
    let victim = other.addr.addr();
    let claim = format!(
        "ip addr add {victim}/32 dev {name}; ip route replace default via {gateway} dev {name} src {victim}
         ip neigh flush dev {name}",
        name = mine.name,
        gateway = mine.gateway,
    );
    sh(&node.a.netns, &claim);
    let (silent, drops) = node.drops(CLAIMS_ANOTHER, is_silent(&node.a.netns, (OUTSIDE, 80))).await;
    assert!(silent && drops > 0, "another's address");
    sh(&node.a.netns, &format!("ip link set {} address {}", mine.name, MacAddr::for_ip(victim)));
    sh(
        &node.a.netns,
        &format!("ip route replace default via {} dev {} src {victim}", mine.gateway, mine.name),
    );
    let (silent, drops) = node.drops(CLAIMS_ANOTHER, is_silent(&node.a.netns, (OUTSIDE, 80))).await;
    assert!(silent && drops > 0, "another's address and MAC");

    assert_eq!(neighbours(), before, "nobody learned anything of it");
    connect(&node.b.netns, (OUTSIDE, 80)).await.expect("its victim is where it was");
}

#[tokio::test]
async fn containers_have_no_ipv6_towards_the_host() {
    let node = Node::new().await;
    sh(&node.world.host, "sysctl -q net.ipv6.conf.all.forwarding=1 2>/dev/null || true");
    let name = &node.a.egress().unwrap().name;
    sh(
        &node.a.netns,
        &format!("sysctl -q net.ipv6.conf.{name}.disable_ipv6=0; ip -6 addr add fd00::2/64 dev {name} nodad"),
    );
    let send = format!("echo x | socat - UDP6-DATAGRAM:'[ff02::1%{name}]:9' || true");
    let (_, drops) = node.drops(CLAIMS_ANOTHER, async { sh(&node.a.netns, &send) }).await;
    assert_ne!(drops, 0);
    assert_eq!(
        sh(&node.world.host, "ip -6 addr show dev skep_gwbridge; ip -6 route show dev skep_gwbridge"),
        ""
    );
}

#[tokio::test]
async fn a_container_of_internal_networks_has_no_way_out_at_all() {
    let node = Node::new().await;
    let addr: Ipv4Net = "10.0.1.5/24".parse().unwrap();
    let overlay = InterfaceSpec {
        name: "eth0".to_owned(),
        port: PortId(9),
        addr,
        mac: MacAddr::for_ip(addr.addr()),
        mtu: 1450,
        offloads: true,
        ingress: None,
    };
    let id = "internal".to_owned();
    let spec =
        SandboxSpec { id, netns: SandboxNetns::New, interfaces: vec![overlay], egress: false, dns: false };
    let internal = node.host.create_sandbox(spec).await.unwrap();
    assert_eq!(sh(&internal.netns, "ip -o link | cut -d: -f2 | cut -d@ -f1"), " lo\n eth0");
    let _server = listen(&node.world.outside, "0.0.0.0:80").await;
    for to in [OUTSIDE, HOST, node.gateway(), Ipv4Addr::new(169, 254, 169, 254)] {
        let error = connect(&internal.netns, (to, 80)).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{to}");
    }
}

#[tokio::test]
async fn processes_of_the_host_and_its_containers_reach_published_ports_only() {
    let mesh = Mesh::new().await;
    let host = &mesh.world.host;
    let _other = listen(&mesh.task.netns, "0.0.0.0:81").await;
    for to in [(VIP, 80), (VIP, 81), (TASK, 80), (TASK, 81)] {
        let before = dropped(host, NOT_PUBLISHED);
        // The host's own attempt fails at once, because its own rule refuses it.
        assert!(connect(host, to).await.is_err(), "{to:?}");
        assert!(dropped(host, NOT_PUBLISHED) > before, "{to:?}");
    }
    // The task is on that network itself, hence another container.
    let other = container(&mesh.host, "other").await;
    for to in [(VIP, 80), (TASK, 81)] {
        let before = dropped(host, NOT_PUBLISHED);
        assert!(is_silent(&other.netns, to).await, "{to:?}");
        assert!(dropped(host, NOT_PUBLISHED) > before, "{to:?}");
    }
    connect(host, (HOST, 8080)).await.unwrap();
    connect(&other.netns, (HOST, 8080)).await.unwrap();
}
