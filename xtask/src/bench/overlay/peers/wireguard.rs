//! WireGuard, by any program that is told what to do by `wg`.

use super::place::Place;
use super::program::Program;
use crate::bench::overlay::site::Contestant;
use crate::program::run;
use anyhow::{Context, Result};
use std::process::Command;

/// 1500 less IP and UDP (28), WireGuard's header (16) and tag (16).
const MTU: u16 = 1440;

/// Makes a key that only root may read, and says the public one.
const KEY: &str = r#"umask 077; wg genkey > "$0"; wg pubkey < "$0""#;

pub(super) fn connect(place: &Place<'_>, program: &Program) -> Result<Contestant> {
    let interface = place.interface();
    let path = program.path.to_str().context("a path in UTF-8")?;
    let words = [&[path], program.options, &[&*interface]].concat();
    let mut agents = Vec::new();
    let mut public = Vec::new();
    for number in [1, 2] {
        agents.push(place.start(number, &words)?);
        let key = run(Command::new("sh").args(["-c", KEY]).arg(key_file(place, number)))?;
        public.push(key.trim().to_owned());
    }
    for (number, peer) in [(1, 2), (2, 1)] {
        // Answered once it listens to `wg`.
        place.until(number, &["wg", "show", &interface])?;
        let private = key_file(place, number);
        let mut words = vec!["wg", "set", &interface, "private-key"];
        words.push(private.to_str().context("a path in UTF-8")?);
        let (port, address) = (place.port().to_string(), format!("{}/32", place.address(peer)));
        let endpoint = format!("{}:{port}", place.host(peer).address());
        words.extend(["listen-port", &port, "peer", &public[peer - 1], "endpoint", &endpoint]);
        words.extend(["allowed-ips", &address]);
        place.run(number, &words)?;
        place.set_up(number, MTU)?;
    }
    place.contestant(&program.name, MTU, agents)
}

fn key_file(place: &Place<'_>, number: usize) -> std::path::PathBuf {
    place.file(&format!("{number}.key"))
}
