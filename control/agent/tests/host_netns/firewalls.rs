//! Hosts that forward nothing by default: as Docker, ufw and firewalld leave them, and by hand.

use crate::mesh_path::Mesh;
use crate::world::{HOST, OUTSIDE, World, connect, is_silent, listen, sh};
use skep_agent::host::netns::Netns;

/// What Docker 27 makes of the forward chain on a host with its default bridge.
const DOCKER: &str = "
    $ipt -P FORWARD DROP
    for chain in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do $ipt -N $chain; done
    $ipt -A FORWARD -j DOCKER-USER
    $ipt -A FORWARD -j DOCKER-ISOLATION-STAGE-1
    $ipt -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $ipt -A FORWARD -o docker0 -j DOCKER
    $ipt -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
    $ipt -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    $ipt -A DOCKER-ISOLATION-STAGE-1 -j RETURN
    $ipt -A DOCKER-USER -j RETURN";

/// What ufw 0.36 makes of it with its default rules.
const UFW: &str = "
    $ipt -P FORWARD DROP
    for chain in before-logging before after after-logging reject track user; do
        $ipt -N ufw-$chain-forward
        [ $chain = user ] || $ipt -A FORWARD -j ufw-$chain-forward
    done
    $ipt -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $ipt -A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
    $ipt -A ufw-before-forward -j ufw-user-forward";

/// What firewalld 1.3 makes of it: the default zone takes what is in no other.
const FIREWALLD: &str = "nft -f - <<END
    table inet firewalld {
        chain filter_FWD_public { }
        chain filter_FWD_trusted { accept; }
        chain filter_FORWARD_POLICIES {
            iifname uplink jump filter_FWD_public
            iifname uplink reject with icmpx admin-prohibited
            jump filter_FWD_public
            reject with icmpx admin-prohibited
        }
        chain filter_FORWARD {
            type filter hook forward priority filter + 10; policy accept;
            ct state { established, related } accept
            ct status dnat accept
            iifname lo accept
            ct state invalid drop
            jump filter_FORWARD_POLICIES
            reject with icmpx admin-prohibited
        }
    }
END";

const BACKENDS: [&str; 2] = ["iptables-nft", "iptables-legacy"];

fn firewall(layout: &str, program: &str) -> String {
    format!("ipt={program}{layout}")
}

impl Mesh {
    async fn behind(firewall: &str) -> Self {
        let world = World::new();
        sh(&world.host, firewall);
        Self::on(world).await
    }

    /// Whether an outside client gets through to the task, and the task to an outside server.
    async fn flows(&self) -> (bool, bool) {
        let server = listen(&self.world.outside, "0.0.0.0:80").await;
        let reaches = async |netns: &Netns, to| match is_silent_or_refused(netns, to).await {
            true => false,
            false => {
                connect(netns, to).await.unwrap();
                true
            }
        };
        let inwards = reaches(&self.world.outside, (HOST, 8080)).await;
        let outwards = reaches(&self.task.netns, (OUTSIDE, 80)).await;
        drop(server);
        (inwards, outwards)
    }
}

/// A firewall either drops, or answers that it doesn't want to.
async fn is_silent_or_refused(netns: &Netns, to: (std::net::Ipv4Addr, u16)) -> bool {
    is_silent(netns, to).await || connect(netns, to).await.is_err()
}

fn packets_passed(host: &Netns, program: &str) -> u64 {
    let listed = sh(host, &format!("{program} -vnxL SKEP-FORWARD"));
    let counts = listed.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    counts.sum()
}

#[tokio::test]
async fn docker_and_ufw_let_the_mesh_and_egress_pass_by_one_marked_jump() {
    for (layout, place) in [(DOCKER, "DOCKER-USER"), (UFW, "ufw-after-forward")] {
        for program in BACKENDS {
            let mesh = Mesh::behind(&firewall(layout, program)).await;
            let host = &mesh.world.host;
            assert_eq!(mesh.flows().await, (true, true), "{program} {place}");
            assert!(packets_passed(host, program) >= 4, "{program} {place}: the jump is what let it pass");
            let rules = sh(host, &format!("{program} -S"));
            let jumps: Vec<_> = rules.lines().filter(|line| line.contains("-j SKEP-FORWARD")).collect();
            assert_eq!(jumps.len(), 1, "{rules}");
            assert!(jumps[0].starts_with(&format!("-A {place} -m comment --comment \"Skep:")), "{rules}");
            assert!(mesh.host.obstacles().is_empty());

            // As the tools do when they are restarted or reloaded.
            sh(host, &format!("{program} -F {place}"));
            assert_eq!(mesh.flows().await, (false, false), "{program} {place}: only by the jump");
            mesh.host.recheck().await.unwrap();
            assert_eq!(mesh.flows().await, (true, true), "{program} {place} after a reload");
        }
    }
}

