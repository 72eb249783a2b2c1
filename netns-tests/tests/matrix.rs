//! Everybody asks everybody: what may be reached answers, and nothing else is heard.
//!
//! Three nodes, three networks (one of them internal), containers on each node and network and one on two networks,
//! a service on each network, one of them published. What may be reached is said by [`World::expected`], which knows
//! networks and nothing of how Skep works.

use anyhow::{Context, Result, ensure};
use netns_tests::Running;
use netns_tests::lab::{CLIENT, CLIENT_ADDR, Lab, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const NODES: usize = 3;
/// Red and blue lead outside, green is internal.
const NETWORKS: [&str; 3] = ["red", "blue", "green"];
const INTERNAL: &str = "green";
/// What every server listens on, inside.
const PORT: u16 = 7000;
/// Where the red service is published.
const PUBLISHED: u16 = 8080;
/// The manager's port.
const CONTROL: u16 = 2377;
const FEWEST_PROBES: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// An attached namespace on a node, by its name.
    Container(String),
    /// A process of a node itself.
    Host(usize),
    Outside,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) => write!(f, "container {name}"),
            Self::Host(node) => write!(f, "host n{node}"),
            Self::Outside => write!(f, "the outside machine"),
        }
    }
}

/// What an address is.
#[derive(Clone, Debug)]
enum What {
    Container {
        name: String,
        network: String,
    },
    Vip {
        service: String,
        network: String,
    },
    Gateway {
        network: String,
    },
    /// A task's address, on an overlay or on the ingress network.
    Task {
        service: String,
        network: String,
    },
    /// A node's own address.
    Node(usize),
    /// An address of Skep's own on a node: its `skep0`, its egress bridge, a container's end of that.
    Inner(String),
    Outside,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container { name, network } => write!(f, "{name} on {network}"),
            Self::Vip { service, network } => write!(f, "{service}'s VIP on {network}"),
            Self::Gateway { network } => write!(f, "{network}'s gateway"),
            Self::Task { service, network } => write!(f, "a task of {service} on {network}"),
            Self::Node(node) => write!(f, "n{node}"),
            Self::Inner(name) => write!(f, "{name}"),
            Self::Outside => write!(f, "the outside machine"),
        }
    }
}

#[derive(Default)]
struct World {
    /// Networks of each container.
    networks: BTreeMap<String, BTreeSet<String>>,
    nodes: BTreeMap<String, usize>,
    addresses: Vec<(String, What)>,
    /// Each container's own address on its node's egress bridge: other nodes' containers may have the same.
    ways_out: BTreeMap<String, String>,
}

impl World {
    /// Whether a question is answered, and by whom.
    fn expected(&self, who: &Who, protocol: &str, port: u16, address: &str, what: &What) -> Option<String> {
        if let (Who::Container(name), What::Inner(_)) = (who, what) {
            // Nothing is reached over the egress bridge but oneself.
            return (self.ways_out.get(name)? == address).then(|| name.clone());
        }
        let has = |network: &String| match who {
            Who::Container(name) => self.networks[name].contains(network),
            Who::Host(_) | Who::Outside => false,
        };
        let leads_outside = match who {
            Who::Container(name) => self.networks[name].iter().any(|network| network != INTERNAL),
            Who::Host(_) | Who::Outside => true,
        };
        let pong = || (protocol == "ping").then(|| "pong".to_owned());
        let says = |name: &str| match protocol {
            "ping" => pong(),
            _ => (port == PORT).then(|| name.to_owned()),
        };
        match what {
            What::Container { name, network } if has(network) => says(name),
            What::Vip { service, network } | What::Task { service, network } if has(network) => says(service),
            What::Gateway { network } if has(network) => pong(),
            What::Node(_) if leads_outside && protocol == "tcp" && port == PUBLISHED => {
                Some("red".to_owned())
            }
            What::Outside if leads_outside => says("outside"),
            _ => None,
        }
    }
}

#[test]
fn everybody_reaches_what_they_may_and_nothing_else() -> Result<()> {
    let lab = Lab::up(NODES)?;
    let mut servers = vec![serve(&lab, CLIENT, &[], "outside")?];
    for network in NETWORKS {
        let internal: &[&str] = if network == INTERNAL { &["--internal"] } else { &[] };
        let create = ["network", "create", "-d", "overlay", "--attachable"];
        lab.skep(&[&create, internal, &[network]].concat())?;
    }
    let mut world = World::default();
    for node in 1..=NODES {
        for network in NETWORKS {
            servers.push(world.add_container(&lab, node, &format!("{network}{node}"), &[network])?);
        }
    }
    servers.push(world.add_container(&lab, 1, "both", &["red", "blue"])?);
    for network in NETWORKS {
        world.add_service(&lab, network)?;
    }
    world.add_hosts(&lab)?;
    lead_overlays_to_a_node(&lab)?;

    let mut count = 0;
    let mut wrong = Vec::new();
    for who in world.askers() {
        let questions = world.questions(&who);
        count += questions.len();
        let mut answers = ask(&lab, &world, &who, &questions)?;
        ask_again(&lab, &world, &who, &questions, &mut answers)?;
        for ((question, expected), answer) in questions.iter().zip(answers) {
            let expected = expected.as_deref().unwrap_or("-");
            if answer != *expected {
                wrong.push(format!("{who} asks {question}: expected {expected}, heard {answer}"));
            }
        }
    }
    println!("{count} probes, {} wrong", wrong.len());
    ensure!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(count >= FEWEST_PROBES, "only {count} probes");
    lab.expect_drops(&["gateway_refused"]);
    lab.finish()
}

