//! TAPs and the packet thread against the kernel.

use anyhow::{Context, Result};
use netns_tests::{Netns, require_root};
use skep_dataplane::ids::PortId;
use skep_dataplane::io::{AttachError, Handle, Tap, TapError, TapOptions, Worker, WorkerConfig};
use skep_dataplane::seal::{Identity, SecretKey, Suite};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

const PORT: PortId = PortId(7);

#[test]
fn a_tap_is_in_the_namespace_it_was_opened_in_and_ends_with_its_port() -> Result<()> {
    let (host, container) = (Netns::new()?, Netns::new()?);
    let handle = worker(&host)?;
    handle.attach(PORT, open(&container, "eth0")?)?;
    assert!(container.run("ip -o link")?.contains("eth0"));
    assert!(!host.run("ip -o link")?.contains("eth0"));
    handle.detach(PORT)?;
    assert!(!container.run("ip -o link")?.contains("eth0"));
    Ok(())
}

#[test]
fn a_port_has_one_tap() -> Result<()> {
    let (host, container) = (Netns::new()?, Netns::new()?);
    let handle = worker(&host)?;
    handle.attach(PORT, open(&container, "eth0")?)?;
    let second = handle.attach(PORT, open(&container, "eth1")?);
    assert!(matches!(second, Err(AttachError::PortTaken(PORT))), "{second:?}");
    Ok(())
}

#[test]
fn a_taken_name_is_said_to_be_taken() -> Result<()> {
    let container = Netns::new()?;
    container.run("ip link add eth0 type veth peer name eth1")?;
    let result = container.enter(|| Tap::open(&TapOptions { name: "eth0".to_owned(), offloads: true }))?;
    assert!(matches!(&result, Err(TapError::Taken(name)) if name == "eth0"), "{result:?}");
    Ok(())
}

/// A TAP's descriptor reports an error for ever once its interface is gone.
#[test]
fn a_deleted_interface_does_not_keep_the_packet_thread_busy() -> Result<()> {
    let (host, container) = (Netns::new()?, Netns::new()?);
    let handle = worker(&host)?;
    handle.attach(PORT, open(&container, "eth0")?)?;
    container.run("ip link del eth0")?;
    handle.stats()?;
    let before = packet_threads_cpu()?;
    // The span the busy time is measured over.
    std::thread::sleep(Duration::from_millis(300));
    let busy = packet_threads_cpu()? - before;
    assert!(busy < 10, "{busy} of 30 ticks");
    handle.detach(PORT)?;
    Ok(())
}

fn worker(host: &Netns) -> Result<Handle> {
    // Without peers, so that any key serves.
    let identity = Identity {
        key: SecretKey::from_bytes(Default::default()),
        suite: Suite::default(),
        context: Vec::new(),
        entropy: Default::default(),
    };
    let config = WorkerConfig { vtep: Ipv4Addr::LOCALHOST, port: 4789, seed: 1, identity };
    Ok(host.enter(|| Worker::spawn(config, |_| ()))??)
}

fn open(netns: &Netns, name: &str) -> Result<Tap> {
    require_root();
    Ok(netns.enter(|| Tap::open(&TapOptions { name: name.to_owned(), offloads: true }))??)
}

/// Ticks (10 ms) that this process's packet threads have run: fields 14 and 15 of proc_pid_stat(5).
fn packet_threads_cpu() -> Result<u64> {
    let mut ticks = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else {
            continue;
        };
        let (name, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
        if name.ends_with("skep-packets") {
            let fields: Vec<&str> = fields.split_whitespace().collect();
            ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        }
    }
    Ok(ticks)
}
