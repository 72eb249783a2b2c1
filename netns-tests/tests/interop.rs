//! The engine against the kernel's own VXLAN: the `static` example on one side, a vxlan device on the other.
//!
//! ```text
//! box (container)            left (VTEP 192.168.77.1)     right (VTEP 192.168.77.2)
//! eth0 10.9.0.1, a TAP ----- the static example --------- vx0 10.9.0.2, vxlan id 42
//! ```

#[path = "interop/sealed.rs"]
mod sealed;

use anyhow::{Context, Result};
use netns_tests::{Netns, Running, example, run, transfer};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const BOX: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// A datagram that takes three fragments.
const FRAGMENTED: usize = 4000;
const START: Duration = Duration::from_secs(10);

#[test]
fn ping_passes_both_ways() -> Result<()> {
    for offloads in [true, false] {
        let lab = Lab::new(offloads)?;
        lab.container.run("ping -c 3 -i 0.2 -W 2 10.9.0.2").with_context(|| lab.describe())?;
        lab.right.run("ping -c 3 -i 0.2 -W 2 10.9.0.1").with_context(|| lab.describe())?;
    }
    Ok(())
}

#[test]
fn a_200_mb_transfer_arrives_unchanged_with_offloads() -> Result<()> {
    transfer_both_ways(true)
}

#[test]
fn a_200_mb_transfer_arrives_unchanged_without_offloads() -> Result<()> {
    transfer_both_ways(false)
}

#[test]
fn udp_larger_than_the_mtu_arrives_in_fragments() -> Result<()> {
    for offloads in [true, false] {
        let lab = Lab::new(offloads)?;
        transfer::udp_echo(FRAGMENTED, &lab.container, &lab.right, KERNEL).with_context(|| lab.describe())?;
        transfer::udp_echo(FRAGMENTED, &lab.right, &lab.container, BOX).with_context(|| lab.describe())?;
    }
    Ok(())
}

#[test]
fn a_udp_super_frame_arrives_as_its_datagrams() -> Result<()> {
    for offloads in [true, false] {
        let lab = Lab::new(offloads)?;
        transfer::udp_segments(40, 1400, &lab.container, &lab.right, KERNEL)
            .with_context(|| lab.describe())?;
    }
    Ok(())
}

#[test]
fn an_interrupted_example_leaves_no_interface() -> Result<()> {
    let lab = Lab::new(true)?;
    lab.example.interrupt()?;
    let links = lab.container.run("ip -o link")?;
    assert!(!links.contains("eth0"), "{links}");
    Ok(())
}

#[test]
fn a_kernel_vxlan_device_on_the_port_is_named() -> Result<()> {
    let host = Netns::new()?;
    host.run("ip addr add 192.168.77.1/24 dev lo")?;
    host.run("ip link add intruder type vxlan id 7 dstport 4789 local 192.168.77.1")?;
    host.run("ip link set intruder up")?;
    let dir = TempDir::new()?;
    let container = Netns::new()?;
    let mut example = start_example(&host, &container, dir.path(), true)?;
    let error = example.wait_for_line("4789", START)?;
    assert!(error.contains("the kernel's vxlan interface `intruder`"), "{error}");
    Ok(())
}

struct Lab {
    container: Netns,
    left: Netns,
    right: Netns,
    example: Running,
    offloads: bool,
    _dir: TempDir,
}

impl Lab {
    fn new(offloads: bool) -> Result<Self> {
        let (container, left, right) = (Netns::new()?, Netns::new()?, Netns::new()?);
        left.veth("underlay", &right, "underlay")?;
        left.run("ip addr add 192.168.77.1/24 dev underlay")?;
        right.run("ip addr add 192.168.77.2/24 dev underlay")?;
        as_on_a_wire(&right)?;
        kernel_vtep(&right)?;
        let dir = TempDir::new()?;
        let mut example = start_example(&left, &container, dir.path(), offloads)?;
        example.wait_for_line("ready", START)?;
        Ok(Self { container, left, right, example, offloads, _dir: dir })
    }

    fn describe(&self) -> String {
        let underlay = self.left.run("ip -s link show underlay").unwrap_or_default();
        format!("TAP offloads: {}\nunderlay at the example's side:\n{underlay}", self.offloads)
    }
}

/// A vxlan device leaves the inner checksum and segmentation to the interface below it. A network card does that
/// work before the wire; a veth never does, and hands inner packets with half a checksum to whoever reads the
/// socket at its other end, who cannot tell.
fn as_on_a_wire(host: &Netns) -> Result<()> {
    host.run("ethtool -K underlay tx off").map(|_| ())
}

/// Nothing is learned or flooded on Skep's side, so the kernel's neighbour and FDB entries are static too.
fn kernel_vtep(host: &Netns) -> Result<()> {
    for line in [
        "ip link add vx0 address 02:42:0a:09:00:02 type vxlan id 42 dstport 4789 local 192.168.77.2 nolearning",
        "ip addr add 10.9.0.2/24 dev vx0",
        "ip link set vx0 mtu 1450 up",
        "ip neigh add 10.9.0.1 lladdr 02:42:0a:09:00:01 dev vx0",
        "bridge fdb add 02:42:0a:09:00:01 dev vx0 dst 192.168.77.1",
    ] {
        host.run(line)?;
    }
    Ok(())
}

fn start_example(host: &Netns, container: &Netns, dir: &Path, offloads: bool) -> Result<Running> {
    let config = dir.join("static.toml");
    let netns = container.path();
    let text = format!(
        r#"
        address = "192.168.77.1"

        [[network]]
        vni = 42
        subnet = "10.9.0.0/24"
        mtu = 1450

        [[network.endpoint]]
        ip = "{BOX}"
        local = {{ netns = "{}", ifname = "eth0", offloads = {offloads} }}

        [[network.endpoint]]
        ip = "{KERNEL}"
        vtep = "192.168.77.2"
        "#,
        netns.display()
    );
    fs::write(&config, text)?;
    let program = example("skep-dataplane", "static")?;
    Running::start(host.command(program.to_str().context("a path in UTF-8")?).arg(config))
}

fn transfer_both_ways(offloads: bool) -> Result<()> {
    let lab = Lab::new(offloads)?;
    let dir = TempDir::new()?;
    let file = dir.path().join("random");
    run(Command::new("dd").arg(format!("of={}", file.display())).args([
        "if=/dev/urandom",
        "bs=1M",
        "count=200",
        "status=none",
    ]))?;
    transfer::tcp(&file, &lab.container, &lab.right, KERNEL).with_context(|| lab.describe())?;
    transfer::tcp(&file, &lab.right, &lab.container, BOX).with_context(|| lab.describe())
}
