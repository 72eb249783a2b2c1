//! Underlays that lose and spoil datagrams, and a node whose clock is years off, with all there is of Skep.

use anyhow::{Context, Result, ensure};
use netns_tests::flow::{Flow, PORT, Report};
use netns_tests::lab::{Lab, eventually};
use std::fs::OpenOptions;
use std::time::{Duration, Instant};

const MEGABYTE: u64 = 1_000_000;
/// Some ten times what it takes where nobody else wants the processors.
const TEN_MEGABYTES_WITHIN: Duration = Duration::from_secs(120);
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a sealed datagram's bytes, where each kind of it is read: flags, network, kind, session, counter, and what is sealed.
const SPOILT: [u64; 10] = [0, 4, 6, 7, 9, 15, 17, 24, 70, 120];
const TEN_YEARS: [&str; 2] = ["+3650d", "-3650d"];

/// Two nodes, a sealed network, and a service on each.
fn lab() -> Result<Lab> {
    let lab = Lab::up(2)?;
    lab.skep(&["network", "create", "-d", "overlay", "--attachable", "net"])?;
    serve(&lab, "here", "n1")?;
    serve(&lab, "there", "n2")?;
    Ok(lab)
}

fn serve(lab: &Lab, name: &str, node: &str) -> Result<()> {
    let (place, program) = (format!("node.hostname=={node}"), lab.program("flow"));
    let create = ["service", "create", "-d", "--network", "net", "--constraint", &place, "--name", name];
    lab.skep(&[&create[..], &["host", &program, "serve", PORT]].concat())?;
    lab.until_running(name, 1)
}

/// What becomes of the data path's datagrams on their way, of each by itself, in each direction. A network card cuts runs
/// of datagrams before the wire (UDP_SEGMENT); a veth hands them on whole, and one fate would be that of forty.
fn befall(lab: &Lab, fates: &[String]) -> Result<()> {
    for node in ["n1", "n2"] {
        lab.exec(node, &["ethtool", "-K", "eth0", "tx-udp-segmentation", "off"])?;
    }
    lab.underlay()?.run("nft add table bridge fate")?;
    lab.underlay()?.run("nft add chain bridge fate pass { type filter hook forward priority 0; }")?;
    for fate in fates {
        lab.underlay()?
            .run(&format!("nft add rule bridge fate pass udp dport 4789 numgen random mod 100 < {fate}"))?;
    }
    Ok(())
}

fn spoilt(percent_each: u32) -> [String; SPOILT.len()] {
    SPOILT.map(|at| format!("{percent_each} @th,{},8 set 0x5a", 64 + 8 * at))
}

fn burst(lab: &Lab, bytes: u64) -> Result<Duration> {
    let begin = Instant::now();
    let report = Flow::contained(lab, "net", "burst", "there", bytes)?.report()?;
    println!("{bytes} bytes in {:?}: {report:?}", begin.elapsed());
    report.ensure_intact()?;
    ensure!(report.number("bytes")? == bytes, "{report:?}");
    Ok(begin.elapsed())
}

/// Where a third is lost each way, TCP itself stands still for a minute in one connection of ten, also between two hosts
/// without Skep: its estimate of the round trip grows to seconds. One that ends must be whole.
fn one_burst_of(tries: usize, lab: &Lab, bytes: u64) -> Result<()> {
    for _ in 1..tries {
        let report = Flow::contained(lab, "net", "burst", "there", bytes)?.report();
        let Ok(report) = report else { continue };
        report.ensure_intact()?;
        ensure!(report.number("bytes")? == bytes, "{report:?}");
        return Ok(());
    }
    burst(lab, bytes).map(|_| ())
}

#[test]
fn ten_megabytes_arrive_whole_where_a_fifth_is_lost_each_way() -> Result<()> {
    let lab = lab()?;
    befall(&lab, &["20 counter drop".to_owned()])?;
    ensure!(burst(&lab, 10 * MEGABYTE)? < TEN_MEGABYTES_WITHIN);
    println!("{}", lab.underlay()?.run("nft list table bridge fate")?);
    lab.finish()
}