/// A server on a machine, or in a namespace there. It ends with the test.
fn serve(lab: &Lab, machine: &str, prefix: &[&str], name: &str) -> Result<Running> {
    let (program, port) = (lab.program("prober"), PORT.to_string());
    let mut command = lab.command(machine, &[prefix, &[&program, "serve", name, &port]].concat())?;
    let mut server = Running::start(&mut command)?;
    server.wait_for_line("serving", Duration::from_secs(10))?;
    Ok(server)
}

impl World {
    fn add_container(&mut self, lab: &Lab, node: usize, name: &str, networks: &[&str]) -> Result<Running> {
        let machine = format!("n{node}");
        lab.exec(&machine, &["ip", "netns", "add", name])?;
        for network in networks {
            let netns = format!("/run/netns/{name}");
            lab.exec(&machine, &["skep", "attach", network, "--netns", &netns, "--name", name])?;
        }
        let inside = ["ip", "netns", "exec", name];
        let links = lab.exec(&machine, &[&inside[..], &["ip", "-o", "-4", "addr"]].concat())?;
        let addresses: Vec<String> = addresses(&links).collect();
        let (overlay, egress): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.starts_with("10."));
        ensure!(overlay.len() == networks.len(), "{name} has {overlay:?}");
        for (address, network) in overlay.into_iter().zip(networks) {
            let what = What::Container { name: name.to_owned(), network: (*network).to_owned() };
            self.addresses.push((address, what));
        }
        for address in egress {
            self.addresses.push((address.clone(), What::Inner(format!("{name}'s way out"))));
            self.ways_out.insert(name.to_owned(), address);
        }
        self.networks.insert(name.to_owned(), networks.iter().map(|&n| n.to_owned()).collect());
        self.nodes.insert(name.to_owned(), node);
        serve(lab, &machine, &inside, name)
    }

    /// Two tasks that say their service's name, which is its network's.
    fn add_service(&mut self, lab: &Lab, network: &str) -> Result<()> {
        let publish = format!("{PUBLISHED}:{PORT}");
        let publish: &[&str] = if network == "red" { &["--publish", &publish] } else { &[] };
        let (program, port) = (lab.program("prober"), PORT.to_string());
        let create = ["service", "create", "-d", "--replicas", "2", "--name", network, "--network", network];
        lab.skep(&[&create[..], publish, &["host", &program, "serve", network, &port]].concat())?;
        lab.until_running(network, 2)?;
        let service = inspect(lab, &["service", "inspect", network])?;
        for vip in service["Endpoint"]["VirtualIPs"].as_array().context("the service has VIPs")? {
            let address = vip["Addr"].as_str().and_then(|addr| addr.split('/').next()).context("a VIP")?;
            let network = self.network_of(lab, &vip["NetworkID"])?;
            let what = What::Vip { service: network.clone(), network };
            self.addresses.push((address.to_owned(), what));
        }
        for (task, _) in lab.running(network)? {
            self.add_task(lab, network, &task)?;
        }
        Ok(())
    }

    fn add_task(&mut self, lab: &Lab, service: &str, task: &str) -> Result<()> {
        let task = lab.get(&format!("/tasks/{task}"))?;
        for attachment in task["NetworksAttachments"].as_array().context("the task has addresses")? {
            let network = attachment["Network"]["Spec"]["Name"].as_str().context("a network")?.to_owned();
            for address in attachment["Addresses"].as_array().context("addresses")? {
                let address = address.as_str().and_then(|a| a.split('/').next()).context("an address")?;
                let what = What::Task { service: service.to_owned(), network: network.clone() };
                self.addresses.push((address.to_owned(), what));
            }
        }
        Ok(())
    }

    fn network_of(&self, lab: &Lab, id: &serde_json::Value) -> Result<String> {
        let network = inspect(lab, &["network", "inspect", id.as_str().context("a network's id")?])?;
        Ok(network["Name"].as_str().context("a network's name")?.to_owned())
    }

    /// The nodes' addresses, and those Skep gave them.
    fn add_hosts(&mut self, lab: &Lab) -> Result<()> {
        for network in NETWORKS {
            let inspected = inspect(lab, &["network", "inspect", network])?;
            let gateway = inspected["IPAM"]["Config"][0]["Gateway"].as_str().context("a gateway")?;
            self.addresses.push((gateway.to_owned(), What::Gateway { network: network.to_owned() }));
        }
        for node in 1..=NODES {
            self.addresses.push((Lab::addr(node), What::Node(node)));
            for interface in ["skep0", "skep_gwbridge"] {
                let links = lab.exec(&format!("n{node}"), &["ip", "-o", "-4", "addr", "show", interface])?;
                let name = format!("n{node}'s {interface}");
                self.addresses.extend(addresses(&links).map(|a| (a, What::Inner(name.clone()))));
            }
        }
        self.addresses.push((CLIENT_ADDR.to_owned(), What::Outside));
        Ok(())
    }

    fn askers(&self) -> Vec<Who> {
        let containers = self.networks.keys().cloned().map(Who::Container);
        containers.chain((1..=NODES).map(Who::Host)).chain([Who::Outside]).collect()
    }

    /// Each address by each protocol, with the answer that is due.
    fn questions(&self, who: &Who) -> Vec<(Question, Option<String>)> {
        let mut questions = Vec::new();
        for (address, what) in &self.addresses {
            if is_own_business(who, what) {
                continue;
            }
            let mut add = |protocol, port| {
                let expected = self.expected(who, protocol, port, address, what);
                questions.push((
                    Question { protocol, port, address: address.clone(), what: what.clone() },
                    expected,
                ));
            };
            add("tcp", PORT);
            add("udp", PORT);
            if !matches!(what, What::Node(_) | What::Outside | What::Inner(_)) {
                add("ping", 0);
            }
            if matches!(what, What::Node(_)) {
                add("tcp", PUBLISHED);
                add("tcp", CONTROL);
            }
        }
        questions
    }
}

