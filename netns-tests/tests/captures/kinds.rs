//! Each kind of traffic on a sealed network and, the same, on a plain one.

use crate::stage::{Container, PORT, Stage};
use anyhow::{Context, Result, ensure};
use netns_tests::lab::{CLIENT, Lab, eventually};
use netns_tests::marker::Marker;
use netns_tests::talk::{self, Murmur};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const DATA_PATH_PORT: u16 = 4789;
/// Sessions are renewed after 120 s.
const BEYOND_A_SESSION: Duration = Duration::from_secs(128);
const BULK: usize = 8 << 20;
/// What a container sends where a packet holds it.
const SMALL: usize = 1000;

/// Containers on n2 and n3 and a service on n3, all of one network.
struct Network {
    name: &'static str,
    near: Container,
    far: Container,
    vip: SocketAddrV4,
}

impl Network {
    fn new(stage: &Stage, name: &'static str, options: &[&str]) -> Result<Self> {
        stage.create_network(name, options)?;
        let near = Container::new(&stage.lab, "n2", name, &format!("{name}near"))?;
        let far = Container::new(&stage.lab, "n3", name, &format!("{name}far"))?;
        let on_n3 = ["--constraint", "node.hostname==n3"];
        let vip = stage.echo_service(&format!("{name}svc"), name, &on_n3)?;
        Ok(Self { name, near, far, vip })
    }
}

type Play = fn(&Lab, &Network, &Marker) -> Result<()>;

/// The kinds of traffic: each from n2 to n3 and back.
const KINDS: &[(&str, Play)] = &[
    ("datagrams", |_, on, marker| talk::udp(&on.near.netns, on.far.addr, &marker.payload(SMALL))),
    ("datagrams of 8 KiB in fragments", |_, on, marker| {
        talk::udp(&on.near.netns, on.far.addr, &marker.payload(8 << 10))
    }),
    ("datagrams of 60 KiB in fragments", |_, on, marker| {
        talk::udp(&on.near.netns, on.far.addr, &marker.payload(60 << 10))
    }),
    ("datagrams as one super-frame", |_, on, marker| {
        talk::udp_at_once(&on.near.netns, on.far.addr, &marker.payload(30 * SMALL), SMALL as u16)
    }),
    ("a few words over TCP", |_, on, marker| talk::tcp(&on.near.netns, on.far.addr, &marker.payload(100))),
    ("TCP super-frames", |_, on, marker| talk::tcp(&on.near.netns, on.far.addr, &marker.payload(BULK))),
    ("TCP to a VIP", |_, on, marker| talk::tcp(&on.near.netns, on.vip, &marker.payload(BULK / 16))),
    ("UDP to a VIP", |_, on, marker| talk::udp(&on.near.netns, on.vip, &marker.payload(SMALL))),
    ("ping", ping),
    ("a DNS server in a container", dns),
    ("skep run, by a service's name", skep_run),
    ("after ARP was forgotten", |_, on, marker| {
        on.near.netns.run("ip neigh flush all")?;
        on.far.netns.run("ip neigh flush all")?;
        talk::udp(&on.near.netns, on.far.addr, &marker.payload(SMALL))
    }),
];

fn ping(_: &Lab, on: &Network, marker: &Marker) -> Result<()> {
    on.near.netns.run(&format!("ping -c 3 -i 0.2 -W 5 -s {SMALL} -p {marker} {}", on.far.addr.ip()))?;
    Ok(())
}

/// A question with the marker in a label, and an answer with it in a TXT record (RFC 1035 §4.1).
fn dns(_: &Lab, on: &Network, marker: &Marker) -> Result<()> {
    let port = SocketAddrV4::new(*on.far.addr.ip(), 53);
    let server = on.far.netns.enter(|| UdpSocket::bind(port))??;
    let client = on.near.netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    server.set_read_timeout(Some(Duration::from_secs(1)))?;
    let label = [&[32][..], &marker.payload(32), &[0]].concat();
    let question = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &label, &[0, 16, 0, 1]].concat();
    let record = [&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 65, 64][..], &marker.payload(64)].concat();
    let mut buffer = [0; 512];
    for _ in 0..10 {
        client.send_to(&question, port)?;
        let Ok((len, from)) = server.recv_from(&mut buffer) else { continue };
        ensure!(buffer[..len] == question, "another question arrived");
        let mut answer = [&question[..], &record].concat();
        (answer[2], answer[7]) = (0x81, 1);
        server.send_to(&answer, from)?;
        if client.recv(&mut buffer).is_ok_and(|len| buffer[..len] == answer) {
            return Ok(());
        }
    }
    anyhow::bail!("no question was answered")
}

fn skep_run(lab: &Lab, on: &Network, marker: &Marker) -> Result<()> {
    let file = lab.program(&format!("{}-words", on.name));
    fs::write(&file, marker.payload(100_000))?;
    let ask = format!("socat -t 10 - TCP4:{}svc:{PORT},connect-timeout=10 < {file} | cmp - {file}", on.name);
    lab.exec("n2", &["skep", "run", "--rm", "--network", on.name, "host", "sh", "-c", &ask]).map(|_| ())
}

