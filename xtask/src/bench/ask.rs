//! What is asked of each contestant, and how the answer is read.

use super::{quiet, serve};
use crate::interrupt::Interrupt;
use crate::lab::Host;
use anyhow::{Context, Result};
use serde_json::Value;

/// In seconds, for each.
const TIME: u32 = 2;
/// Their defaults.
const IPERF_PORT: u16 = 5201;
const SOCKPERF_PORT: u16 = 11111;

/// Two containers: programs run in one, the other has the servers.
pub(super) struct Pair<'a> {
    pub(super) host: Host,
    /// The namespace programs run in.
    pub(super) netns: &'a str,
    /// The other container's address.
    pub(super) server: &'a str,
    /// Whose `skepd` moves what is between the two. None: the kernel's work, which is everybody's.
    pub(super) agents: Vec<Host>,
}

impl Pair<'_> {
    fn run(&self, line: &str) -> Result<String> {
        self.host.run(&format!("ip netns exec {} {line}", self.netns))
    }
}

/// Starts what every question but ping needs, in the server's container.
pub(super) fn start_servers(host: &Host, netns: &str, address: &str, interrupt: &Interrupt) -> Result<()> {
    serve::start(host, netns, "iperf3 --server", ("tcp", IPERF_PORT), interrupt)?;
    let sockperf = format!("sockperf server --ip {address} --port {SOCKPERF_PORT}");
    serve::start(host, netns, &sockperf, ("udp", SOCKPERF_PORT), interrupt)
}

/// Seconds of processor that the `skepd` of all these hosts have used.
pub(super) fn agent_seconds(hosts: &[Host]) -> Result<f64> {
    let seconds = |host: &Host| {
        let pid = host.daemon_pid()?.context("no skepd runs")?;
        quiet::seconds(pid).context("skepd has ended")
    };
    hosts.iter().map(seconds).sum()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Tcp {
        streams: u32,
    },
    TcpReverse,
    SmallDatagrams,
    Ping,
    /// A datagram there and one back, over and over.
    PingPong,
}

impl Question {
    /// Each figure by its name.
    pub(super) fn ask(self, pair: &Pair<'_>) -> Result<Vec<(&'static str, f64)>> {
        match self {
            Self::Tcp { streams } => {
                let before = agent_seconds(&pair.agents)?;
                let answer = iperf(pair, &format!("--parallel {streams}"))?;
                let used = agent_seconds(&pair.agents)? - before;
                let (gigabits, bytes) = received(&answer)?;
                let per_gigabyte = used / (bytes / 1e9);
                Ok(match streams {
                    1 => vec![(TCP_1, gigabits), (CPU_1, per_gigabyte)],
                    _ => vec![(TCP_4, gigabits), (CPU_4, per_gigabyte)],
                })
            }
            Self::TcpReverse => Ok(vec![(TCP_REVERSE, received(&iperf(pair, "--reverse")?)?.0)]),
            Self::SmallDatagrams => small_datagrams(pair),
            Self::Ping => ping(pair),
            Self::PingPong => ping_pong(pair),
        }
    }
}

pub(super) const TCP_1: &str = "TCP, 1 stream, Gbit/s";
pub(super) const TCP_4: &str = "TCP, 4 streams, Gbit/s";
const TCP_REVERSE: &str = "TCP, 1 stream back, Gbit/s";
const CPU_1: &str = "agents' CPU-s per GB, 1 stream";
const CPU_4: &str = "agents' CPU-s per GB, 4 streams";
const UDP_64: &str = "UDP, 64 bytes, 1,000 received a second";
const PING_50: &str = "ping, median, µs";
const PING_99: &str = "ping, 99th of 100, µs";
const UDP_50: &str = "UDP there and back, median, µs";
const UDP_99: &str = "UDP there and back, 99th of 100, µs";

fn iperf(pair: &Pair<'_>, options: &str) -> Result<Value> {
    let line = format!("iperf3 --client {} --time {TIME} --json {options}", pair.server);
    Ok(serde_json::from_str(&pair.run(&line)?)?)
}

/// Gigabits a second, and bytes, that the receiver counted.
fn received(answer: &Value) -> Result<(f64, f64)> {
    let sum = &answer["end"]["sum_received"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says no {name}: {answer}"));
    Ok((number("bits_per_second")? / 1e9, number("bytes")?))
}

/// As fast as one sender can; what counts is what arrives.
fn small_datagrams(pair: &Pair<'_>) -> Result<Vec<(&'static str, f64)>> {
    let answer = iperf(pair, "--udp --bitrate 0 --length 64")?;
    let sum = &answer["end"]["sum"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says no {name}: {answer}"));
    let arrived = number("packets")? - number("lost_packets")?;
    Ok(vec![(UDP_64, arrived / number("seconds")? / 1e3)])
}

fn ping(pair: &Pair<'_>) -> Result<Vec<(&'static str, f64)>> {
    let said = pair.run(&format!("ping -n -i 0.002 -c 500 {}", pair.server))?;
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    let mut times: Vec<f64> = said.lines().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map(|millis| millis * 1e3);
    let (median, late) = at(0.5).zip(at(0.99)).context("nobody answered the ping")?;
    Ok(vec![(PING_50, median), (PING_99, late)])
}

/// The next datagram leaves when the answer to the last has come.
fn ping_pong(pair: &Pair<'_>) -> Result<Vec<(&'static str, f64)>> {
    let line = format!(
        "sockperf ping-pong --ip {} --port {SOCKPERF_PORT} --time {TIME} --msg-size 64 --full-rtt --no-rdtsc",
        pair.server
    );
    let said = pair.run(&line)?;
    let at = |part: &str| {
        let line = said.lines().find(|line| line.contains(&format!("percentile {part} =")));
        let micros = line.and_then(|line| line.rsplit('=').next()?.trim().parse::<f64>().ok());
        micros.with_context(|| format!("sockperf says no percentile {part}: {said}"))
    };
    Ok(vec![(UDP_50, at("50.000")?), (UDP_99, at("99.000")?)])
}
