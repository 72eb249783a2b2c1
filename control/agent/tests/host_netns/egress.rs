//! Containers reach the world as their host, and not each other.

use crate::world::{HOST, OUTSIDE, World, connect, is_silent, listen, sh};
use skep_agent::host::{Host, Sandbox, SandboxNetns, SandboxSpec};

pub(crate) async fn container(host: &Host, id: &str) -> Sandbox {
    let id = id.to_owned();
    let spec = SandboxSpec { id, netns: SandboxNetns::New, interfaces: Vec::new(), egress: true, dns: false };
    host.create_sandbox(spec).await.unwrap()
}

#[tokio::test]
async fn a_container_is_seen_outside_as_its_host() {
    let world = World::new();
    let host = world.daemon().await;
    let container = container(&host, "a").await;
    let server = listen(&world.outside, "0.0.0.0:80").await;
    let _client = connect(&container.netns, (OUTSIDE, 80)).await.unwrap();
    let (_, seen) = server.accept().unwrap();
    assert_eq!(seen.ip(), HOST);
    host.remove_sandbox(container).await.unwrap();
}

#[tokio::test]
async fn containers_cannot_reach_each_other_over_the_bridge() {
    let world = World::new();
    let host = world.daemon().await;
    let (a, b) = (container(&host, "a").await, container(&host, "b").await);
    let addr = b.egress().unwrap().addr.addr();
    let _server = listen(&b.netns, "0.0.0.0:80").await;
    connect(&world.host, (addr, 80)).await.expect("the server is there, its host reaches it");

    // ARP for an isolated port's neighbour gets no answer.
    let attempt = connect(&a.netns, (addr, 80)).await.unwrap_err();
    assert!(matches!(attempt.raw_os_error(), Some(libc::EHOSTUNREACH) | None), "{attempt}");
    // Nor does the host route between the two, when a container makes it its gateway.
    let gateway = a.egress().unwrap().gateway;
    sh(&a.netns, &format!("ip route add {addr}/32 via {gateway}"));
    assert!(is_silent(&a.netns, (addr, 80)).await);
}

#[tokio::test]
async fn nobody_outside_reaches_a_container_by_its_egress_address() {
    let world = World::new();
    let host = world.daemon().await;
    let container = container(&host, "a").await;
    let addr = container.egress().unwrap().addr.addr();
    let _server = listen(&container.netns, "0.0.0.0:80").await;
    sh(&world.outside, &format!("ip route add {addr}/32 via {HOST}"));
    assert!(is_silent(&world.outside, (addr, 80)).await);
    sh(&world.host, "nft flush chain inet skep guard_forward");
    connect(&world.outside, (addr, 80)).await.expect("only the guard was in the way");
}

#[tokio::test]
async fn a_container_cannot_send_with_an_address_that_is_not_its_bridge_s() {
    let world = World::new();
    let host = world.daemon().await;
    let container = container(&host, "a").await;
    let _server = listen(&world.outside, "0.0.0.0:80").await;
    let name = &container.egress().unwrap().name;
    sh(
        &container.netns,
        &format!(
            "ip addr add 10.0.0.9/32 dev {name}; ip route replace default dev {name} via {} src 10.0.0.9",
            container.egress().unwrap().gateway
        ),
    );
    sh(&world.host, "ip route add 10.0.0.9/32 dev skep_gwbridge");
    sh(&world.outside, &format!("ip route add 10.0.0.9/32 via {HOST}"));
    assert!(is_silent(&container.netns, (OUTSIDE, 80)).await);
    sh(
        &world.host,
        "nft delete table bridge skep; nft flush chain inet skep raw_in; nft flush chain inet skep guard_forward",
    );
    connect(&container.netns, (OUTSIDE, 80)).await.expect("only the rules were in the way");
}

#[tokio::test]
async fn the_bridge_keeps_clear_of_the_host_s_routes_and_keeps_its_subnet() {
    let world = World::new();
    sh(&world.host, &format!("ip route add 172.18.0.0/15 via {OUTSIDE}"));
    let host = world.daemon().await;
    let subnet = host.ensure_gwbridge().await.unwrap();
    assert_eq!(subnet.to_string(), "172.20.0.0/16");
    assert_eq!(host.ensure_gwbridge().await.unwrap(), subnet);
    let facts = host.facts().await.unwrap();
    assert!(!facts.routed.contains(&subnet), "our own subnet is no fact about the host");
    assert!(facts.routed_with(Some(subnet)).contains(&subnet), "but nobody else may have it");
}

#[tokio::test]
async fn containers_survive_the_deletion_of_the_bridge() {
    let world = World::new();
    let host = world.daemon().await;
    let container = container(&host, "a").await;
    sh(&world.host, "ip link del skep_gwbridge");
    host.ensure_gwbridge().await.unwrap();
    let _server = listen(&world.outside, "0.0.0.0:80").await;
    connect(&container.netns, (OUTSIDE, 80)).await.unwrap();
}