#[test]
fn no_kind_of_traffic_shows_on_a_sealed_network_and_every_kind_does_on_a_plain_one() -> Result<()> {
    let stage = Stage::new(3, &[], DATA_PATH_PORT)?;
    let sealed = Network::new(&stage, "sealed", &[])?;
    let plain = Network::new(&stage, "plain", &["--opt", "encrypted=false"])?;
    stage.sealed("sessions are renewed in mid-flow", |marker| {
        let began = Instant::now();
        let udp = Murmur::udp(&sealed.near.netns, vec![sealed.far.addr], marker.payload(SMALL))?;
        let before = rekeys(&stage.lab)?;
        for (title, play) in KINDS {
            stage.sealed(title, |marker| play(&stage.lab, &sealed, marker))?;
            stage.plain(title, |marker| play(&stage.lab, &plain, marker))?;
        }
        stage.sealed("a service is scaled in mid-flow", |marker| scale(&stage, &sealed, marker))?;
        forge(&stage, &sealed, &plain)?;
        side_by_side(&stage, &sealed, &plain)?;
        std::thread::sleep(BEYOND_A_SESSION.saturating_sub(began.elapsed()));
        eventually(Duration::from_secs(40), "n2 has renewed its session", || {
            Ok(rekeys(&stage.lab)? > before)
        })?;
        udp.until_heard(20, Duration::from_secs(10))?;
        let (said, heard) = (udp.said(), udp.heard());
        println!("{heard} of {said} words were answered across the renewal");
        ensure!(heard * 20 > said * 19, "only {heard} of {said} words were answered");
        Ok(())
    })?;
    stage.lab.expect_drops(&["unsealed", "no_flow", "spoofed_source"]);
    stage.finish()
}

/// Of n2's session with n3.
fn rekeys(lab: &Lab) -> Result<u64> {
    let paths = lab.get_from(2, "/skep/paths")?;
    let paths = paths.as_array().context("paths")?;
    let path = paths.iter().find(|path| path["Hostname"] == "n3").context("a path to n3")?;
    path["Rekeys"].as_u64().context("a number of rekeys")
}

fn scale(stage: &Stage, on: &Network, marker: &Marker) -> Result<()> {
    let lab = &stage.lab;
    let words = marker.payload(4 * SMALL);
    let tcp = Murmur::tcp(on.near.netns.again()?, on.vip, words.clone());
    let udp = Murmur::udp(&on.near.netns, vec![on.vip], words)?;
    for count in [4, 1, 2] {
        lab.skep(&["service", "scale", "-d", &format!("sealedsvc={count}")])?;
        lab.until_running("sealedsvc", count)?;
        tcp.until_heard(10, Duration::from_secs(30))?;
        udp.until_heard(10, Duration::from_secs(30))?;
    }
    Ok(())
}

/// What is said on both networks at once is told apart in the air.
fn side_by_side(stage: &Stage, sealed: &Network, plain: &Network) -> Result<()> {
    stage.sealed("a sealed and a plain network at once", |secret| {
        let hidden = Murmur::udp(&sealed.near.netns, vec![sealed.far.addr], secret.payload(SMALL))?;
        stage.plain("a sealed and a plain network at once", |open| {
            let heard = Murmur::udp(&plain.near.netns, vec![plain.far.addr], open.payload(SMALL))?;
            heard.until_heard(50, Duration::from_secs(30))
        })?;
        hidden.until_heard(50, Duration::from_secs(30))
    })
}

/// Plain VXLAN from a node's own address: heard on the plain network, for which that is all it takes, and never on the
/// sealed one.
fn forge(stage: &Stage, sealed: &Network, plain: &Network) -> Result<()> {
    const ROUNDS: u64 = 20;
    let unsealed =
        || Ok::<_, anyhow::Error>(stage.lab.drops(3)?.get("unsealed").copied().unwrap_or_default());
    let before = unsealed()?;
    for (on, is_heard) in [(plain, true), (sealed, false)] {
        // The forger says the marker in the clear: it has to be seen.
        stage.plain(&format!("forged into the {} one", on.name), |marker| {
            let listener = on.far.netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9999)))??;
            listener.set_read_timeout(Some(Duration::from_millis(500)))?;
            let vni = vni(&stage.lab, on.name)?;
            for _ in 0..ROUNDS {
                inject(&stage.lab, &forged(vni, on, marker))?;
            }
            ensure!(talk::is_silent(&listener)? != is_heard, "on {}: heard is not {is_heard}", on.name);
            Ok(())
        })?;
    }
    ensure!(unsealed()? == before + ROUNDS, "{} of {ROUNDS} are counted as unsealed", unsealed()? - before);
    Ok(())
}

fn vni(lab: &Lab, network: &str) -> Result<u32> {
    let network: serde_json::Value = serde_json::from_str(&lab.skep(&["network", "inspect", network])?)?;
    let vni = network[0]["Options"]["com.docker.network.driver.overlay.vxlanid_list"].as_str();
    Ok(vni.context("a VNI")?.parse()?)
}

/// From n2 to n3, in IPv4 as a raw socket takes it: the kernel fills in length and checksum (raw(7)).
fn forged(vni: u32, on: &Network, marker: &Marker) -> Vec<u8> {
    let (from, to) = (on.near.addr.ip().octets(), on.far.addr.ip().octets());
    let mac = |ip: [u8; 4]| [&[0x02, 0x42][..], &ip].concat();
    let inner = ip(from, to, &udp(PORT, 9999, &marker.payload(SMALL)));
    let frame = [mac(to), mac(from), vec![8, 0], inner].concat();
    let vxlan = [&[8, 0, 0, 0][..], &vni.to_be_bytes()[1..], &[0], &frame].concat();
    ip([192, 168, 77, 2], [192, 168, 77, 3], &udp(DATA_PATH_PORT, DATA_PATH_PORT, &vxlan))
}

fn ip(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let mut header = [&[0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, 17, 0, 0][..], &from, &to].concat();
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header, payload].concat()
}

/// Without a checksum, which IPv4 allows.
fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

/// The outside machine says that it is n2.
fn inject(lab: &Lab, packet: &[u8]) -> Result<()> {
    let raw = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
    let socket = lab.netns(CLIENT)?.enter(raw)??;
    let to = SockaddrIn::new(192, 168, 77, 3, 0);
    sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())?;
    Ok(())
}
