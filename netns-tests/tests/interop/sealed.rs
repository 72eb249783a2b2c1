//! A kernel's vxlan device on the port takes nothing that is sealed for a frame, whatever extensions it understands:
//! not what two engines really say to each other, and nothing with the mark made by hand.

use anyhow::{Context, Result, ensure};
use netns_tests::capture::{Wire, udp};
use netns_tests::lab::eventually;
use netns_tests::{Netns, transfer};
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::io::{Handle, Tap, TapOptions, Worker, WorkerConfig};
use skep_dataplane::seal::{Identity, SecretKey, Suite};
use skep_dataplane::snapshot::{Endpoint, EndpointKind, Location, Network, Peer, Policy, Snapshot};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

const LEFT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const DATA_PATH_PORT: u16 = 4789;
const VNI: u32 = 42;
const PORT: PortId = PortId(1);
/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first word of what is sealed, and of a plain frame.
const SEALED: [u8; 4] = [0; 4];
const PLAIN: [u8; 4] = [8, 0, 0, 0];
/// Where the inner datagram made by hand goes.
const INNER_PORT: u16 = 9999;
/// What a device can be told to understand beyond RFC 7348: group policy, remote checksum offload.
const EXTENSIONS: [&str; 4] = ["", "gbp", "udpcsum remcsumtx remcsumrx", "gbp udpcsum remcsumtx remcsumrx"];

#[test]
fn a_kernel_vxlan_device_drops_what_is_sealed_whatever_extensions_it_has() -> Result<()> {
    let recorded = record()?;
    let frames = recorded.iter().filter(|datagram| vni(datagram) == VNI).count();
    println!("{} datagrams were recorded, {frames} of them frames", recorded.len());
    ensure!(frames >= 20 && recorded.len() - frames >= 10, "too few for a proof");
    for extension in EXTENSIONS {
        // Frames carry their network's number, everything else zero.
        for id in [VNI, 0] {
            replay(&recorded, id, extension).with_context(|| format!("vxlan id {id} `{extension}`"))?;
        }
    }
    Ok(())
}

fn replay(recorded: &[Vec<u8>], id: u32, extension: &str) -> Result<()> {
    let (left, right) = underlay()?;
    right.run(&format!(
        "ip link add vx0 address {} type vxlan id {id} dstport {DATA_PATH_PORT} local {RIGHT} nolearning {extension}",
        MacAddr::for_ip(container(RIGHT))
    ))?;
    right.run(&format!("ip addr add {}/24 dev vx0", container(RIGHT)))?;
    right.run("ip link set vx0 up")?;
    let inside = right.enter(|| UdpSocket::bind((container(RIGHT), INNER_PORT)))??;
    inside.set_read_timeout(Some(PATIENCE))?;
    let socket = left.enter(|| UdpSocket::bind((LEFT, DATA_PATH_PORT)))??;
    let send = |datagram: &[u8]| socket.send_to(datagram, (RIGHT, DATA_PATH_PORT)).map(|_| ());
    for datagram in recorded {
        send(datagram)?;
        // As if it were of the device's network.
        send(&[&datagram[..4], &id.to_be_bytes()[1..], &datagram[7..]].concat())?;
    }
    for mark in 1..=u8::MAX {
        send(&made_by_hand(SEALED, id, mark))?;
    }
    // The same as a plain frame is taken, and tells that the device has seen those before it.
    send(&made_by_hand(PLAIN, id, 0))?;
    let mut heard = [0; 16];
    let len = inside.recv(&mut heard).context("a plain frame is taken")?;
    ensure!(heard[..len] == [0], "a frame with the mark {:02x?} was taken", &heard[..len]);
    let received = right.received("vx0")?;
    ensure!(received == 1, "the device took {received} frames");
    Ok(())
}

/// A header with that mark around a frame that the device would take, which says the mark.
fn made_by_hand(flags: [u8; 4], vni: u32, mark: u8) -> Vec<u8> {
    let vxlan = [&flags[..], &vni.to_be_bytes()[1..], &[mark]].concat();
    let macs = [RIGHT, LEFT].map(|vtep| MacAddr::for_ip(container(vtep)).0).concat();
    let mut ip = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(container(LEFT).octets());
    ip.extend(container(RIGHT).octets());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let [high, low] = INNER_PORT.to_be_bytes();
    [&vxlan, &macs, &[8, 0][..], &ip, &[0, 7, high, low, 0, 9, 0, 0, mark]].concat()
}

