//! That streams cross in large pieces, and that tests can turn each way of it off: else they would pass for nothing.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Lab, eventually};
use skep_dataplane::io::FastPaths;
use std::time::Duration;

/// In bytes: no device's MTU here is larger.
const LARGE: u32 = 1_600;
const RULES: &str = "table ip large { chain arrived { type filter hook input priority 0; \
                     meta l4proto WHAT meta length > LARGE counter; }; }";

/// A container of the node's on `net`.
fn attach(lab: &Lab, node: &str, address: &str) -> Result<()> {
    lab.exec(node, &["ip", "netns", "add", "box"])?;
    let words = ["skep", "attach", "net", "--netns", "/run/netns/box", "--ip", address];
    lab.exec(node, &words).map(|_| ())
}

/// On n2, in the host's namespace or the container's.
fn on_n2(lab: &Lab, is_inside: bool, words: &[&str]) -> Result<String> {
    let inside: &[&str] = if is_inside { &["ip", "netns", "exec", "box"] } else { &[] };
    lab.exec("n2", &[inside, words].concat())
}

/// Packets that arrived and are larger than any that was sent by itself.
fn large(lab: &Lab, is_inside: bool) -> Result<u64> {
    let rules = on_n2(lab, is_inside, &["nft", "list", "table", "ip", "large"])?;
    let counted = rules.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    counted.context("no counter")?.parse().context("not a number")
}

#[test]
fn a_stream_crosses_in_large_pieces_unless_a_test_says_otherwise() -> Result<()> {
    let fast = FastPaths::chosen();
    let lab = Lab::up(2)?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "--subnet", "10.96.0.0/24", "net"])?;
    attach(&lab, "n1", "10.96.0.10")?;
    attach(&lab, "n2", "10.96.0.20")?;
    for is_inside in [false, true] {
        on_n2(
            &lab,
            is_inside,
            &[
                "nft",
                &RULES
                    .replace("LARGE", &LARGE.to_string())
                    .replace("WHAT", if is_inside { "tcp" } else { "udp" }),
            ],
        )?;
    }
    let features = on_n2(&lab, true, &["ethtool", "-k", "eth0"])?;
    let segments = if fast.offloads { "on" } else { "off" };
    ensure!(features.contains(&format!("tcp-segmentation-offload: {segments}\n")), "{features}");

    let serve = "socat -u TCP4-LISTEN:9000,reuseaddr OPEN:/dev/null >/dev/null 2>&1 &";
    on_n2(&lab, true, &["sh", "-c", serve])?;
    let send =
        "head -c 20000000 /dev/zero | ip netns exec box socat -u - TCP4:10.96.0.20:9000,connect-timeout=1";
    eventually(Duration::from_secs(10), "20 MB are sent", || {
        lab.exec("n1", &["sh", "-c", send]).map(|_| true)
    })?;

    let (on_the_wire, inside) = (large(&lab, false)?, large(&lab, true)?);
    println!("{fast:?}: {on_the_wire} large ones on the underlay, {inside} in the container");
    ensure!((on_the_wire > 100) == fast.segment, "{fast:?}: {on_the_wire} runs of datagrams");
    ensure!((inside > 100) == fast.merge, "{fast:?}: {inside} super-frames");
    ensure!(fast.segment || on_the_wire == 0, "{on_the_wire} runs of datagrams");
    ensure!(fast.merge || inside == 0, "{inside} super-frames");
    lab.finish()
}
