//! Path probes between two packet threads. What the kernel's own VXLAN makes of them: `interop/sealed.rs`.

use anyhow::{Context, Result, ensure};
use netns_tests::Netns;
use skep_dataplane::DropReason;
use skep_dataplane::io::{Handle, Worker, WorkerConfig};
use skep_dataplane::seal::{Identity, SecretKey, Suite};
use skep_dataplane::snapshot::{Peer, Snapshot};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const LEFT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const PORT: u16 = 4789;
/// Far beyond the second it takes: a machine busy with other tests is what the local back-off is for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who does not answer, each time that changes.
type Silent = Receiver<Vec<Ipv4Addr>>;

fn underlay() -> Result<(Netns, Netns)> {
    let (left, right) = (Netns::new()?, Netns::new()?);
    left.veth("underlay", &right, "underlay")?;
    left.run("ip addr add 192.168.77.1/24 dev underlay")?;
    right.run("ip addr add 192.168.77.2/24 dev underlay")?;
    Ok((left, right))
}

fn watch(host: &Netns, vtep: Ipv4Addr, peer: Ipv4Addr) -> Result<(Handle, Silent)> {
    let (said, heard) = channel();
    let (context, entropy) = (Vec::new(), [vtep.octets()[3]; 32].into());
    let identity = Identity { key: key(vtep), suite: Suite::default(), context, entropy };
    let config = WorkerConfig { vtep, port: PORT, seed: 1, identity };
    let handle = host.enter(|| Worker::spawn(config, move |silent| _ = said.send(silent.to_vec())))??;
    let peers = vec![Peer { vtep: peer, key: key(peer).public() }];
    handle.publish(Arc::new(Snapshot { peers, ..Snapshot::default() }))?;
    Ok((handle, heard))
}

/// Of the VTEP there.
fn key(vtep: Ipv4Addr) -> SecretKey {
    SecretKey::from_bytes([vtep.octets()[3]; 32].into())
}

#[test]
fn each_side_notices_a_path_that_is_shut_in_one_direction() -> Result<()> {
    let (left, right) = underlay()?;
    let (left_handle, left_heard) = watch(&left, LEFT, RIGHT)?;
    let (right_handle, right_heard) = watch(&right, RIGHT, LEFT)?;
    let next = |heard: &Silent| heard.recv_timeout(PATIENCE).context("nothing was said");
    for direction in ["input", "output"] {
        netns_tests::lab::eventually(PATIENCE, "both to answer", || {
            both_answer(&left_handle, &right_handle)
        })?;
        while left_heard.try_recv().is_ok() || right_heard.try_recv().is_ok() {}
        right.run("nft add table inet shut")?;
        right.run(&format!("nft add chain inet shut path {{ type filter hook {direction} priority 0; }}"))?;
        right.run("nft add rule inet shut path udp dport 4789 drop")?;
        ensure!(next(&left_heard)? == [RIGHT] && next(&right_heard)? == [LEFT]);
        right.run("nft delete table inet shut")?;
        ensure!(next(&left_heard)?.is_empty() && next(&right_heard)?.is_empty());
    }
    // What the two said first when they met can't be fresh.
    let mut drops = left_handle.stats()?.engine.drops;
    drops.retain(|(reason, count)| *count > 0 && *reason != DropReason::HandshakeStale);
    ensure!(drops.is_empty(), "{drops:?}");
    Ok(())
}

fn both_answer(left: &Handle, right: &Handle) -> Result<bool> {
    let answers = |handle: &Handle| -> Result<bool> {
        Ok(handle.stats()?.engine.paths.iter().all(|path| path.answered > 0 && !path.silent))
    };
    Ok(answers(left)? && answers(right)?)
}
