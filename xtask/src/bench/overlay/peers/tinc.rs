//! Tinc, as a switch: like Skep and the kernel's vxlan it carries frames.

use super::place::Place;
use super::program::Program;
use crate::bench::overlay::site::Contestant;
use crate::program::run;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Of 1500 bytes IP and UDP take 28 and the code that authenticates 4. 1456 are whole blocks of the cipher, of which a
/// sequence number takes 4, padding at least 1 and the frame's header 14.
const MTU: u16 = 1437;

pub(super) fn connect(place: &Place<'_>, program: &Program) -> Result<Contestant> {
    let path = program.path.to_str().context("a path in UTF-8")?;
    for (number, peer) in [(1, 2), (2, 1)] {
        configure(place, number, peer)?;
        // Where the keys go it asks a terminal, if there is one.
        run(Command::new(path).arg("--config").arg(directory(place, number)).arg("--generate-keys=2048"))?;
    }
    let mut agents = Vec::new();
    for (number, peer) in [(1, 2), (2, 1)] {
        fs::copy(public(place, peer, peer), public(place, number, peer))?;
        let own = directory(place, number);
        let config = format!("--config={}", own.display());
        let pid_file = format!("--pidfile={}", own.join("pid").display());
        let words = [&[path], program.options, &[&*config, &*pid_file]].concat();
        agents.push(place.start(number, &words)?);
    }
    for number in [1, 2] {
        place.set_up(number, MTU)?;
    }
    place.contestant(&program.name, MTU, agents)
}

fn configure(place: &Place<'_>, number: usize, peer: usize) -> Result<()> {
    fs::create_dir_all(directory(place, number).join("hosts"))?;
    let (interface, address, port) = (place.interface(), place.host(number).address(), place.port());
    fs::write(
        directory(place, number).join("tinc.conf"),
        format!(
            "Name = host{number}\nMode = switch\nInterface = {interface}\nBindToAddress = {address}\nConnectTo = host{peer}\n"
        ),
    )?;
    fs::write(public(place, number, number), format!("Address = {address}\nPort = {port}\n"))?;
    Ok(())
}

fn directory(place: &Place<'_>, number: usize) -> PathBuf {
    place.file(&number.to_string())
}

/// What a host knows of one, with its public key.
fn public(place: &Place<'_>, number: usize, of: usize) -> PathBuf {
    directory(place, number).join("hosts").join(format!("host{of}"))
}
