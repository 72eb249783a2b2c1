//! Names, addresses and places of a lab.

use super::host::{Host, Role};
use crate::program::{root, run_line};
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Host addresses .1 up to here; the outside machine's come after.
pub(super) const MAX_NODES: usize = 199;
/// The outside machine, the hosts' default route and their first DNS server.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 200);
/// The second DNS server, on the same machine.
pub(crate) const OUTSIDE_2: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 201);
/// An address hosts reach only by their default route (TEST-NET-3, RFC 5737).
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A lab by its name; several may exist at once.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    name: String,
}

impl Lab {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            (1..=32).contains(&name.len()) && name.chars().all(is_plain),
            "a lab's name is 1 to 32 lower-case letters, digits and dashes, `{name}` is not"
        );
        Ok(Self { name: name.to_owned() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sockets, state and logs.
    pub(crate) fn directory(&self) -> PathBuf {
        let name = if self.name == "skep" { "lab".to_owned() } else { format!("lab-{}", self.name) };
        root().join("target").join(name)
    }

    /// Programs the lab offers to tasks. A task has its own /tmp and /run, and the repository may be in one.
    pub(crate) fn programs(&self) -> PathBuf {
        PathBuf::from(format!("/var/tmp/skep-lab-{}", self.name))
    }

    /// The namespace the underlay's bridge is in, with a port called like each host.
    pub(crate) fn underlay_netns(&self) -> String {
        format!("{}-net", self.name)
    }

    /// Host 1, 2, …
    pub(crate) fn node(&self, number: usize) -> Host {
        Host::new(self.clone(), Role::Node(number))
    }

    /// The outside machine.
    pub(crate) fn client(&self) -> Host {
        Host::new(self.clone(), Role::Client)
    }

    /// A host by what the user calls it.
    pub(crate) fn host(&self, called: &str) -> Result<Host> {
        let role = Role::parse(called);
        let role = role.filter(|role| self.roles().is_ok_and(|existing| existing.contains(role)));
        let host = role.map(|role| Host::new(self.clone(), role));
        host.ok_or_else(|| {
            let known: Vec<_> = self.roles().unwrap_or_default().iter().map(ToString::to_string).collect();
            match known.as_slice() {
                [] => anyhow::anyhow!("the lab `{}` is not up: `cargo xtask lab up`", self.name),
                _ => anyhow::anyhow!(
                    "the lab `{}` has no host `{called}`, only {}",
                    self.name,
                    known.join(", ")
                ),
            }
        })
    }

    /// The hosts that exist, in order: nodes, then the outside machine.
    pub(super) fn hosts(&self) -> Result<Vec<Host>> {
        Ok(self.roles()?.into_iter().map(|role| Host::new(self.clone(), role)).collect())
    }

    fn roles(&self) -> Result<Vec<Role>> {
        let namespaces = self.namespaces()?;
        let prefix = format!("{}-", self.name);
        let mut roles: Vec<Role> =
            namespaces.iter().filter_map(|netns| Role::parse(netns.strip_prefix(&prefix)?)).collect();
        roles.sort();
        Ok(roles)
    }

    /// The lab's network namespaces that exist. A lab `a` and one `a-b` share none.
    pub(super) fn namespaces(&self) -> Result<Vec<String>> {
        let listing = run_line("ip netns list")?;
        let names = listing.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.filter(|name| self.owns(name)).map(str::to_owned).collect())
    }

    fn owns(&self, netns: &str) -> bool {
        let Some(rest) = netns.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix('-')) else {
            return false;
        };
        rest == "net" || Role::parse(rest).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_whose_names_begin_alike_share_nothing() {
        let (short, long) = (Lab::new("a").unwrap(), Lab::new("a-b").unwrap());
        for netns in ["a-n1", "a-client", "a-net"] {
            assert!(short.owns(netns) && !long.owns(netns), "{netns}");
        }
        for netns in ["a-b-n1", "a-b-client", "a-b-net"] {
            assert!(!short.owns(netns) && long.owns(netns), "{netns}");
        }
    }

    #[test]
    fn a_name_that_is_not_one_word_is_refused() {
        for name in ["", "a b", "A", "../x", "a/b"] {
            assert!(Lab::new(name).is_err(), "{name}");
        }
    }
}
