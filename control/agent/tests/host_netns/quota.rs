//! One container can't take the host's connection table from the others.

use crate::egress::container;
use crate::world::{OUTSIDE, World, connect, dropped, listen, sh};
use skep_agent::host::{EGRESS_CONNECTIONS, HostConfig};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddrV4};

const TOO_MANY: &str = "container has too many connections";
/// Nobody answers there.
const SILENT: u16 = 99;

/// The outside machine takes what comes for [`SILENT`], whoever it is for.
fn swallow_questions(world: &World) {
    sh(
        &world.outside,
        &format!(
            "nft add table ip quiet; nft add chain ip quiet early '{{ type filter hook prerouting priority -300; }}'
             nft add rule ip quiet early tcp dport {SILENT} drop"
        ),
    );
}

fn tracked(world: &World) -> u64 {
    sh(&world.host, "cat /proc/sys/net/netfilter/nf_conntrack_count").parse().unwrap()
}

/// Opens `connections` that nobody answers, at full speed.
fn flood(connections: u32) -> std::io::Result<()> {
    for n in 0..connections {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let [_, a, b, c] = n.to_be_bytes();
        // Source ports are few; destinations aren't.
        let to = SocketAddrV4::new(Ipv4Addr::new(198, 18 + a % 2, b, c), SILENT);
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_flooding_container_fills_its_own_share_and_no_more() {
    const LIMIT: u32 = 100;
    let world = World::new();
    swallow_questions(&world);
    let host = world.daemon_with(|config| HostConfig { egress_connections: LIMIT, ..config }).await;
    let (hostile, other) = (container(&host, "a").await, container(&host, "b").await);
    let _server = listen(&world.outside, "0.0.0.0:80").await;
    let kept = connect(&hostile.netns, (OUTSIDE, 80)).await.unwrap();

    hostile.netns.run(|| flood(LIMIT * 20)).await.unwrap();
    let full = tracked(&world);
    assert!(full <= u64::from(LIMIT) + 8, "{full} connections are tracked");
    assert!(dropped(&world.host, TOO_MANY) >= u64::from(LIMIT * 19));

    // Replacing the other tables doesn't begin a new count.
    sh(&world.host, "nft delete table inet skep");
    host.recheck().await.unwrap();
    hostile.netns.run(|| flood(LIMIT * 2)).await.unwrap();
    assert!(tracked(&world) <= full + 8);

    for _ in 0..LIMIT / 2 {
        connect(&other.netns, (OUTSIDE, 80)).await.expect("the others don't notice");
    }
    connect(&world.host, (OUTSIDE, 80)).await.expect("nor does the host");
    use std::io::Write;
    (&kept).write_all(b"x").expect("what the flooding container had open before goes on");
}

#[tokio::test]
async fn the_default_share_holds_in_a_flood() {
    let world = World::new();
    swallow_questions(&world);
    let host = world.daemon().await;
    let hostile = container(&host, "a").await;
    // The bridge begins to forward for a new port when it has noticed that it is up.
    let _server = listen(&world.outside, "0.0.0.0:80").await;
    connect(&hostile.netns, (OUTSIDE, 80)).await.unwrap();
    hostile.netns.run(|| flood(EGRESS_CONNECTIONS * 3)).await.unwrap();
    let full = tracked(&world);
    assert!(full <= u64::from(EGRESS_CONNECTIONS) + 8, "{full} connections are tracked");
    assert!(full >= u64::from(EGRESS_CONNECTIONS) / 2, "the flood reached its limit: {full}");
}
