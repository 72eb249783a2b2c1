//! Paths that carry less than the nodes' interfaces, or become so under way, whether anybody says so or not: nothing
//! hangs, nothing is changed, and whoever must know the size is told.

use anyhow::{Context, Result, ensure};
use netns_tests::flow::{Flow, PORT, Report};
use netns_tests::hop::Hop;
use netns_tests::lab::{CLIENT, Lab, eventually};
use std::thread::sleep;
use std::time::Duration;

/// The promise is three seconds, which is asserted on virtual time; here others want the processors as well.
const LONGEST_GAP: Duration = Duration::from_secs(6);
/// A flow lasts long enough to end well after its path has changed.
const LASTS: u64 = 8;
const BEFORE_THE_CHANGE: Duration = Duration::from_secs(2);
/// A path is tried for more once a minute.
const WIDENS_WITHIN: Duration = Duration::from_secs(75);
/// What sealed and plain frames take of a packet.
const SEALED: u64 = 82;
const PLAIN: u64 = 50;
/// TCP's timestamps take these of each segment, and both headers the rest.
const HEADERS: u64 = 12 + 40;
/// A search ends when the gap is no larger.
const CLOSE: u64 = 8;

/// From where to where.
#[derive(Clone, Copy)]
enum Way {
    /// A container of n1 to a service's VIP, whose task is on n2.
    Network(&'static str),
    /// The outside machine to the port n1 publishes for it.
    Published,
}
use Way::{Network, Published};

/// A lab with a router between its first two nodes, two networks, and on n2 the task flows go to.
fn lab() -> Result<Lab> {
    let lab = Lab::up(2)?;
    serve(&lab, &["sealed", "plain"], "there", "n2")?;
    // What is too large is refused, and told; what is under way when a path becomes narrower comes in parts.
    lab.expect_drops(&["fragmentation_needed", "fragment_orphaned"]);
    Ok(lab)
}

fn serve(lab: &Lab, networks: &[&str], name: &str, node: &str) -> Result<()> {
    let (place, program) = (format!("node.hostname=={node}"), lab.program("flow"));
    let udp = format!("{PORT}:{PORT}/udp");
    let tcp = format!("{PORT}:{PORT}");
    let mut create = vec!["service", "create", "-d", "--name", name, "--constraint", &place];
    for network in networks {
        let encrypted = format!("encrypted={}", *network != "plain");
        if lab.try_exec("n1", &["skep", "network", "inspect", network])?.status.success() {
            continue;
        }
        lab.skep(&["network", "create", "-d", "overlay", "--attachable", "--opt", &encrypted, network])?;
    }
    networks.iter().for_each(|network| create.extend(["--network", network]));
    if name == "there" {
        create.extend(["-p", &tcp, "-p", &udp]);
    }
    create.extend(["host", &program, "serve", PORT]);
    lab.skep(&create)?;
    lab.until_running(name, 1)
}

fn start(lab: &Lab, way: Way, what: &str, lasts: u64) -> Result<Flow> {
    match way {
        Network(network) => Flow::contained(lab, network, what, "there", lasts),
        Published => Flow::outside(lab, what, 1, lasts),
    }
}

/// A flow under way when the path becomes as narrow as `width`.
fn narrowed_during(lab: &Lab, hop: &Hop<'_>, way: Way, what: &str, width: u16) -> Result<Report> {
    let name = match way {
        Network(network) => network,
        Published => "published",
    };
    let flow = start(lab, way, what, LASTS)?;
    sleep(BEFORE_THE_CHANGE);
    hop.narrow(width)?;
    let report = flow.report()?;
    println!("{what} on {name}, narrowed to {width}: {report:?}");
    check(&report)?;
    let sender = if what == "down" { 2 } else { 1 };
    let path = path_mtu(lab, sender, if sender == 1 { 2 } else { 1 })?;
    let width = u64::from(width);
    ensure!((width - CLOSE..=width).contains(&path), "n{sender} takes {path} for {width}");
    Ok(report)
}

fn check(report: &Report) -> Result<()> {
    report.ensure_intact()?;
    ensure!(report.longest_gap()? < LONGEST_GAP, "{report:?}");
    Ok(())
}

/// To another node, as `node` knows it.
fn path_mtu(lab: &Lab, node: usize, other: usize) -> Result<u64> {
    let paths = lab.get_from(node, "/skep/paths")?;
    let paths = paths.as_array().context("a list of paths")?;
    let path = paths.iter().find(|path| path["Peer"] == Lab::addr(other).as_str()).context("a path")?;
    path["PathMTU"].as_u64().with_context(|| path.to_string())
}

/// In a container of n1.
fn contained(lab: &Lab, network: &str, words: &[&str]) -> Result<String> {
    lab.exec("n1", &[&["skep", "run", "--rm", "--network", network, "host"], words].concat())
}

#[test]
fn no_flow_hangs_where_nobody_says_that_the_path_became_narrower() -> Result<()> {
    let lab = lab()?;
    let hop = Hop::between_first_two(&lab)?;
    hop.hush()?;
    // The task's host is told inside its own node, in the VIP's name: the kernel believes that of no other.
    let told = narrowed_during(&lab, &hop, Network("sealed"), "datagrams", 1_400)?;
    ensure!(told.number("refused")? > 0, "{told:?}");
    narrowed_during(&lab, &hop, Network("sealed"), "up", 1_300)?;
    narrowed_during(&lab, &hop, Published, "up", 1_280)?;
    narrowed_during(&lab, &hop, Network("plain"), "up", 1_200)?;
    narrowed_during(&lab, &hop, Network("plain"), "datagrams", 1_100)?;
    narrowed_during(&lab, &hop, Network("sealed"), "down", 1_000)?;
    narrowed_during(&lab, &hop, Published, "down", 900)?;
    // Neither do nodes and managers: what this one's assignment takes is more than one packet.
    let long = format!("LONG={}", "x".repeat(6_000));
    let create = ["service", "create", "-d", "--name", "long", "--env", &long];
    lab.skep(&[&create[..], &["--constraint", "node.hostname==n2", "host", "sleep", "1000"]].concat())?;
    lab.until_running("long", 1)?;
    lab.finish()
}

#[test]
fn no_flow_hangs_where_routers_say_so() -> Result<()> {
    let lab = lab()?;
    let hop = Hop::between_first_two(&lab)?;
    narrowed_during(&lab, &hop, Network("sealed"), "up", 1_400)?;
    narrowed_during(&lab, &hop, Published, "datagrams", 1_300)?;
    narrowed_during(&lab, &hop, Published, "up", 1_280)?;
    narrowed_during(&lab, &hop, Network("plain"), "down", 1_000)?;
    lab.finish()
}

#[test]
fn what_begins_on_a_narrow_path_fits_it_and_what_it_carries_later_is_found() -> Result<()> {
    let lab = lab()?;
    let hop = Hop::between_first_two(&lab)?;
    hop.hush()?;
    narrowed_during(&lab, &hop, Network("sealed"), "up", 1_280)?;
    let width = path_mtu(&lab, 1, 2)?;
    let nodes: serde_json::Value = serde_json::from_str(&lab.skep(&["node", "inspect", "n2"])?)?;
    ensure!(nodes[0]["DataPath"]["PathMTU"] == width, "{nodes}");
    for (network, overhead) in [("sealed", SEALED), ("plain", PLAIN)] {
        let link = contained(&lab, network, &["ip", "-o", "link", "show", "eth0"])?;
        ensure!(link.contains(&format!("mtu {} ", width - overhead)), "{width}: {link}");
        let report = start(&lab, Network(network), "up", 2)?.report()?;
        check(&report)?;
        ensure!(report.number("mss")? + HEADERS == width - overhead, "{report:?}");
    }
    // A client that may be told, for a change: of the size on the way to the task, in the name of whom it asked.
    let size = |report: String| Report::read(report.trim())?.number("mtu");
    let program = lab.program("flow");
    lab.exec(CLIENT, &["nft", "flush", "ruleset"])?;
    let told = size(lab.exec(CLIENT, &[&program, "size", &Lab::addr(1), PORT])?)?;
    ensure!(told == width - SEALED, "{told} of {width}");

    let flow = start(&lab, Network("sealed"), "datagrams", WIDENS_WITHIN.as_secs())?;
    hop.widen()?;
    eventually(WIDENS_WITHIN, "the whole width is found", || Ok(path_mtu(&lab, 1, 2)? == 1_500))?;
    check(&flow.report()?)?;
    lab.finish()
}

#[test]
fn jumbo_frames_go_where_they_fit_and_no_flow_hangs_where_they_stop_to() -> Result<()> {
    let lab = Lab::up(3)?;
    for node in ["n1", "n2"] {
        lab.underlay()?.run(&format!("ip link set {node} mtu 9000"))?;
        lab.exec(node, &["ip", "link", "set", "eth0", "mtu", "9000"])?;
        // The interface's MTU is looked at when a daemon starts.
        lab.xtask(&["lab", "daemon", node, "kill"])?;
        lab.xtask(&["lab", "daemon", node, "start"])?;
    }
    eventually(Duration::from_secs(20), "the paths are measured", || {
        Ok([path_mtu(&lab, 1, 2)?, path_mtu(&lab, 2, 1)?, path_mtu(&lab, 1, 3)?] == [9_000, 9_000, 1_500])
    })?;
    // Whoever starts before gets an interface for what is known by then.
    serve(&lab, &["sealed"], "there", "n2")?;
    serve(&lab, &["sealed"], "elsewhere", "n3")?;
    for (name, width) in [("there", 9_000), ("elsewhere", 1_500)] {
        let report = Flow::contained(&lab, "sealed", "up", name, 2)?.report()?;
        println!("to {name}: {report:?}");
        check(&report)?;
        ensure!(report.number("mss")? + HEADERS == width - SEALED, "{report:?}");
    }
    let flow = start(&lab, Network("sealed"), "up", LASTS)?;
    sleep(BEFORE_THE_CHANGE);
    // A bridge drops in silence what its port is too narrow for.
    lab.underlay()?.run("ip link set n2 mtu 1500")?;
    let report = flow.report()?;
    println!("to there, narrowed to 1500: {report:?}");
    check(&report)?;
    ensure!((1_500 - CLOSE..=1_504).contains(&path_mtu(&lab, 1, 2)?), "{}", path_mtu(&lab, 1, 2)?);
    lab.finish()
}
