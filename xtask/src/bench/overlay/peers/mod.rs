//! Other userspace tunnels between the same two hosts, all of them sealed.
//!
//! Their interfaces are in containers, as Skep's are, without anything in between. Each has the largest MTU that fits
//! its packets into the underlay's 1500 bytes and the cipher that it chooses by itself. Their programs are Debian's, or
//! crates.io's built here; Debian's that are far behind upstream say so in their names.
//!
//! The newest wireguard-go, with segmentation offloads, is in neither. It takes part if its program is where the built
//! ones are, which a Go toolchain does, in the repository's root:
//! `GOBIN=$PWD/target/bench/peers/bin go install golang.zx2c4.com/wireguard@latest`.

mod nebula;
mod place;
mod program;
mod tinc;
mod wireguard;

use super::site::Contestant;
use crate::interrupt::Interrupt;
use crate::lab::Lab;
use anyhow::Result;
use place::Place;
use program::Program;
pub(super) use program::prepare;

type Connect = fn(&Place<'_>, &Program) -> Result<Contestant>;

/// Connects the lab's hosts by each of them.
pub(super) fn connect(lab: &Lab, interrupt: &Interrupt) -> Result<Vec<Contestant>> {
    let mut peers: Vec<(Program, Connect)> = Vec::new();
    for program in program::wireguards()? {
        peers.push((program, wireguard::connect));
    }
    peers.push((program::nebula()?, nebula::connect));
    peers.push((program::tinc()?, tinc::connect));
    let connect = |(number, (program, connect)): (u16, &(Program, Connect))| {
        connect(&Place::new(lab, number, interrupt)?, program)
    };
    (1..).zip(&peers).map(connect).collect()
}
