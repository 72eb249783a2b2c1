//! The names everybody serves, and the questions about them.

use anyhow::{Result, ensure};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The network, and with it the domain.
pub(super) const NETWORK: &str = "names";
pub(super) const SUBNET: &str = "10.79.0.0/24";
/// Of the subnet, in reverse.
pub(super) const REVERSE: &str = "0.79.10.in-addr.arpa";
/// In the subnet and nobody's.
const NOBODY: &str = "250.0.79.10.in-addr.arpa";

pub(super) const SERVICES: usize = 10;
pub(super) const REPLICAS: usize = 3;

/// A service: its virtual address, and those of its tasks.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) vip: Ipv4Addr,
    pub(super) tasks: Vec<Ipv4Addr>,
}

impl Service {
    pub(super) fn new(name: String, vip: &[Ipv4Addr], tasks: Vec<Ipv4Addr>) -> Result<Self> {
        ensure!(vip.len() == 1 && tasks.len() == REPLICAS && !tasks.contains(&vip[0]), "half a service");
        Ok(Self { name, vip: vip[0], tasks })
    }

    /// `4.3.2.1.in-addr.arpa`
    pub(super) fn reverse(&self) -> String {
        let [a, b, c, d] = self.vip.octets();
        format!("{d}.{c}.{b}.{a}.in-addr.arpa")
    }

    /// Each name with its addresses; the full one first, as it is what a reverse look-up says.
    pub(super) fn names(&self) -> Vec<(String, &[Ipv4Addr])> {
        let (own, vip) = (&self.name, std::slice::from_ref(&self.vip));
        vec![
            (format!("{own}.{NETWORK}"), vip),
            (own.clone(), vip),
            (format!("tasks.{own}.{NETWORK}"), &self.tasks),
            (format!("tasks.{own}"), &self.tasks),
        ]
    }
}

/// A file of questions for dnsperf. Half are A with one address, as many as that are A with several and AAAA (which
/// every resolver library asks along with A); one in five is a reverse look-up, half of them in vain.
pub(super) fn questions(services: &[Service], has_reverse: bool) -> String {
    let mut lines = String::new();
    for service in services {
        let own = &service.name;
        for (name, kind) in [
            (own.as_str(), "A"),
            (own, "AAAA"),
            (&format!("{own}.{NETWORK}"), "A"),
            (&format!("{own}.{NETWORK}"), "AAAA"),
            (&format!("tasks.{own}"), "A"),
            (own, "A"),
            (&format!("{own}.{NETWORK}"), "A"),
            (&format!("tasks.{own}.{NETWORK}"), "A"),
        ] {
            let _ = writeln!(lines, "{name} {kind}");
        }
        if has_reverse {
            let _ = writeln!(lines, "{} PTR\n{NOBODY} PTR", service.reverse());
        }
    }
    lines
}
