//! Servers on a host or in a container of it. They end with the host.

use crate::interrupt::Interrupt;
use crate::lab::Host;
use crate::program::run_in_reach;
use anyhow::{Result, ensure};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Starts a server on the host or in a namespace of it, and waits until it listens on its port, `tcp` or `udp`.
pub(super) fn start(
    host: &Host,
    netns: Option<&str>,
    line: &str,
    (protocol, port): (&str, u16),
    interrupt: &Interrupt,
) -> Result<()> {
    // What a shell leaves behind is the host's init's; its output would keep whoever waits for that.
    let inside = netns.map(|netns| format!("ip netns exec {netns} ")).unwrap_or_default();
    let script = format!("{inside}{line} >/dev/null 2>&1 &");
    run_in_reach(host.command("sh")?.args(["-c", &script]), &format!("{}: `{line}`", host.name()))?;
    let deadline = Instant::now() + START;
    let listening = format!("{inside}ss --no-header --numeric --listening --{protocol} sport = :{port}");
    while host.run(&listening)?.is_empty() {
        interrupt.check()?;
        ensure!(Instant::now() < deadline, "`{line}` does not listen on {protocol} port {port}");
        thread::sleep(POLL);
    }
    Ok(())
}
