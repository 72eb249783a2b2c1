//! Debian packages: what skepd, the lab, the demo and the tests run.

use crate::program::{find, is_root, run, run_line};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A program that is run, the package it comes with, and who runs it.
const PROGRAMS: &[(&str, &str)] = &[
    ("nft", "nftables"),              // skepd: the routing mesh and egress
    ("ip", "iproute2"),               // the lab and the tests, with `bridge`
    ("iptables-legacy", "iptables"),  // the tests: firewalls of others
    ("ping", "iputils-ping"),         // the tests
    ("ethtool", "ethtool"),           // the tests: a veth that behaves as a wire
    ("dig", "bind9-dnsutils"),        // the demo and the tests: names
    ("curl", "curl"),                 // the demo and the tests: published ports
    ("socat", "socat"),               // the tests: UDP servers in tasks
    ("faketime", "faketime"),         // the tests: a node whose clock is wrong
    ("redis-server", "redis-server"), // the demo's private service
    ("redis-cli", "redis-tools"),     // the demo's one-off container
    ("git", "git"),                   // the tests: bugs planted by patches
];

/// Packages that have a service of the same name.
const SERVICES: &[&str] = &["redis-server", "unbound"];

/// A daemon's package must not start that daemon on the user's machine (Debian policy §9.3.3).
const POLICY_FILE: &str = "/usr/sbin/policy-rc.d";
const NO_SERVICES: &str = "#!/bin/sh\nexit 101\n";

/// Installs what is missing, as root; otherwise says what to type.
pub(crate) fn ensure() -> Result<()> {
    install(&missing(PROGRAMS))
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let install = format!("apt-get install --yes --no-install-recommends {packages}");
    if !is_root()? || find("apt-get").is_none() {
        bail!("missing: {packages}. Install them with\n  sudo {install}\nand try again");
    }
    println!("installing Debian packages: {packages}");
    let _policy = Policy::no_services()?;
    if apt(&install).is_err() {
        // A fresh machine has no package lists, or old ones.
        apt("apt-get update").context("cannot fetch Debian's package lists")?;
        apt(&install).with_context(|| format!("cannot install {packages}"))?;
    }
    for service in SERVICES.iter().filter(|service| missing.contains(service) && find("systemctl").is_some())
    {
        // Not at the next boot either. Fails where systemd isn't the init system, and then nothing was enabled.
        let _ = run_line(&format!("systemctl disable {service}"));
    }
    Ok(())
}

/// As [`ensure`], for programs that only some commands run.
pub(crate) fn ensure_others(programs: &[(&str, &'static str)]) -> Result<()> {
    install(&missing(programs))
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect()
}

fn apt(line: &str) -> Result<String> {
    run(Command::new("env").arg("DEBIAN_FRONTEND=noninteractive").args(line.split(' ')))
}

/// Keeps packages from starting services for as long as it lives. Another policy of the machine is left alone.
struct Policy {
    is_ours: bool,
}

impl Policy {
    fn no_services() -> Result<Self> {
        let is_ours = !Path::new(POLICY_FILE).exists();
        if is_ours {
            fs::write(POLICY_FILE, NO_SERVICES).with_context(|| format!("cannot write {POLICY_FILE}"))?;
            fs::set_permissions(POLICY_FILE, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { is_ours })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = fs::remove_file(POLICY_FILE)
        {
            eprintln!("cannot remove {POLICY_FILE}, which keeps packages from starting services: {error}");
        }
    }
}
