//! A VTEP without a control plane: what it forwards is written in a TOML file (see `static.toml`).
//!
//! `cargo run -p skep-dataplane --example static -- FILE.toml`

#[path = "static/config.rs"]
mod config;

use anyhow::{Context, Result, ensure};
use config::{Config, LocalConfig, Plan, PlannedTap};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use skep_dataplane::io::{Handle, Tap, TapOptions, Worker, WorkerConfig};
use skep_dataplane::seal::{Identity, SecretKey, Suite};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use zeroize::Zeroizing;

/// Slots of a TAP's ring. It drops when full, and a super-frame of 64 KiB takes one (kernel default: 1000).
const TX_QUEUE_LEN: u32 = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("static: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let path = std::env::args_os().nth(1).context("usage: static FILE.toml")?;
    let path = PathBuf::from(path);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Config = toml::from_str(&text).with_context(|| format!("cannot use {}", path.display()))?;
    let plan = config.plan().with_context(|| format!("cannot use {}", path.display()))?;

    // Blocked before the packet thread starts, so that Ctrl-C meets `wait` below and nothing else.
    let ends = ending_signals();
    ends.thread_block()?;

    let handle = Worker::spawn(
        WorkerConfig { vtep: config.address, port: config.port, seed: 0, identity: nobody() },
        |_| (),
    )?;
    println!("VTEP {} on UDP port {}", config.address, config.port);
    let result = serve(&handle, plan, &ends);
    handle.shutdown();
    result
}

/// Every network of the file is plain: there are no sessions, and nobody to have one with.
fn nobody() -> Identity {
    let (key, entropy) = (SecretKey::from_bytes(Zeroizing::new([1; 32])), Zeroizing::new([0; 32]));
    Identity { key, suite: Suite::default(), context: Vec::new(), entropy }
}

fn serve(handle: &Handle, plan: Plan, ends: &SigSet) -> Result<()> {
    for tap in &plan.taps {
        handle.attach(tap.port, open_in_namespace(tap)?)?;
        println!("  {tap}");
    }
    for line in &plan.elsewhere {
        println!("  {line}");
    }
    handle.publish(Arc::new(plan.snapshot))?;
    println!("ready; Ctrl-C ends it");
    let signal = ends.wait()?;
    println!("{signal}: the TAPs go with this program");
    report(handle)
}

fn ending_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals
}

/// On a thread of its own, because it leaves the namespace of the process.
fn open_in_namespace(planned: &PlannedTap) -> Result<Tap> {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            enter(&planned.local)?;
            let options = TapOptions { name: planned.local.ifname.clone(), offloads: planned.local.offloads };
            let tap = Tap::open(&options)?;
            configure(planned, tap.name())?;
            Ok(tap)
        });
        made.join().map_err(|_| anyhow::anyhow!("the thread that makes {planned} panicked"))?
    })
}

fn enter(local: &LocalConfig) -> Result<()> {
    let Some(netns) = &local.netns else {
        return Ok(());
    };
    let path =
        if netns.contains('/') { PathBuf::from(netns) } else { PathBuf::from("/run/netns").join(netns) };
    let file = File::open(&path)
        .with_context(|| format!("no namespace {}: `ip netns add` makes one", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

fn configure(planned: &PlannedTap, ifname: &str) -> Result<()> {
    let (address, mac, mtu) = (planned.address, planned.mac, planned.mtu);
    ip("link set lo up")?;
    ip(&format!("link set dev {ifname} address {mac} mtu {mtu} txqueuelen {TX_QUEUE_LEN} up"))?;
    ip(&format!("addr add {address} dev {ifname}"))
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("cannot run `ip` (Debian: iproute2)")?;
    ensure!(output.status.success(), "`ip {arguments}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn report(handle: &Handle) -> Result<()> {
    let stats = handle.stats()?;
    for (port, counted) in &stats.engine.ports {
        println!(
            "  {port}: {} frames ({} bytes) from it, {} frames ({} bytes) to it",
            counted.frames_from, counted.bytes_from, counted.frames_to, counted.bytes_to
        );
    }
    let engine = stats.engine.drops.iter().map(|(reason, count)| (reason.label(), *count));
    let io = stats.io_drops.iter().map(|(reason, count)| (reason.label(), *count));
    for (reason, count) in engine.chain(io).filter(|(_, count)| *count > 0) {
        println!("  dropped {count}: {reason}");
    }
    Ok(())
}
