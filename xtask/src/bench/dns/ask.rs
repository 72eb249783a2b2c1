//! What is asked, by `dnsperf`, and how its answer is read.

use super::names::{NETWORK, Service};
use super::site::{ASKERS, AT, Contestant, Site};
use anyhow::{Context, Result, ensure};
use std::thread;

/// In seconds, for each.
const TIME: u32 = 2;
/// Questions a second that leave every contestant, and the machine, at ease: a busy container asks as many.
const EASE: u32 = 5_000;
/// That each asker has outstanding when they ask as fast as they can.
const OUTSTANDING: u32 = 8;

const EASE_PER_CORE: &str = "1,000 a core-second, 5,000 a second asked";
const EASE_50: &str = "median at 5,000 a second, µs";
const EASE_99: &str = "99th of 100 at 5,000 a second, µs";
const ONE_SOCKET: [&str; 2] =
    ["1,000 a second, 16 askers with a socket each", "1,000 a core-second, 16 askers with a socket each"];
const MANY_SOCKETS: [&str; 2] =
    ["1,000 a second, 16 askers with 8 sockets each", "1,000 a core-second, 16 askers with 8 sockets each"];

type Figures = Vec<(&'static str, f64)>;

/// The addresses and names are right, and no question is answered with an error.
pub(super) fn check(site: &Site, whom: &Contestant) -> Result<()> {
    for service in site.services() {
        for (asked, mut answer) in expected(service, whom.has_reverse) {
            let said = site.run(whom, 1, &format!("dig @{AT} +short +tries=1 {asked}"))?;
            let mut said: Vec<_> = said.lines().collect();
            said.sort_unstable();
            answer.sort_unstable();
            ensure!(said == answer, "{asked}: {said:?} instead of {answer:?}");
        }
    }
    for asker in 1..=ASKERS {
        dnsperf(site, whom, asker, "-n 1")?;
    }
    Ok(())
}

fn expected(service: &Service, has_reverse: bool) -> Vec<(String, Vec<String>)> {
    let mut expected = Vec::new();
    for (name, addresses) in service.names() {
        expected.push((format!("{name} A"), addresses.iter().map(ToString::to_string).collect()));
    }
    expected.push((format!("{} AAAA", service.name), Vec::new()));
    if has_reverse {
        expected.push((format!("{} PTR", service.reverse()), vec![format!("{}.{NETWORK}.", service.name)]));
    }
    expected
}

/// One container asks as fast as busy ones do: what a question costs that comes alone, and how long its answer takes.
pub(super) fn at_ease(site: &Site, whom: &Contestant) -> Result<Figures> {
    let before = whom.seconds()?;
    let said = dnsperf(site, whom, 1, &format!("-l {TIME} -Q {EASE} -v"))?;
    let used = whom.seconds()? - before;
    // `> NOERROR web A 0.000123`, in seconds.
    let latency = |line: &str| line.strip_prefix("> ")?.rsplit_once(' ')?.1.parse::<f64>().ok();
    let mut latencies: Vec<_> = said.lines().filter_map(latency).collect();
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).map(|seconds| seconds * 1e6);
    let (median, late) = at(0.5).zip(at(0.99)).context("dnsperf tells no latencies")?;
    Ok(vec![(EASE_PER_CORE, latencies.len() as f64 / used / 1e3), (EASE_50, median), (EASE_99, late)])
}

/// All askers as fast as they can, each from one socket, as asynchronous resolver libraries do (c-ares, forwarders).
pub(super) fn flood(site: &Site, whom: &Contestant) -> Result<Figures> {
    flood_from(site, whom, 1, ONE_SOCKET)
}

/// From a socket for each question that is outstanding, as the C library's resolver does in each thread.
pub(super) fn flood_from_many(site: &Site, whom: &Contestant) -> Result<Figures> {
    flood_from(site, whom, OUTSTANDING, MANY_SOCKETS)
}

fn flood_from(
    site: &Site,
    whom: &Contestant,
    sockets: u32,
    [all, per_core]: [&'static str; 2],
) -> Result<Figures> {
    let before = whom.seconds()?;
    let options = format!("-l {TIME} -q {OUTSTANDING} -c {sockets}");
    let said = thread::scope(|scope| {
        let ask = |asker| dnsperf(site, whom, asker, &options);
        let askers: Vec<_> = (1..=ASKERS).map(|asker| scope.spawn(move || ask(asker))).collect();
        let join = |asker: thread::ScopedJoinHandle<'_, _>| asker.join().expect("an asker does not panic");
        askers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let used = whom.seconds()? - before;
    let (mut answered, mut a_second) = (0.0, 0.0);
    for said in said {
        answered += number(&said, "Queries completed:")?;
        a_second += number(&said, "Queries per second:")?;
    }
    Ok(vec![(all, a_second / 1e3), (per_core, answered / used / 1e3)])
}

/// Nothing may be lost, and no answer be an error.
fn dnsperf(site: &Site, whom: &Contestant, asker: usize, options: &str) -> Result<String> {
    let file = whom.questions.display();
    let said = site.run(whom, asker, &format!("dnsperf -s {AT} -d {file} {options}"))?;
    let codes = value(&said, "Response codes:")?;
    let is_error = |code: &str| !["NOERROR", "NXDOMAIN"].iter().any(|good| code.trim().starts_with(good));
    // `NOERROR 900 (90.00%), NXDOMAIN 100 (10.00%)`
    ensure!(!codes.split(',').any(is_error), "errors: {codes}");
    ensure!(number(&said, "Queries lost:")? == 0.0, "lost: {}", value(&said, "Queries lost:")?);
    Ok(said)
}

fn number(said: &str, what: &str) -> Result<f64> {
    let value = value(said, what)?;
    let number = value.split(' ').next().and_then(|number| number.parse().ok());
    number.with_context(|| format!("{what} {value}"))
}

fn value<'a>(said: &'a str, what: &str) -> Result<&'a str> {
    let value = said.lines().find_map(|line| line.trim().strip_prefix(what));
    Ok(value.with_context(|| format!("dnsperf tells no {what}\n{said}"))?.trim())
}
