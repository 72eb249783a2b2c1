//! What somebody else changes or takes away comes back, and nothing is written where nothing is wrong.

use crate::mesh::plan;
use crate::world::{OUTSIDE, World, connect, listen, sh};
use skep_agent::host::{Host, MeshReport, RECHECK_PERIOD, SandboxNetns, SandboxSpec};
use std::time::Duration;

struct Healthy {
    world: World,
    host: Host,
    container: skep_agent::host::Sandbox,
    _report: MeshReport,
}

impl Healthy {
    async fn new() -> Self {
        let world = World::new();
        let host = world.daemon().await;
        let report = host.apply_mesh(plan()).await.unwrap();
        let id = "a".to_owned();
        let spec =
            SandboxSpec { id, netns: SandboxNetns::New, interfaces: Vec::new(), egress: true, dns: false };
        let container = host.create_sandbox(spec).await.unwrap();
        Self { world, host, container, _report: report }
    }

    /// Everything of ours, as it was set; but for whether anybody is at the other end (carrier, operational state), which the kernel
    /// works out later, up to a second after an interface comes up.
    fn state(&self) -> String {
        sh(
            &self.world.host,
            "nft list tables | sort; for table in 'inet skep' 'bridge skep'; do nft -s list table $table || true; done
             ip -o -4 addr; ip -d -o link | sed 's/ gc_timer .*//; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]* / /' | grep -o '^.*mtu [0-9]*\\|isolated o[nf]*\\|link/ether [0-9a-f:]*'
             ip route | sed 's/ linkdown//'
             cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/skep*/forwarding
             cat /proc/sys/net/ipv4/conf/skep*/route_localnet /proc/sys/net/ipv6/conf/skep*/disable_ipv6",
        )
    }
}

#[tokio::test]
async fn what_is_taken_away_or_changed_comes_back() {
    let healthy = Healthy::new().await;
    let before = healthy.state();
    let veth = sh(&healthy.world.host, "ip -o link | grep -o 'skv[0-9a-f]*'");
    let unmaster = format!("ip link set {veth} nomaster");
    let mix = format!("bridge link set dev {veth} isolated off");
    let harm = [
        "nft flush ruleset",
        "nft delete table inet skep",
        "nft delete table inet skep_quota",
        "nft delete table bridge skep",
        "nft flush chain inet skep guard_forward",
        "nft flush set inet skep reserved",
        "nft add element inet skep members { 198.51.100.1 }",
        "nft insert rule inet skep guard_forward accept",
        "sysctl -q net.ipv4.ip_forward=0",
        "sysctl -q net.ipv4.conf.skep0.forwarding=0",
        "sysctl -q net.ipv4.conf.skep0.route_localnet=0",
        "sysctl -q net.ipv4.conf.skep_gwbridge.route_localnet=1",
        "ip route del 10.0.0.0/24 dev skep0",
        "ip addr flush dev skep0",
        "ip addr flush dev skep_gwbridge",
        "ip link set skep_gwbridge down",
        "ip link set skep_gwbridge mtu 1300",
        "ip link set skep0 mtu 1300",
        "ip link set skep0 down",
        unmaster.as_str(),
        mix.as_str(),
    ];
    for harm in harm {
        sh(&healthy.world.host, harm);
        assert_ne!(healthy.state(), before, "{harm} changed nothing");
        healthy.host.recheck().await.unwrap();
        assert_eq!(healthy.state(), before, "after {harm}");
    }
    assert!(RECHECK_PERIOD * 2 <= Duration::from_secs(10));
}

#[tokio::test]
async fn a_deleted_skep0_is_made_anew_for_the_engine() {
    let healthy = Healthy::new().await;
    // The interface goes with its TAP.
    let mut reports = Vec::new();
    for harm in ["ip link del skep0", "ip link del skep0; ip link add skep0 type bridge"] {
        sh(&healthy.world.host, harm);
        let report = healthy.host.recheck().await.unwrap();
        assert!(report.new_tap.is_some(), "after {harm}");
        assert!(healthy.host.recheck().await.unwrap().new_tap.is_none());
        assert!(sh(&healthy.world.host, "ip -d link show skep0").contains("tun type tap"));
        reports.push(report);
    }
}

#[tokio::test]
async fn a_container_s_way_out_heals() {
    let healthy = Healthy::new().await;
    let server = listen(&healthy.world.outside, "0.0.0.0:80").await;
    for harm in ["nft flush ruleset", "ip link del skep_gwbridge", "sysctl -q net.ipv4.ip_forward=0"] {
        sh(&healthy.world.host, harm);
        healthy.host.recheck().await.unwrap();
        let _client = connect(&healthy.container.netns, (OUTSIDE, 80)).await.unwrap();
        assert_eq!(server.accept().unwrap().1.ip(), crate::world::HOST, "after {harm}");
    }
}

#[tokio::test]
async fn nothing_is_written_where_nothing_is_wrong() {
    let healthy = Healthy::new().await;
    // Handles number what the kernel was given, so a replaced table has others.
    let handles = || sh(&healthy.world.host, "nft -a -s list ruleset");
    let before = handles();
    healthy.host.recheck().await.unwrap();
    // Somebody else's rules are no reason either.
    sh(&healthy.world.host, "nft add table ip other");
    healthy.host.recheck().await.unwrap();
    sh(&healthy.world.host, "nft delete table ip other");
    assert_eq!(handles(), before);
}

#[tokio::test]
async fn nothing_is_made_on_a_host_that_has_nothing_of_ours() {
    let world = World::new();
    let host = world.daemon().await;
    let before = world.kernel_state();
    host.recheck().await.unwrap();
    assert_eq!(world.kernel_state(), before);
}
