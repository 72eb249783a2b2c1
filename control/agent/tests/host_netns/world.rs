//! A host and an outside machine as anonymous namespaces, joined by a veth.

use skep_agent::host::netns::Netns;
use skep_agent::host::{Host, HostConfig, Underlay};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
pub(crate) const DATA_PATH_PORT: u16 = 4789;
pub(crate) const CONTROL_PORT: u16 = 2377;
/// Longer than anything here takes; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// For what must not happen: how long it is given to happen all the same.
const SILENCE: Duration = Duration::from_millis(700);

pub(crate) struct World {
    pub(crate) host: Netns,
    pub(crate) outside: Netns,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let netns = || Netns::anonymous().expect("these tests make network namespaces: run them as root");
        let world = Self { host: netns(), outside: netns(), directory: tempfile::tempdir().unwrap() };
        let peer = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&world.outside));
        let in_host = format!(
            "ip link set lo up
             ip link add uplink type veth peer name eth0 netns /proc/{pid}/fd/{peer}
             ip addr add {HOST}/24 dev uplink
             ip link set uplink up
             ip route add default via {OUTSIDE}",
            pid = std::process::id()
        );
        sh(&world.host, &in_host);
        sh(
            &world.outside,
            &format!("ip link set lo up; ip addr add {OUTSIDE}/24 dev eth0; ip link set eth0 up"),
        );
        world
    }

    /// A daemon's view of the host.
    pub(crate) async fn daemon(&self) -> Host {
        self.daemon_with(|config| config).await
    }

    pub(crate) async fn daemon_with(&self, change: impl FnOnce(HostConfig) -> HostConfig) -> Host {
        let resolv_conf = self.directory.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 192.0.2.53\nsearch example.org\n").unwrap();
        let netns = Some(self.host.try_clone().unwrap());
        let (sysctl_record, underlay) = (Some(self.record()), Some(underlay()));
        let config = HostConfig { netns, resolv_conf, sysctl_record, underlay, ..HostConfig::default() };
        Host::open(change(config)).await.unwrap()
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.directory.path().join("sysctls.json")
    }

    pub(crate) fn ip_forward(&self) -> String {
        sh(&self.host, "cat /proc/sys/net/ipv4/ip_forward")
    }

    /// Everything Skep could leave: links, nft tables, rules.
    pub(crate) fn kernel_state(&self) -> String {
        // A bridge notices late that its last port is gone, hence the filter. Tables come in the order they
        // were last replaced in.
        let script = "ip -o link | cut -d: -f2 | sort
            nft list tables | sort | while read list; do nft -s list $list; done
            ip rule; ip -o -4 addr; ip route | sed 's/ linkdown//'";
        sh(&self.host, script)
    }
}

fn underlay() -> Underlay {
    Underlay { vtep: HOST, data_path_port: DATA_PATH_PORT, control_ports: [CONTROL_PORT].into() }
}

/// Runs a shell script in a namespace; its output, without the last newline.
pub(crate) fn sh(netns: &Netns, script: &str) -> String {
    let run = || Command::new("sh").args(["-ec", script]).output();
    let output = netns.run_blocking(run).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{error}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

pub(crate) async fn listen(netns: &Netns, addr: &str) -> TcpListener {
    let addr = addr.to_owned();
    netns.run(move || TcpListener::bind(addr)).await.unwrap()
}

pub(crate) async fn connect(netns: &Netns, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
    let to = to.into();
    netns.run(move || TcpStream::connect_timeout(&to, PATIENCE)).await
}

/// Packets the rules of Skep's tables with this comment have dropped.
pub(crate) fn dropped(host: &Netns, why: &str) -> u64 {
    let rules =
        sh(host, "nft list table inet skep; nft list table bridge skep; nft list table inet skep_quota");
    let of_them = rules.lines().filter(|line| line.contains(&format!("comment \"{why}\"")));
    let count = |line: &str| line.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    of_them.map(|line| count(line).expect("each has a counter")).sum()
}

/// Whether a datagram that `from` sends gets to a server there.
pub(crate) async fn arrives(from: &Netns, server: &Netns, to: impl Into<SocketAddr>) -> bool {
    let to = to.into();
    let receiver = server.run(move || UdpSocket::bind(("0.0.0.0", to.port()))).await.unwrap();
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    // Refused by the sender's own host, or underway.
    let _ = from.run(move || UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", to)).await;
    receiver.recv(&mut [0; 1]).is_ok()
}

/// That nothing answers: neither an accept nor a refusal.
pub(crate) async fn is_silent(netns: &Netns, to: impl Into<SocketAddr>) -> bool {
    let to = to.into();
    let attempt = netns.run(move || TcpStream::connect_timeout(&to, SILENCE)).await;
    matches!(attempt, Err(error) if error.kind() == io::ErrorKind::TimedOut)
}
