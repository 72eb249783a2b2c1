//! A daemon leaves the host as it found it, its killed predecessor's things included.

use crate::mesh::plan;
use crate::world::World;
use skep_agent::host::{SandboxNetns, SandboxSpec};

fn container() -> SandboxSpec {
    let id = "a".to_owned();
    SandboxSpec { id, netns: SandboxNetns::New, interfaces: Vec::new(), egress: true, dns: true }
}

#[tokio::test]
async fn teardown_leaves_the_host_as_it_was() {
    let world = World::new();
    let (before, forward) = (world.kernel_state(), world.ip_forward());
    let host = world.daemon().await;
    let _sandbox = host.create_sandbox(container()).await.unwrap();
    let _report = host.apply_mesh(plan()).await.unwrap();
    assert_ne!(world.kernel_state(), before);
    assert_eq!(world.ip_forward(), "1");
    host.teardown().await.unwrap();
    assert_eq!(world.kernel_state(), before);
    assert_eq!(world.ip_forward(), forward);
    assert!(!world.record().exists());
    crate::world::listen(&world.host, "0.0.0.0:8080").await;
}

#[tokio::test]
async fn a_starting_daemon_clears_what_a_killed_one_left() {
    let world = World::new();
    let (before, forward) = (world.kernel_state(), world.ip_forward());
    let killed = world.daemon().await;
    let sandbox = killed.create_sandbox(container()).await.unwrap();
    let report = killed.apply_mesh(plan()).await.unwrap();
    drop((killed, report));

    let host = world.daemon().await;
    host.clear_leftovers().await.unwrap();
    assert_eq!(world.kernel_state(), before);
    assert_eq!(world.ip_forward(), forward);
    host.clear_leftovers().await.expect("there may also be nothing to clear");
    drop(sandbox);
}
