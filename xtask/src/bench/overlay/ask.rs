//! What is asked of each contestant, and how the answer is read.

use super::contestant::Contestant;
use anyhow::{Context, Result};
use serde_json::Value;

/// In seconds, for each.
const TIME: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Tcp { streams: u32 },
    TcpBack { streams: u32 },
    SmallDatagrams,
    RoundTrip,
    Ping,
}

impl Question {
    pub(super) const ALL: [Self; 7] = [
        Self::Tcp { streams: 1 },
        Self::Tcp { streams: 4 },
        Self::TcpBack { streams: 1 },
        Self::TcpBack { streams: 4 },
        Self::SmallDatagrams,
        Self::RoundTrip,
        Self::Ping,
    ];

    pub(super) const TCP: [Self; 2] = [Self::Tcp { streams: 1 }, Self::Tcp { streams: 4 }];

    pub(super) const OF_PEERS: [Self; 5] = [
        Self::Tcp { streams: 1 },
        Self::Tcp { streams: 4 },
        Self::SmallDatagrams,
        Self::RoundTrip,
        Self::Ping,
    ];

    /// Each figure by its name.
    pub(super) fn ask(self, whom: &Contestant) -> Result<Vec<(String, f64)>> {
        match self {
            Self::Tcp { streams } => tcp(whom, streams),
            Self::TcpBack { streams } => {
                let answer = iperf(whom, &format!("--parallel {streams} --reverse"))?;
                Ok(vec![(format!("TCP, {} back, Gbit/s", counted(streams)), received(&answer)?.0)])
            }
            Self::SmallDatagrams => small_datagrams(whom),
            Self::RoundTrip => round_trip(whom),
            Self::Ping => ping(whom),
        }
        .with_context(|| format!("{}: {self:?}", whom.name))
    }
}

fn tcp(whom: &Contestant, streams: u32) -> Result<Vec<(String, f64)>> {
    let before = whom.agent_seconds()?;
    let answer = iperf(whom, &format!("--parallel {streams}"))?;
    let used = whom.agent_seconds()? - before;
    let (gigabits, bytes) = received(&answer)?;
    let streams = counted(streams);
    Ok(vec![
        (format!("TCP, {streams}, Gbit/s"), gigabits),
        (format!("agents' CPU-s per GB, {streams}"), used / (bytes / 1e9)),
    ])
}

fn counted(streams: u32) -> String {
    if streams == 1 { "1 stream".to_owned() } else { format!("{streams} streams") }
}

fn iperf(whom: &Contestant, options: &str) -> Result<Value> {
    let line = format!("iperf3 --client {} --time {TIME} --json {options}", whom.server);
    Ok(serde_json::from_str(&whom.run(&line)?)?)
}

/// Gigabits a second, and bytes, that the receiver counted.
fn received(answer: &Value) -> Result<(f64, f64)> {
    let sum = &answer["end"]["sum_received"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says no {name}: {answer}"));
    Ok((number("bits_per_second")? / 1e9, number("bytes")?))
}

/// As fast as one sender can; what counts is what arrives.
fn small_datagrams(whom: &Contestant) -> Result<Vec<(String, f64)>> {
    let answer = iperf(whom, "--udp --bitrate 0 --length 64")?;
    let sum = &answer["end"]["sum"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says no {name}: {answer}"));
    let arrived = number("packets")? - number("lost_packets")?;
    Ok(vec![("UDP, 64 bytes, 1,000 received a second".to_owned(), arrived / number("seconds")? / 1e3)])
}

/// One datagram there, then one back, and so on: as requests and responses go.
fn round_trip(whom: &Contestant) -> Result<Vec<(String, f64)>> {
    let said = whom.run(&format!("sockperf ping-pong -i {} --time {TIME} --full-rtt", whom.server))?;
    let percentile = |which: &str| {
        let line = said.lines().find(|line| line.contains(&format!("percentile {which} ")))?;
        line.rsplit('=').next()?.trim().parse::<f64>().ok()
    };
    let (median, late) =
        percentile("50.000").zip(percentile("99.000")).with_context(|| format!("sockperf said {said}"))?;
    Ok(vec![
        ("UDP request and response, median, µs".to_owned(), median),
        ("UDP request and response, 99th of 100, µs".to_owned(), late),
    ])
}

fn ping(whom: &Contestant) -> Result<Vec<(String, f64)>> {
    let said = whom.run(&format!("ping -n -i 0.002 -c 500 {}", whom.server))?;
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    let mut times: Vec<f64> = said.lines().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map(|millis| millis * 1e3);
    let (median, late) = at(0.5).zip(at(0.99)).context("nobody answered the ping")?;
    Ok(vec![("ping, median, µs".to_owned(), median), ("ping, 99th of 100, µs".to_owned(), late)])
}
