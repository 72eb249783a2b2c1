//! Settings of the kernel that Skep changed are put back when it leaves; others' changes are left to them.

use crate::mesh::plan;
use crate::world::{World, sh};

fn set(world: &World, key: &str, value: u8) {
    sh(&world.host, &format!("sysctl -q {key}={value}"));
}

fn get(world: &World, key: &str) -> String {
    sh(&world.host, &format!("sysctl -n {key}"))
}

const FORWARD: &str = "net.ipv4.ip_forward";
const UPLINK: &str = "net.ipv4.conf.uplink.forwarding";

#[tokio::test]
async fn forwarding_is_put_back_after_a_kill_a_start_and_a_leave() {
    for was in [0, 1] {
        let world = World::new();
        set(&world, FORWARD, was);
        let killed = world.daemon().await;
        let report = killed.apply_mesh(plan()).await.unwrap();
        assert_eq!(get(&world, FORWARD), "1");
        drop((killed, report));

        let host = world.daemon().await;
        host.clear_leftovers().await.unwrap();
        host.ensure_gwbridge().await.unwrap();
        assert_eq!(get(&world, FORWARD), "1");
        host.teardown().await.unwrap();
        assert_eq!(get(&world, FORWARD), was.to_string());
        assert!(!world.record().exists());
    }
}

/// The kernel writes every interface's setting along with the host's.
#[tokio::test]
async fn an_interface_that_forwarded_alone_does_so_again() {
    let world = World::new();
    set(&world, FORWARD, 0);
    set(&world, UPLINK, 1);
    let host = world.daemon().await;
    host.ensure_gwbridge().await.unwrap();
    host.teardown().await.unwrap();
    assert_eq!((get(&world, FORWARD), get(&world, UPLINK)), ("0".to_owned(), "1".to_owned()));
    assert_eq!(get(&world, "net.ipv4.conf.lo.forwarding"), "0");
}

#[tokio::test]
async fn a_setting_somebody_else_changed_meanwhile_is_theirs() {
    let world = World::new();
    set(&world, FORWARD, 1);
    let host = world.daemon().await;
    host.ensure_gwbridge().await.unwrap();
    set(&world, FORWARD, 0);
    host.teardown().await.unwrap();
    assert_eq!(get(&world, FORWARD), "0", "changed without a check in between");

    set(&world, FORWARD, 1);
    host.ensure_gwbridge().await.unwrap();
    set(&world, FORWARD, 0);
    host.recheck().await.unwrap();
    assert_eq!(get(&world, FORWARD), "1", "a member needs it");
    host.teardown().await.unwrap();
    assert_eq!(get(&world, FORWARD), "0");
}

#[tokio::test]
async fn a_damaged_record_keeps_no_daemon_from_starting() {
    let world = World::new();
    std::fs::write(world.record(), "{\"boot\": tr").unwrap();
    let host = world.daemon().await;
    host.clear_leftovers().await.unwrap();
    host.ensure_gwbridge().await.unwrap();
    host.teardown().await.unwrap();
}
