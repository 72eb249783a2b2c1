//! What is asked of each contestant, and how the answer is read.

use super::site::{Contestant, Site};
use anyhow::{Context, Result};
use serde_json::Value;

/// In seconds, for each.
const TIME: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Tcp { streams: u32 },
    TcpReverse,
    SmallDatagrams,
    Ping,
}

impl Question {
    pub(super) const ALL: [Self; 5] = [
        Self::Tcp { streams: 1 },
        Self::Tcp { streams: 4 },
        Self::TcpReverse,
        Self::SmallDatagrams,
        Self::Ping,
    ];

    /// Each figure by its name.
    pub(super) fn ask(self, site: &Site, whom: &Contestant) -> Result<Vec<(&'static str, f64)>> {
        match self {
            Self::Tcp { streams } => {
                let before = site.agent_seconds(whom)?;
                let answer = iperf(site, whom, &format!("--parallel {streams}"))?;
                let used = site.agent_seconds(whom)? - before;
                let (gigabits, bytes) = received(&answer)?;
                let per_gigabyte = used / (bytes / 1e9);
                Ok(match streams {
                    1 => vec![(TCP_1, gigabits), (CPU_1, per_gigabyte)],
                    _ => vec![(TCP_4, gigabits), (CPU_4, per_gigabyte)],
                })
            }
            Self::TcpReverse => Ok(vec![(TCP_REVERSE, received(&iperf(site, whom, "--reverse")?)?.0)]),
            Self::SmallDatagrams => small_datagrams(site, whom),
            Self::Ping => ping(site, whom),
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

fn iperf(site: &Site, whom: &Contestant, options: &str) -> Result<Value> {
    let line = format!("iperf3 --client {} --time {TIME} --json {options}", whom.server);
    Ok(serde_json::from_str(&site.run(whom, &line)?)?)
}

/// Gigabits a second, and bytes, that the receiver counted.
fn received(answer: &Value) -> Result<(f64, f64)> {
    let sum = &answer["end"]["sum_received"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says no {name}: {answer}"));
    Ok((number("bits_per_second")? / 1e9, number("bytes")?))
}

/// As fast as one sender can; what counts is what arrives.
fn small_datagrams(site: &Site, whom: &Contestant) -> Result<Vec<(&'static str, f64)>> {
    let answer = iperf(site, whom, "--udp --bitrate 0 --length 64")?;
    let sum = &answer["end"]["sum"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says no {name}: {answer}"));
    let arrived = number("packets")? - number("lost_packets")?;
    Ok(vec![(UDP_64, arrived / number("seconds")? / 1e3)])
}

fn ping(site: &Site, whom: &Contestant) -> Result<Vec<(&'static str, f64)>> {
    let said = site.run(whom, &format!("ping -n -i 0.002 -c 500 {}", whom.server))?;
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    let mut times: Vec<f64> = said.lines().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map(|millis| millis * 1e3);
    let (median, late) = at(0.5).zip(at(0.99)).context("nobody answered the ping")?;
    Ok(vec![(PING_50, median), (PING_99, late)])
}
