//! Where it is measured: labs of two hosts, and everybody who connects them.

use super::skep::{self, Network};
use super::underlay::Underlay;
use super::{kernel, peers};
use crate::bench::Asked;
use crate::bench::ask::Pair;
use crate::lab::{self, Lab, UpOptions};
use anyhow::Result;

/// One cluster has one cipher.
const LABS: [(&str, &str); 2] =
    [("bench-overlay", "chacha20-poly1305"), ("bench-overlay-aes", "aes-256-gcm")];

/// By the lab they are in.
const NETWORKS: [(usize, Network); 3] = [
    (0, Network { contestant: "plain", name: "plain", is_sealed: false, subnet: "10.78.2" }),
    (
        0,
        Network {
            contestant: "sealed, ChaCha20-Poly1305",
            name: "sealed",
            is_sealed: true,
            subnet: "10.78.1",
        },
    ),
    (1, Network { contestant: "sealed, AES-256-GCM", name: "sealed", is_sealed: true, subnet: "10.78.1" }),
];

/// One way to connect two containers.
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) pair: Pair,
}

/// Its labs go with it.
pub(super) struct Site {
    labs: Vec<Lab>,
    /// The kernel, then Skep's.
    pub(super) contestants: Vec<Contestant>,
    /// Others' tunnels, if they are asked for.
    pub(super) peers: Vec<Contestant>,
}

impl Site {
    pub(super) fn build(asked: &Asked) -> Result<Self> {
        let mut site = Self { labs: Vec::new(), contestants: Vec::new(), peers: Vec::new() };
        for (name, cipher) in LABS {
            asked.interrupt.check()?;
            let lab = Lab::new(name)?;
            let options =
                UpOptions { nodes: 2, data_cipher: Some(cipher.to_owned()), ..UpOptions::default() };
            lab::up(&lab, &options)?;
            site.labs.push(lab);
        }
        site.contestants.push(kernel::connect(&site.labs[0], &asked.interrupt)?);
        for (lab, network) in &NETWORKS {
            asked.interrupt.check()?;
            site.contestants.push(skep::connect(&site.labs[*lab], network, &asked.interrupt)?);
        }
        if asked.peers {
            site.peers = peers::connect(&site.labs[0], &asked.interrupt)?;
        }
        Ok(site)
    }

    pub(super) fn lay(&self, underlay: Underlay) -> Result<()> {
        self.labs.iter().try_for_each(|lab| underlay.lay(lab))
    }

    pub(super) fn tear_down(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        self.labs.drain(..).try_for_each(|lab| lab::down(&lab))
    }
}

impl Drop for Site {
    /// After an error, which says more than one of clearing up.
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error:#}");
        }
    }
}
