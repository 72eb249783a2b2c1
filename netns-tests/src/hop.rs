//! A router between two nodes of a lab, whose next link may be narrow, and which may keep silent about it.

use crate::lab::{CLIENT, Lab};
use anyhow::Result;

/// What only what passes is routed by: the router's own connections know nothing of narrow links.
const TABLE: &str = "100";

/// Between n1 and n2, on the outside machine.
pub struct Hop<'a>(&'a Lab);

impl<'a> Hop<'a> {
    pub fn between_first_two(lab: &'a Lab) -> Result<Self> {
        let gateway = crate::lab::CLIENT_ADDR;
        set(lab, CLIENT, "net.ipv4.ip_forward=1")?;
        for interface in ["all", "eth0"] {
            set(lab, CLIENT, &format!("net.ipv4.conf.{interface}.send_redirects=0"))?;
        }
        run(lab, CLIENT, &format!("ip rule add iif eth0 lookup {TABLE}"))?;
        for (node, other) in [(1, 2), (2, 1)] {
            run(lab, &format!("n{node}"), &format!("ip route add {}/32 via {gateway}", Lab::addr(other)))?;
        }
        Ok(Self(lab))
    }

    /// From now on no IP packet of more than `width` bytes passes, either way.
    pub fn narrow(&self, width: u16) -> Result<()> {
        for node in 1..=2 {
            let route =
                format!("ip route replace {}/32 dev eth0 mtu lock {width} table {TABLE}", Lab::addr(node));
            run(self.0, CLIENT, &route)?;
        }
        Ok(())
    }

    pub fn widen(&self) -> Result<()> {
        run(self.0, CLIENT, &format!("ip route flush table {TABLE}"))
    }

    /// The router says nothing of packets that are too large, and what nodes say of it to the outside machine is lost.
    pub fn hush(&self) -> Result<()> {
        let too_large = "icmp type destination-unreachable icmp code 4 drop";
        let chain =
            |hook| format!("add chain ip hush {hook} {{ type filter hook {hook} priority 0; {too_large}; }}");
        let rules = format!("add table ip hush; {}; {}", chain("input"), chain("output"));
        self.0.exec(CLIENT, &["nft", &rules]).map(|_| ())
    }
}

fn set(lab: &Lab, machine: &str, setting: &str) -> Result<()> {
    run(lab, machine, &format!("sysctl -q -w {setting}"))
}

fn run(lab: &Lab, machine: &str, line: &str) -> Result<()> {
    lab.exec(machine, &line.split(' ').collect::<Vec<_>>()).map(|_| ())
}
