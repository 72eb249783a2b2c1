//! Where it is measured: labs of two hosts, a container namespace on each host for every network, and beside them the
//! kernel's own vxlan between the same hosts.

use crate::bench::ask::Pair;
use crate::bench::kernel;
use crate::lab::{self, Host, Lab, UpOptions};
use anyhow::Result;

/// One way to connect two containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contestant {
    pub(super) name: &'static str,
    lab: usize,
    netns: &'static str,
    /// The address of the container on host 2.
    pub(super) server: &'static str,
    /// None: the kernel's.
    network: Option<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    is_encrypted: &'static str,
    subnet: &'static str,
}

const KERNEL: Contestant =
    Contestant { name: "kernel vxlan", lab: 0, netns: "kernel", server: "10.77.0.2", network: None };

const fn skep(name: &'static str, lab: usize, netns: &'static str, is_encrypted: &'static str) -> Contestant {
    let (server, subnet) = match is_encrypted.len() {
        4 => ("10.78.1.3", "10.78.1.0/24"),
        _ => ("10.78.2.3", "10.78.2.0/24"),
    };
    Contestant { name, lab, netns, server, network: Some(Network { is_encrypted, subnet }) }
}

const CONTESTANTS: [Contestant; 4] = [
    KERNEL,
    skep("plain", 0, "plain", "false"),
    skep("sealed, ChaCha20-Poly1305", 0, "sealed", "true"),
    skep("sealed, AES-256-GCM", 1, "sealed", "true"),
];

const CIPHERS: [(&str, &str); 2] = [("bench", "chacha20-poly1305"), ("bench-aes", "aes-256-gcm")];

pub(super) struct Site {
    labs: Vec<Lab>,
}

impl Site {
    pub(super) fn build() -> Result<Self> {
        let mut site = Self { labs: Vec::new() };
        if let Err(error) = site.build_all() {
            // The first error says more than one of clearing up.
            let _ = site.tear_down();
            return Err(error);
        }
        Ok(site)
    }

    fn build_all(&mut self) -> Result<()> {
        for (name, cipher) in CIPHERS {
            let lab = Lab::new(name)?;
            let options =
                UpOptions { nodes: 2, data_cipher: Some(cipher.to_owned()), ..UpOptions::default() };
            self.labs.push(lab.clone());
            lab::up(&lab, &options)?;
        }
        for contestant in CONTESTANTS {
            match contestant.network {
                None => self.connect_by_kernel(&contestant)?,
                Some(network) => self.connect_by_skep(&contestant, network)?,
            }
            self.host(&contestant, 2)
                .run(&format!("ip netns exec {} iperf3 --server --daemon", contestant.netns))?;
        }
        Ok(())
    }

    fn connect_by_kernel(&self, contestant: &Contestant) -> Result<()> {
        for (number, peer) in [(1, 2), (2, 1)] {
            let (host, peer) = (self.host(contestant, number), self.host(contestant, peer));
            kernel::bridge(&host)?;
            kernel::vxlan(&host, &peer)?;
            kernel::container(&host, contestant.netns, &format!("10.77.0.{number}"), kernel::VXLAN_MTU)?;
        }
        Ok(())
    }

    fn connect_by_skep(&self, contestant: &Contestant, network: Network) -> Result<()> {
        let (name, Network { is_encrypted, subnet }) = (contestant.netns, network);
        self.host(contestant, 1).run(&format!(
            "skep network create --driver overlay --attachable --subnet {subnet} --opt encrypted={is_encrypted} {name}"
        ))?;
        for number in [1, 2] {
            let host = self.host(contestant, number);
            let addr = contestant.server.replace(".3", if number == 1 { ".2" } else { ".3" });
            host.run(&format!("ip netns add {name}"))?;
            host.run(&format!("skep attach {name} --netns /run/netns/{name} --ip {addr}"))?;
        }
        Ok(())
    }

    pub(super) fn contestants(&self) -> impl Iterator<Item = &'static Contestant> + use<> {
        CONTESTANTS.iter()
    }

    fn host(&self, contestant: &Contestant, number: usize) -> Host {
        self.labs[contestant.lab].node(number)
    }

    /// The containers on both hosts.
    pub(super) fn pair(&self, contestant: &Contestant) -> Pair<'static> {
        let host = |number| self.host(contestant, number);
        let agents = contestant.network.map_or(Vec::new(), |_| vec![host(1), host(2)]);
        Pair { host: host(1), netns: contestant.netns, server: contestant.server, agents }
    }

    pub(super) fn tear_down(&mut self) -> Result<()> {
        self.labs.drain(..).try_for_each(|lab| lab::down(&lab))
    }
}
