//! Nebula: certificates of an authority made for the occasion, no lighthouse.

use super::place::Place;
use super::program::Program;
use crate::bench::overlay::site::Contestant;
use crate::program::run;
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

/// 1500 less IP and UDP (28), Nebula's header (16) and tag (16).
const MTU: u16 = 1440;

pub(super) fn connect(place: &Place<'_>, program: &Program) -> Result<Contestant> {
    certify(place, &["ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key"])?;
    let path = program.path.to_str().context("a path in UTF-8")?;
    let mut agents = Vec::new();
    for (number, peer) in [(1, 2), (2, 1)] {
        let (name, address) = (number.to_string(), format!("{}/24", place.address(number)));
        let [certificate, key] = ["crt", "key"].map(|kind| format!("{number}.{kind}"));
        certify(
            place,
            &["sign", "-name", &name, "-ip", &address, "-out-crt", &certificate, "-out-key", &key],
        )?;
        let file = place.file(&format!("{number}.yml"));
        fs::write(&file, configuration(place, number, peer))?;
        agents.push(place.start(number, &[path, "-config", file.to_str().context("a path in UTF-8")?])?);
    }
    for number in [1, 2] {
        // Whatever it sets up itself it has, then.
        place.until(
            number,
            &["sh", "-c", r#"ip -4 addr show | grep -qF "inet $0/""#, &place.address(number)],
        )?;
        place.set_up(number, MTU)?;
    }
    place.contestant(&program.name, MTU, agents)
}

fn certify(place: &Place<'_>, words: &[&str]) -> Result<()> {
    run(Command::new("nebula-cert").args(words).current_dir(place.file(""))).map(drop)
}

fn configuration(place: &Place<'_>, number: usize, peer: usize) -> String {
    let file = |name: String| place.file(&name).display().to_string();
    format!(
        r#"pki:
  ca: "{ca}"
  cert: "{cert}"
  key: "{key}"
static_host_map:
  "{peer_inside}": ["{peer_outside}:{port}"]
lighthouse:
  am_lighthouse: false
listen:
  host: {own}
  port: {port}
tun:
  dev: {interface}
  mtu: {MTU}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"#,
        ca = file("ca.crt".to_owned()),
        cert = file(format!("{number}.crt")),
        key = file(format!("{number}.key")),
        peer_inside = place.address(peer),
        peer_outside = place.host(peer).address(),
        own = place.host(number).address(),
        port = place.port(),
        interface = place.interface(),
    )
}
