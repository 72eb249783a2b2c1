//! Servers in a container. They end with its host.

use crate::interrupt::Interrupt;
use crate::lab::Host;
use crate::program::run_in_reach;
use anyhow::{Result, ensure};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Starts a server in a namespace of the host's and waits until it listens on its port, `tcp` or `udp`.
pub(super) fn start(
    host: &Host,
    netns: &str,
    line: &str,
    (protocol, port): (&str, u16),
    interrupt: &Interrupt,
) -> Result<()> {
    // What a shell leaves behind is the host's init's; its output would keep whoever waits for that.
    let script = format!("ip netns exec {netns} {line} >/dev/null 2>&1 &");
    run_in_reach(host.command("sh")?.args(["-c", &script]), &format!("{}: `{line}`", host.name()))?;
    let deadline = Instant::now() + START;
    let listening =
        format!("ip netns exec {netns} ss --no-header --numeric --listening --{protocol} sport = :{port}");
    while host.run(&listening)?.is_empty() {
        interrupt.check()?;
        ensure!(Instant::now() < deadline, "`{line}` does not listen on {protocol} port {port}");
        thread::sleep(POLL);
    }
    Ok(())
}