/// Everything that goes from one engine to another while their containers talk, from their first words on.
fn record() -> Result<Vec<Vec<u8>>> {
    let (left, right) = underlay()?;
    let (left_box, right_box) = (Netns::new()?, Netns::new()?);
    let mut wire = Wire::of(&right)?;
    let (left_handle, right_handle) =
        (engine(&left, LEFT, RIGHT, &left_box)?, engine(&right, RIGHT, LEFT, &right_box)?);
    eventually(PATIENCE, "each to answer the other", || {
        let answers = |handle: &Handle| Ok::<_, anyhow::Error>(handle.stats()?.engine.paths[0].answered > 0);
        Ok(answers(&left_handle)? && answers(&right_handle)?)
    })?;
    transfer::udp_segments(20, 1000, &left_box, &right_box, container(RIGHT))?;
    transfer::udp_echo(10_000, &left_box, &right_box, container(RIGHT))?;
    let mut recorded = Vec::new();
    while let Some(frame) = wire.hear()? {
        let datagram = udp(frame.bytes).filter(|datagram| datagram.to_port == DATA_PATH_PORT);
        recorded.extend(datagram.map(|datagram| datagram.payload.to_vec()));
    }
    let is_marked = |datagram: &Vec<u8>| datagram[..4] == SEALED && datagram[7] == 1;
    ensure!(recorded.iter().all(is_marked), "all of it is marked as sealed");
    Ok(recorded)
}

fn engine(host: &Netns, vtep: Ipv4Addr, peer: Ipv4Addr, inside: &Netns) -> Result<Handle> {
    let (context, entropy) = (Vec::new(), [vtep.octets()[3]; 32].into());
    let identity = Identity { key: key(vtep), suite: Suite::default(), context, entropy };
    let config = WorkerConfig { vtep, port: DATA_PATH_PORT, seed: 1, identity };
    let handle = host.enter(|| Worker::spawn(config, |_| ()))??;
    let tap = inside.enter(|| Tap::open(&TapOptions { name: "eth0".to_owned(), offloads: true }))??;
    let own = container(vtep);
    inside.run(&format!("ip link set eth0 address {} mtu 1418 up", MacAddr::for_ip(own)))?;
    inside.run(&format!("ip addr add {own}/24 dev eth0"))?;
    handle.attach(PORT, tap)?;
    let endpoint = |ip: Ipv4Addr, location| Endpoint {
        ip,
        mac: MacAddr::for_ip(ip),
        location,
        kind: EndpointKind::Container,
    };
    let network = Network {
        vni: Vni::new(VNI).context("a VNI")?,
        policy: Policy::Sealed,
        subnet: "10.9.0.0/24".parse()?,
        gateway: Ipv4Addr::new(10, 9, 0, 254),
        mtu: 1418,
        endpoints: vec![
            endpoint(own, Location::Local(PORT)),
            endpoint(container(peer), Location::Remote(peer)),
        ],
        services: Vec::new(),
        ingress: false,
    };
    let peers = vec![Peer { vtep: peer, key: key(peer).public() }];
    handle.publish(Arc::new(Snapshot { networks: vec![network], peers, ..Snapshot::default() }))?;
    Ok(handle)
}

/// Of the node with that VTEP.
fn container(vtep: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, vtep.octets()[3])
}

fn key(vtep: Ipv4Addr) -> SecretKey {
    SecretKey::from_bytes([vtep.octets()[3]; 32].into())
}

fn vni(datagram: &[u8]) -> u32 {
    u32::from_be_bytes([0, datagram[4], datagram[5], datagram[6]])
}

fn underlay() -> Result<(Netns, Netns)> {
    let (left, right) = (Netns::new()?, Netns::new()?);
    left.veth("underlay", &right, "underlay")?;
    left.run("ip addr add 192.168.77.1/24 dev underlay")?;
    right.run("ip addr add 192.168.77.2/24 dev underlay")?;
    // Each datagram is to be heard by itself, as it would be on a wire, and not a run of them (UDP_SEGMENT).
    for end in [&left, &right] {
        end.run("ethtool -K underlay tx-udp-segmentation off")?;
    }
    Ok((left, right))
}
