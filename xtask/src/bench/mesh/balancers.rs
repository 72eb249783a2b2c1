//! Others that pass connections on.

use crate::lab::{Host, Lab};
use crate::program::{command, run};
use anyhow::{Context, Result};
use std::fs;

/// On a host, in TCP mode: one of HAProxy's threads for each processor, which is its default, and room for more
/// connections than are made.
pub(super) fn haproxy(host: &Host, lab: &Lab, port: u16, (server, server_port): (&str, u16)) -> Result<()> {
    let file = lab.directory().join("haproxy.cfg");
    let config = format!(
        "\
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen mesh
    bind :{port}
    server task {server}:{server_port}
"
    );
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    host.run(&format!("haproxy -D -f {}", file.display()))?;
    Ok(())
}

/// As its table names it: Debian's.
pub(super) fn haproxy_version() -> Result<String> {
    let said = run(&mut command("haproxy -v"))?;
    // HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/
    let version = said.split_whitespace().nth(2).and_then(|version| version.split('-').next());
    Ok(version.context("HAProxy says no version")?.to_owned())
}

/// On a host: destinations by port out of a map. What is passed on has the host's address, so that answers come back.
pub(super) fn nftables(host: &Host, port: u16, (server, server_port): (&str, u16)) -> Result<()> {
    host.run("sysctl -q -w net.ipv4.ip_forward=1")?;
    for line in [
        "add table ip mesh".to_owned(),
        "add map ip mesh published { type inet_service : ipv4_addr . inet_service; }".to_owned(),
        format!("add element ip mesh published {{ {port} : {server} . {server_port} }}"),
        "add chain ip mesh in { type nat hook prerouting priority dstnat; }".to_owned(),
        "add rule ip mesh in dnat ip to tcp dport map @published".to_owned(),
        "add chain ip mesh out { type nat hook postrouting priority srcnat; }".to_owned(),
        "add rule ip mesh out oifname br0 masquerade".to_owned(),
    ] {
        host.run(&format!("nft {line}"))?;
    }
    Ok(())
}