/// A host and what is on it: its own addresses are its own business, and so is whatever it routes to itself.
fn is_own_business(who: &Who, what: &What) -> bool {
    matches!((who, what), (Who::Host(_), What::Inner(_)) | (Who::Outside, What::Outside))
}

#[derive(Clone, Debug)]
struct Question {
    protocol: &'static str,
    address: String,
    port: u16,
    what: What,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{} ({})", self.protocol, self.address, self.port, self.what)
    }
}

/// An answer that is due and did not come is asked for once more: a datagram may be lost, and a busy machine late.
/// What must not be heard is asked for once, and heard never.
fn ask_again(
    lab: &Lab,
    world: &World,
    who: &Who,
    questions: &[(Question, Option<String>)],
    answers: &mut [String],
) -> Result<()> {
    let is_missing = |at: &usize| answers[*at] == "-" && questions[*at].1.is_some();
    let missing: Vec<usize> = (0..questions.len()).filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let again: Vec<_> = missing.iter().map(|at| questions[*at].clone()).collect();
    for (at, answer) in missing.into_iter().zip(ask(lab, world, who, &again)?) {
        answers[at] = answer;
    }
    Ok(())
}

fn ask(lab: &Lab, world: &World, who: &Who, questions: &[(Question, Option<String>)]) -> Result<Vec<String>> {
    let prober = lab.program("prober");
    let (machine, prefix) = match who {
        Who::Container(name) => (format!("n{}", world.nodes[name]), vec!["ip", "netns", "exec", name]),
        Who::Host(node) => (format!("n{node}"), Vec::new()),
        Who::Outside => (CLIENT.to_owned(), Vec::new()),
    };
    let mut command = lab.command(&machine, &[&prefix[..], &[&prober, "ask"]].concat())?;
    let mut asking = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = asking.stdin.take().context("standard input is piped")?;
    for (question, _) in questions {
        match question.protocol {
            "ping" => writeln!(stdin, "ping {}", question.address)?,
            protocol => writeln!(stdin, "{protocol} {} {}", question.address, question.port)?,
        }
    }
    drop(stdin);
    let output = asking.wait_with_output()?;
    let answers: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    ensure!(answers.len() == questions.len(), "{} answers to {} questions", answers.len(), questions.len());
    Ok(answers)
}

/// The outside machine sends whatever is for an overlay to n1: it could be a neighbour who knows the addresses.
fn lead_overlays_to_a_node(lab: &Lab) -> Result<()> {
    for range in ["10.0.0.0/8", "172.16.0.0/12"] {
        lab.exec(CLIENT, &["ip", "route", "add", range, "via", &Lab::addr(1)])?;
    }
    eventually(Duration::from_secs(10), "the published service answers", || {
        Ok(lab.read_tcp(CLIENT, &Lab::addr(1), PUBLISHED)? == "red")
    })
}

fn inspect(lab: &Lab, args: &[&str]) -> Result<serde_json::Value> {
    let inspected: serde_json::Value = serde_json::from_str(&lab.skep(args)?)?;
    Ok(inspected[0].clone())
}

/// The addresses in `ip -o -4 addr`, without loopback's.
fn addresses(links: &str) -> impl Iterator<Item = String> + '_ {
    let inet = links.lines().filter_map(|line| line.split_whitespace().skip_while(|w| *w != "inet").nth(1));
    inet.filter_map(|address| address.split('/').next()).filter(|a| !a.starts_with("127.")).map(str::to_owned)
}
