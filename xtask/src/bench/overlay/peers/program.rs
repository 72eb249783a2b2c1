//! The tunnels' programs: where they come from, and which version they are.

use crate::packages;
use crate::program::{cargo, run};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

const PACKAGES: &[(&str, &str)] =
    &[("wireguard-go", "wireguard-go"), ("wg", "wireguard-tools"), ("nebula", "nebula"), ("tincd", "tinc")];

/// Crates, their versions and their programs.
const CRATES: [(&str, &str, &str); 2] =
    [("gotatun-cli", "0.10.2", "gotatun"), ("boringtun-cli", "0.7.1", "boringtun-cli")];

/// Versions of Debian 12 that upstream has left far behind.
const OLD: [&str; 2] = ["wireguard-go 0.0.20220316", "nebula 1.6.1"];

/// Where crates are installed, below the repository's root.
const INSTALLED: &str = "target/bench/peers";

/// A program, and what its figures are headed by.
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// Words it takes before others.
    pub(super) options: &'static [&'static str],
}

/// Installs what is missing. Minutes the first time.
pub(in super::super) fn prepare() -> Result<()> {
    packages::ensure_others(PACKAGES)?;
    for (package, version, program) in CRATES {
        if !installed(program).exists() {
            cargo(&["install", "--locked", "--root", INSTALLED, "--version", version, package])?;
        }
    }
    Ok(())
}

fn installed(program: &str) -> PathBuf {
    crate::program::root().join(INSTALLED).join("bin").join(program)
}

pub(super) fn wireguards() -> Result<Vec<Program>> {
    const RUST: &[&str] = &["--foreground", "--disable-drop-privileges"];
    let mut programs = Vec::new();
    let newest = installed("wireguard");
    if newest.exists() {
        programs.push(Program::new(newest, "wireguard-go", "--version", &["--foreground"])?);
    }
    programs.push(Program::new("wireguard-go".into(), "wireguard-go", "--version", &["--foreground"])?);
    programs.push(Program::new(installed("gotatun"), "gotatun", "--version", RUST)?);
    programs.push(Program::new(installed("boringtun-cli"), "boringtun", "--version", RUST)?);
    Ok(programs)
}

pub(super) fn nebula() -> Result<Program> {
    Program::new("nebula".into(), "nebula", "-version", &[])
}

pub(super) fn tinc() -> Result<Program> {
    Program::new("tincd".into(), "tinc", "--version", &["--no-detach"])
}

impl Program {
    fn new(path: PathBuf, name: &str, asks_version: &str, options: &'static [&'static str]) -> Result<Self> {
        let said = run(Command::new(&path).arg(asks_version))?;
        let version = version(&said).with_context(|| format!("{name} does not say its version: {said}"))?;
        let name = format!("{name} {version}");
        let remark = if OLD.contains(&&*name) { " (old)" } else { "" };
        Ok(Self { path, name: name + remark, options })
    }
}

/// The first word that is one.
fn version(said: &str) -> Option<&str> {
    let words = said.split_whitespace().map(|word| word.trim_start_matches('v'));
    words.into_iter().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        assert_eq!(version("wireguard-go v0.0.20220316\n\nUserspace"), Some("0.0.20220316"));
        assert_eq!(version("Version: 1.6.1"), Some("1.6.1"));
        assert_eq!(version("tinc version 1.0.36\nCopyright (C) 1998-2019"), Some("1.0.36"));
        assert_eq!(version("no such thing"), None);
    }
}