/// Sealed frames carry partial checksums: had the seal let a spoilt one pass, nobody after it would have noticed.
#[test]
fn nothing_spoilt_arrives_where_a_third_of_all_datagrams_are() -> Result<()> {
    let lab = lab()?;
    lab.expect_drops(&[
        "seal_broken",
        "session_unknown",
        "vxlan_flags",
        "vxlan_mark",
        "unsealed",
        "unknown_vni",
    ]);
    lab.expect_drops(&["handshake_mac", "handshake_forged", "handshake_malformed"]);
    // Where probes of its size are spoilt in a row, the path is taken for a narrow one.
    lab.expect_drops(&["fragmentation_needed"]);
    // Each of ten: 30 % of datagrams have at least one such byte.
    befall(&lab, &spoilt(4))?;
    let datagrams = Flow::contained(&lab, "net", "datagrams", "there", 5)?.report()?;
    println!("{datagrams:?}");
    datagrams.ensure_intact()?;
    one_burst_of(TRIES, &lab, MEGABYTE)?;
    lab.underlay()?.run("nft delete table bridge fate")?;
    befall(&lab, &spoilt(1))?;
    burst(&lab, 10 * MEGABYTE)?;
    for node in 1..=2 {
        let drops = lab.drops(node)?;
        println!("n{node}: {drops:?}");
        ensure!(drops.contains_key("seal_broken"), "no spoilt datagram reached n{node}: {drops:?}");
    }
    lab.finish()
}

/// Its certificate has expired by its own clock, or is not valid yet. So the managers are out of its reach, and it goes
/// by what it wrote down; sessions use no clock but the time since the process began.
#[test]
fn a_node_whose_clock_is_ten_years_off_reaches_the_others() -> Result<()> {
    let lab = lab()?;
    let call = format!("while :; do {} burst here {PORT} 100000; sleep 0.2; done", lab.program("flow"));
    let create = ["service", "create", "-d", "--name", "caller", "--network", "net"];
    let place = ["--constraint", "node.hostname==n2", "host", "sh", "-c", &call];
    lab.skep(&[&create[..], &place[..]].concat())?;
    lab.until_running("caller", 1)?;
    eventually(PATIENCE, "n2 reaches n1", || Ok(calls(&lab)? > 0))?;
    for shift in TEN_YEARS {
        lab.xtask(&["lab", "daemon", "n2", "kill"])?;
        start_shifted(&lab, shift)?;
        let before = calls(&lab)?;
        eventually(PATIENCE, &format!("n2 reaches n1 with its clock at {shift}"), || {
            Ok(calls(&lab)? >= before + 5)
        })?;
        let year: i32 = lab.get_from(2, "/skep/paths")?[0]["SessionSince"]
            .as_str()
            .and_then(|since| since.get(..4)?.parse().ok())
            .context("a session")?;
        println!("n2 took the year for {year}");
        ensure!(!(2020..2035).contains(&year), "{year}: the clock is right");
    }
    lab.xtask(&["lab", "daemon", "n2", "kill"])?;
    lab.xtask(&["lab", "daemon", "n2", "start"])?;
    eventually(PATIENCE, "n2 is back", || {
        Ok(lab.skep(&["node", "ls", "--format", "{{.Status}}"])?.trim() == "Ready\nReady")
    })?;
    lab.finish()
}

/// The node's daemon, by a clock that is off by `shift`.
fn start_shifted(lab: &Lab, shift: &str) -> Result<()> {
    let (dir, path) = (lab.dir(), |path: &std::path::Path| path.to_string_lossy().into_owned());
    let (socket, state) = (path(&dir.join("n2.sock")), path(&dir.join("n2")));
    let log = OpenOptions::new().append(true).open(dir.join("n2.log"))?;
    let words = ["faketime", "-f", shift, "skepd", "--socket", &socket, "--state-dir", &state];
    // It ends with the host.
    lab.command("n2", &words)?.stdout(log.try_clone()?).stderr(log).spawn()?;
    eventually(PATIENCE, "n2 answers", || lab.get_from(2, "/skep/paths").map(|paths| paths.is_array()))
}

/// How often n2's task has moved its bytes to n1's, whole.
fn calls(lab: &Lab) -> Result<usize> {
    let said = lab.skep(&["service", "logs", "--raw", "here"])?;
    let reports = said.lines().filter(|line| line.starts_with("bytes")).map(Report::read);
    let reports = reports.collect::<Result<Vec<_>>>()?;
    reports.iter().try_for_each(Report::ensure_intact)?;
    Ok(reports.len())
}
