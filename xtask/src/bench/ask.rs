//! What is asked of each contestant, and how the answer is read.

use super::{quiet, serve};
use crate::interrupt::Interrupt;
use crate::lab::Host;
use anyhow::{Context, Result};
use serde_json::Value;

/// In seconds, for each.
const TIME: u32 = 2;
/// In seconds. Whoever has lost its peer may wait for it much longer.
const LONGEST: u32 = 20;
/// Their defaults.
const IPERF_PORT: u16 = 5201;
const SOCKPERF_PORT: u16 = 11111;

/// Two containers: programs run in one, the other has the servers.
pub(super) struct Pair {
    pub(super) host: Host,
    /// The namespace programs run in.
    pub(super) netns: String,
    /// The other container's address.
    pub(super) server: String,
    /// The processes that move what is between the two. None: the kernel's work, which is everybody's.
    pub(super) agents: Vec<u32>,
}

impl Pair {
    /// Runs a program in the first container.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        // Not in a process group of its own: Ctrl-C ends it.
        self.host.run(&format!("ip netns exec {} timeout --foreground {LONGEST} {line}", self.netns))
    }
}

/// Starts what every question but ping needs, in the server's container.
pub(super) fn start_servers(host: &Host, netns: &str, address: &str, interrupt: &Interrupt) -> Result<()> {
    serve::start(host, Some(netns), "iperf3 --server", ("tcp", IPERF_PORT), interrupt)?;
    let sockperf = format!("sockperf server --ip {address} --port {SOCKPERF_PORT}");
    serve::start(host, Some(netns), &sockperf, ("udp", SOCKPERF_PORT), interrupt)
}

/// The `skepd` of each host.
pub(super) fn skepds(hosts: &[Host]) -> Result<Vec<u32>> {
    hosts.iter().map(|host| host.daemon_pid()?.context("no skepd runs")).collect()
}

/// Seconds of processor that all these processes have used.
pub(super) fn agent_seconds(agents: &[u32]) -> Result<f64> {
    agents.iter().map(|agent| quiet::seconds(*agent).context("an agent has ended")).sum()
}

/// What the largest of these processes has in memory. None: none of them runs.
pub(super) fn agent_mebibytes(agents: &[u32]) -> Option<f64> {
    agents.iter().filter_map(|agent| quiet::mebibytes(*agent)).reduce(f64::max)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Tcp {
        streams: u32,
    },
    TcpBack {
        streams: u32,
    },
    SmallDatagrams,
    Ping,
    /// A datagram there and one back, over and over.
    PingPong,
}

impl Question {
    /// Each figure by its name.
    pub(super) fn ask(self, pair: &Pair) -> Result<Vec<(String, f64)>> {
        match self {
            Self::Tcp { streams } => tcp(pair, streams),
            Self::TcpBack { streams } => {
                let answer = iperf(pair, &format!("--parallel {streams} --reverse"))?;
                Ok(vec![(format!("TCP, {} back, Gbit/s", counted(streams)), received(&answer)?.0)])
            }
            Self::SmallDatagrams => small_datagrams(pair),
            Self::Ping => ping(pair),
            Self::PingPong => ping_pong(pair),
        }
    }
}

fn tcp(pair: &Pair, streams: u32) -> Result<Vec<(String, f64)>> {
    let before = agent_seconds(&pair.agents)?;
    let answer = iperf(pair, &format!("--parallel {streams}"))?;
    let used = agent_seconds(&pair.agents)? - before;
    let (gigabits, bytes) = received(&answer)?;
    let streams = counted(streams);
    let mut figures = vec![(format!("TCP, {streams}, Gbit/s"), gigabits)];
    if !pair.agents.is_empty() {
        figures.push((format!("agents' CPU-s per GB, {streams}"), used / (bytes / 1e9)));
    }
    Ok(figures)
}

fn counted(streams: u32) -> String {
    if streams == 1 { "1 stream".to_owned() } else { format!("{streams} streams") }
}

fn iperf(pair: &Pair, options: &str) -> Result<Value> {
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
fn small_datagrams(pair: &Pair) -> Result<Vec<(String, f64)>> {
    let answer = iperf(pair, "--udp --bitrate 0 --length 64")?;
    let sum = &answer["end"]["sum"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says no {name}: {answer}"));
    let arrived = number("packets")? - number("lost_packets")?;
    Ok(vec![("UDP, 64 bytes, 1,000 received a second".to_owned(), arrived / number("seconds")? / 1e3)])
}

fn ping(pair: &Pair) -> Result<Vec<(String, f64)>> {
    let said = pair.run(&format!("ping -n -i 0.002 -c 500 {}", pair.server))?;
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    let mut times: Vec<f64> = said.lines().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map(|millis| millis * 1e3);
    let (median, late) = at(0.5).zip(at(0.99)).context("nobody answered the ping")?;
    Ok(vec![("ping, median, µs".to_owned(), median), ("ping, 99th of 100, µs".to_owned(), late)])
}

/// The next datagram leaves when the answer to the last has come.
fn ping_pong(pair: &Pair) -> Result<Vec<(String, f64)>> {
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
    Ok(vec![
        ("UDP there and back, median, µs".to_owned(), at("50.000")?),
        ("UDP there and back, 99th of 100, µs".to_owned(), at("99.000")?),
    ])
}
