//! Two containers of one host: the kernel's bridge and veths, and Skep's networks.
//!
//! Nothing leaves the host, so nothing is encrypted on a sealed network either: both of Skep's should be as fast. Each
//! interface has the MTU its network gives it, 1,500 on the bridge and less on Skep's; what is sent in bulk crosses all
//! three in super-frames of 64 KB, whatever the MTU.

use super::Asked;
use super::ask::{self, Pair, Question};
use super::kernel;
use super::report::Samples;
use crate::lab::{self, Host, Lab, UpOptions};
use anyhow::Result;

const LAB: &str = "bench-local";

const QUESTIONS: [Question; 5] = [
    Question::Tcp { streams: 1 },
    Question::Tcp { streams: 4 },
    Question::SmallDatagrams,
    Question::Ping,
    Question::PingPong,
];

struct Contestant {
    name: &'static str,
    /// Of the network. The containers' namespaces are called after it.
    network: &'static str,
    subnet: &'static str,
    /// The client's address and the server's.
    addresses: [&'static str; 2],
    /// Of Skep's networks, what `encrypted` is; None: the kernel's.
    is_encrypted: Option<bool>,
}

const CONTESTANTS: [Contestant; 3] = [
    Contestant {
        name: "kernel bridge",
        network: "kernel",
        subnet: "10.77.0.0/24",
        addresses: ["10.77.0.2", "10.77.0.3"],
        is_encrypted: None,
    },
    Contestant {
        name: "plain",
        network: "plain",
        subnet: "10.78.1.0/24",
        addresses: ["10.78.1.2", "10.78.1.3"],
        is_encrypted: Some(false),
    },
    Contestant {
        name: "sealed",
        network: "sealed",
        subnet: "10.78.2.0/24",
        addresses: ["10.78.2.2", "10.78.2.3"],
        is_encrypted: Some(true),
    },
];

pub(super) fn run(asked: &Asked) -> Result<Samples> {
    let lab = Lab::new(LAB)?;
    lab::up(&lab, &UpOptions { nodes: 1, ..UpOptions::default() })?;
    let samples = measure(&lab.node(1), asked);
    let removed = lab::down(&lab);
    let samples = samples?;
    removed.map(|()| samples)
}

fn measure(host: &Host, asked: &Asked) -> Result<Samples> {
    let mut pairs = Vec::new();
    for contestant in &CONTESTANTS {
        asked.interrupt.check()?;
        contestant.connect(host)?;
        let [_, server] = contestant.addresses;
        ask::start_servers(host, &contestant.netns(1), server, &asked.interrupt)?;
        pairs.push((contestant.name, contestant.pair(host)?));
    }
    let mut samples = Samples::default();
    asked.each_round(|| {
        for (name, pair) in &pairs {
            for question in QUESTIONS {
                asked.interrupt.check()?;
                for (what, figure) in question.ask(pair)? {
                    samples.add(name, &what, figure);
                }
            }
        }
        Ok(())
    })?;
    Ok(samples)
}

impl Contestant {
    fn netns(&self, number: usize) -> String {
        format!("{}{number}", self.network)
    }

    fn pair(&self, host: &Host) -> Result<Pair> {
        let hosts: &[Host] = if self.is_encrypted.is_some() { std::slice::from_ref(host) } else { &[] };
        let [_, server] = self.addresses;
        let agents = ask::skepds(hosts)?;
        Ok(Pair { host: host.clone(), netns: self.netns(0), server: server.to_owned(), agents })
    }

    fn connect(&self, host: &Host) -> Result<()> {
        let Some(is_encrypted) = self.is_encrypted else {
            kernel::bridge(host)?;
            for (number, address) in self.addresses.iter().enumerate() {
                kernel::container(host, &self.netns(number), address, kernel::ETHERNET_MTU)?;
            }
            return Ok(());
        };
        let (network, subnet) = (self.network, self.subnet);
        host.run(&format!(
            "skep network create --driver overlay --attachable --subnet {subnet} --opt encrypted={is_encrypted} {network}"
        ))?;
        for (number, address) in self.addresses.iter().enumerate() {
            let netns = self.netns(number);
            host.run(&format!("ip netns add {netns}"))?;
            host.run(&format!("skep attach {network} --netns /run/netns/{netns} --ip {address}"))?;
        }
        Ok(())
    }
}