#[tokio::test]
async fn the_jump_is_gone_when_the_node_leaves() {
    for program in BACKENDS {
        let world = World::new();
        sh(&world.host, &firewall(DOCKER, program));
        let before = sh(&world.host, &format!("{program} -S"));
        let host = world.daemon().await;
        host.ensure_gwbridge().await.unwrap();
        assert_ne!(sh(&world.host, &format!("{program} -S")), before);
        host.teardown().await.unwrap();
        assert_eq!(sh(&world.host, &format!("{program} -S")), before);
    }
}

#[tokio::test]
async fn an_operator_s_own_rules_come_before_the_jump() {
    for program in BACKENDS {
        let deny = format!("{program} -I DOCKER-USER -s {OUTSIDE} -j DROP");
        let mesh = Mesh::behind(&format!("{}; {deny}", firewall(DOCKER, program))).await;
        assert_eq!(mesh.flows().await, (false, false), "{program}");
    }
}

#[tokio::test]
async fn a_jump_that_is_in_place_is_not_made_again() {
    let world = World::new();
    sh(&world.host, &firewall(DOCKER, "iptables-nft"));
    let host = world.daemon().await;
    host.ensure_gwbridge().await.unwrap();
    let handles = || sh(&world.host, "nft -a -s list table ip filter");
    let before = handles();
    for _ in 0..2 {
        sh(&world.host, "nft add table ip other; nft delete table ip other");
        host.recheck().await.unwrap();
    }
    assert_eq!(handles(), before);
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_with_the_command_that_helps() {
    let by_hand = "nft add table inet mine; nft add chain inet mine forwarding '{ type filter hook forward priority 0; policy drop; }'";
    for (firewall, chain) in [
        (by_hand, "the nft chain inet mine forwarding"),
        ("iptables-legacy -P FORWARD DROP", "the iptables chain FORWARD"),
        ("iptables-nft -P FORWARD DROP", "the nft chain ip filter FORWARD"),
        ("iptables-legacy -A FORWARD -j REJECT", "the iptables chain FORWARD"),
    ] {
        let mesh = Mesh::behind(firewall).await;
        assert_eq!(mesh.flows().await, (false, false), "{firewall}");
        let obstacles = mesh.host.obstacles();
        let [obstacle] = obstacles.as_slice() else { panic!("{firewall}: {obstacles:?}") };
        assert!(obstacle.starts_with(chain), "{obstacle}");

        let (_, command) = obstacle.split_once("to let Skep pass: ").unwrap();
        sh(&mesh.world.host, command);
        mesh.host.recheck().await.unwrap();
        assert_eq!(mesh.host.obstacles(), Vec::<String>::new(), "{firewall}");
        assert_eq!(mesh.flows().await, (true, true), "{firewall}");
    }
}

#[tokio::test]
async fn firewalld_is_told_by_its_own_command() {
    let mesh = Mesh::behind(FIREWALLD).await;
    assert_eq!(mesh.flows().await, (true, false), "it lets translated connections pass");
    let obstacles = mesh.host.obstacles();
    let [obstacle] = obstacles.as_slice() else { panic!("{obstacles:?}") };
    assert!(
        obstacle.contains("--zone=trusted --add-interface=skep0 --add-interface=skep_gwbridge"),
        "{obstacle}"
    );

    // What that command changes.
    sh(
        &mesh.world.host,
        "for name in skep0 skep_gwbridge; do
            nft insert rule inet firewalld filter_FORWARD_POLICIES iifname $name jump filter_FWD_trusted
         done",
    );
    mesh.host.recheck().await.unwrap();
    assert_eq!(mesh.host.obstacles(), Vec::<String>::new());
    assert_eq!(mesh.flows().await, (true, true));
}

#[tokio::test]
async fn a_firewall_that_drops_only_what_it_names_is_none_of_ours() {
    let world = World::new();
    sh(
        &world.host,
        "nft add table inet mine; nft add chain inet mine forwarding '{ type filter hook forward priority 0; }'
         nft add rule inet mine forwarding iifname other drop; nft add rule inet mine forwarding counter accept",
    );
    let host = world.daemon().await;
    host.ensure_gwbridge().await.unwrap();
    assert_eq!(host.obstacles(), Vec::<String>::new());
}
