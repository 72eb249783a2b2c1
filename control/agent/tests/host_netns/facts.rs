//! What the host says about itself, and what it lacks.

use crate::mesh::plan;
use crate::world::{HOST, OUTSIDE, World, sh};
use caps::{CapSet, Capability};
use skep_agent::host::{Host, HostAddress, HostConfig, HostError};
use std::net::IpAddr;

#[tokio::test]
async fn facts_tell_of_the_host_and_nothing_of_ours() {
    let world = World::new();
    sh(
        &world.host,
        &format!("ip link set uplink mtu 1400; ip route add 198.51.100.0/24 via {OUTSIDE} table 42"),
    );
    let host = world.daemon().await;
    let before = host.facts().await.unwrap();
    host.ensure_gwbridge().await.unwrap();
    let _report = host.apply_mesh(plan()).await.unwrap();
    assert_eq!(host.facts().await.unwrap(), before);

    let uplink =
        HostAddress { interface: "uplink".to_owned(), addr: "192.0.2.1/24".parse().unwrap(), mtu: 1400 };
    assert_eq!(before.addresses, [uplink]);
    assert_eq!(before.mtu_of(HOST), Some(1400));
    assert_eq!(before.mtu_of(OUTSIDE), None);
    assert_eq!(before.routed, ["192.0.2.0/24".parse().unwrap(), "198.51.100.0/24".parse().unwrap()]);
    assert_eq!(before.resolvers, ["192.0.2.53".parse::<IpAddr>().unwrap()]);
    assert_eq!(before.search, ["example.org"]);
}

#[tokio::test]
async fn a_daemon_without_privileges_says_what_to_do() {
    // Capabilities are a thread's own, and this one is not used for anything else.
    let opened = std::thread::spawn(|| {
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Host::open(HostConfig::default()))
    });
    let Err(HostError::Missing(missing)) = opened.join().unwrap() else { panic!("it opened") };
    let expected = "skepd lacks CAP_NET_ADMIN: run it as root, or grant it these capabilities";
    assert!(missing.contains(&expected.to_owned()), "{missing:?}");
}
