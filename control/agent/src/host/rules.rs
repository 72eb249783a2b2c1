//! The text of Skep's nft table: a pure function of what should be true.
//!
//! A published port is translated by the kernel to VIP:target of the ingress network, whose route is
//! `skep0`; the answer comes back by `skep0` and conntrack restores node:published. The client's
//! address is left alone, except where it means nothing beyond this host (loopback, egress bridge).

use super::mesh::PublishedPort;
use super::{GWBRIDGE, SKEP0};
use ipnet::Ipv4Net;
use skep_model::service::Protocol;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};
use std::net::Ipv4Addr;

/// Conntrack zone of mesh traffic: entries of other programs, or from before a port was published,
/// never apply to it. An arbitrary number nobody else is likely to use.
const ZONE: u16 = 4789;
/// Where a container's connection goes whose source port is a published one. Above the kernel's default
/// ephemeral range (32768–60999), so that it meets no socket of the host.
const MOVED_SOURCE_PORTS: &str = "61000-65535";

/// Whose packets `skepd` sends, and where to: what nobody else of this host may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Where this host's VTEP receives.
    pub vtep: Ipv4Addr,
    /// UDP port of every member's VTEP.
    pub data_path_port: u16,
    /// TCP ports the managers answer nodes on.
    pub control_ports: BTreeSet<u16>,
}

impl Underlay {
    fn control(&self) -> String {
        format!("tcp dport {{ {} }}", joined(self.control_ports.iter()))
    }

    /// Translated, it would have a member's address: peers could not tell it from a member's own.
    fn forged(&self) -> String {
        format!("ip daddr @members udp dport {} ip saddr != @members", self.data_path_port)
    }
}

/// What the table has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Subnet of the egress bridge, once there is one.
    pub(super) egress: Option<Ipv4Net>,
    /// Empty where the mesh is off or publishes nothing.
    pub(super) ports: Vec<PublishedPort>,
    /// Sources no client from outside may have.
    pub(super) reserved: Vec<Ipv4Net>,
    /// None where nothing is known of the cluster.
    pub(super) underlay: Option<Underlay>,
    /// Where the other nodes' VTEPs receive.
    pub(super) peers: Vec<Ipv4Addr>,
    /// Whose sockets may send to a member's VTEP: the user this daemon runs as.
    pub(super) uid: u32,
}

impl Rules {
    pub(super) const NAME: &str = "inet skep";

    /// The declaration of the whole table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write_table(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "table {} {{", Self::NAME)?;
        self.write_sets(out)?;
        self.write_zone_chains(out)?;
        self.write_destination_chains(out)?;
        self.write_guard_chains(out)?;
        self.write_source_chain(out)?;
        writeln!(out, "}}")
    }

    fn write_sets(&self, out: &mut String) -> fmt::Result {
        let mut ports = self.ports.clone();
        ports.sort_unstable();
        let published =
            ports.iter().map(|p| format!("{} . {} : {} . {}", p.protocol, p.published, p.vip, p.target));
        let keys = ports.iter().map(|p| format!("{} . {}", p.protocol, p.published));
        // Adjacent and overlapping intervals are an error in a set; aggregated ones are neither.
        let mut reserved = self.reserved.clone();
        reserved.extend(self.egress);
        let reserved = Ipv4Net::aggregate(&reserved);
        let set = "inet_proto . inet_service";
        write_set(out, "map published", &format!("{set} : ipv4_addr . inet_service"), published)?;
        write_set(out, "set ports", set, keys)?;
        write_set(out, "set reserved", "ipv4_addr; flags interval", reserved.iter())?;
        let mut members = self.peers.clone();
        members.extend(self.underlay.as_ref().map(|underlay| underlay.vtep));
        members.sort_unstable();
        members.dedup();
        write_set(out, "set members", "ipv4_addr", members.iter())
    }

    /// Every leg of a mesh connection has to be in the zone, ICMP errors about it included.
    fn write_zone_chains(&self, out: &mut String) -> fmt::Result {
        let published = "meta nfproto ipv4 meta l4proto . th dport @ports fib daddr type local";
        chain(out, "raw_in", "type filter hook prerouting priority raw; policy accept;", |out| {
            rule(out, format!("iifname \"{GWBRIDGE}\" jump container"))?;
            rule(out, format!("iifname \"{SKEP0}\" ct zone set {ZONE} accept"))?;
            rule(out, format!("{published} goto client"))?;
            self.write_icmp_error_rule(out)
        })?;
        chain(out, "container", "", |out| self.write_container_rules(out))?;
        chain(out, "client", "", |out| {
            let claimed = format!("iifname != {{ \"lo\", \"{GWBRIDGE}\" }} ip saddr @reserved");
            drop_rule(out, &claimed, "client claims an address of the cluster")?;
            rule(out, format!("ct zone set {ZONE}"))
        })?;
        chain(out, "raw_out", "type filter hook output priority raw; policy accept;", |out| {
            rule(out, format!("oifname \"{SKEP0}\" ct zone set {ZONE} accept"))?;
            rule(out, format!("{published} ct zone set {ZONE}"))
        })
    }

    /// What comes out of containers, before the kernel has done anything with it. Loopback addresses matter
    /// where somebody set route_localnet for all interfaces.
    fn write_container_rules(&self, out: &mut String) -> fmt::Result {
        drop_rule(out, "meta nfproto ipv6", "containers have no IPv6")?;
        if let Some(egress) = self.egress {
            drop_rule(out, &format!("ip saddr != {egress}"), "container claims another address")?;
        }
        drop_rule(out, "ip daddr 127.0.0.0/8", "container asks for the host's loopback")
    }

    /// A router between a client and this host says "fragmentation needed" to node:published. The error
    /// quotes our packet: protocol and source port are at bytes 8+9 and 8+20 of the ICMP message
    /// (RFC 792; our packets carry no IP options).
    fn write_icmp_error_rule(&self, out: &mut String) -> fmt::Result {
        if self.ports.is_empty() {
            return Ok(());
        }
        let mut quoted: Vec<_> = self.ports.iter().map(|p| (ip_protocol(p.protocol), p.published)).collect();
        quoted.sort_unstable();
        let quoted = joined(quoted.iter().map(|(protocol, port)| format!("{protocol} . {port}")));
        let errors = "icmp type { destination-unreachable, time-exceeded, parameter-problem }";
        rule(
            out,
            format!("{errors} @th,136,8 . @th,224,16 {{ {quoted} }} fib daddr type local ct zone set {ZONE}"),
        )
    }

    /// Ahead of a container engine's own chains (-100), for arriving and for locally made connections.
    fn write_destination_chains(&self, out: &mut String) -> fmt::Result {
        let to_published = "meta nfproto ipv4 fib daddr type local goto to_vip";
        chain(out, "to_vip", "", |out| {
            rule(out, "dnat ip to meta l4proto . th dport map @published".to_owned())
        })?;
        chain(out, "nat_in", "type nat hook prerouting priority dstnat - 10; policy accept;", |out| {
            rule(out, to_published.to_owned())
        })?;
        chain(out, "nat_out", "type nat hook output priority -110; policy accept;", |out| {
            rule(out, to_published.to_owned())
        })
    }

    /// `skep0` passes translated connections only: no port that isn't published, no answer without a
    /// question, whether from outside, from a container or made here. Nothing opens a connection into the
    /// egress bridge, its own containers included.
    ///
    /// These run ahead of the host's own filter, so that a firewall that lets Skep's interfaces pass lets
    /// no more pass than this.
    fn write_guard_chains(&self, out: &mut String) -> fmt::Result {
        let untranslated = "ct status & dnat == 0";
        // What conntrack makes nothing of has no status to compare.
        let unknown = "ct state { invalid, untracked }";
        let opens = "ct state != { established, related }";
        let hook = |hook| format!("type filter hook {hook} priority filter - 10; policy accept;");
        let (to_mesh, from_mesh) = (format!("oifname \"{SKEP0}\""), format!("iifname \"{SKEP0}\""));
        let (in_bridge, from_bridge) = (format!("oifname \"{GWBRIDGE}\""), format!("iifname \"{GWBRIDGE}\""));
        chain(out, "guard_forward", &hook("forward"), |out| {
            rule(out, format!("{to_mesh} goto to_mesh"))?;
            rule(out, format!("{from_mesh} goto from_mesh"))?;
            drop_rule(out, &format!("{from_bridge} {in_bridge}"), "container to container")?;
            drop_rule(out, &format!("{in_bridge} {opens}"), "connection into the egress bridge")?;
            drop_rule(
                out,
                &format!("{from_bridge} ip daddr @reserved"),
                "overlay address by the egress bridge",
            )?;
            let Some(underlay) = &self.underlay else { return Ok(()) };
            drop_rule(out, &underlay.forged(), "to a member's VTEP")?;
            let control = format!("{from_bridge} ip daddr @members {}", underlay.control());
            drop_rule(out, &control, "container to a manager's port for nodes")
        })?;
        // Each packet of a published port comes by these, and by no more than it has to.
        chain(out, "to_mesh", "", |out| {
            drop_rule(out, untranslated, "not published")?;
            drop_rule(out, unknown, "no connection of the mesh")
        })?;
        chain(out, "from_mesh", "", |out| {
            drop_rule(out, untranslated, "answer without a question")?;
            drop_rule(out, unknown, "no connection of the mesh")?;
            drop_rule(out, &format!("{in_bridge} {opens}"), "connection into the egress bridge")?;
            let Some(underlay) = &self.underlay else { return Ok(()) };
            drop_rule(out, &underlay.forged(), "to a member's VTEP")
        })?;
        chain(out, "guard_in", &hook("input"), |out| {
            drop_rule(out, &format!("{from_mesh} {opens}"), "connection out of the mesh")?;
            let Some(underlay) = &self.underlay else { return Ok(()) };
            let (data_path_port, control) = (underlay.data_path_port, underlay.control());
            drop_rule(out, &format!("{from_bridge} udp dport {data_path_port}"), "to a member's VTEP")?;
            let control = format!("{from_bridge} {control}");
            drop_rule(out, &control, "container to a manager's port for nodes")
        })?;
        chain(out, "guard_out", &hook("output"), |out| {
            drop_rule(out, &format!("{to_mesh} {untranslated}"), "not published")?;
            drop_rule(out, &format!("{to_mesh} {unknown}"), "no connection of the mesh")?;
            let Some(Underlay { data_path_port, .. }) = &self.underlay else { return Ok(()) };
            let others = format!("ip daddr @members udp dport {data_path_port} meta skuid != {}", self.uid);
            drop_rule(out, &others, "to a member's VTEP")
        })
    }

    fn write_source_chain(&self, out: &mut String) -> fmt::Result {
        chain(out, "nat_source", "type nat hook postrouting priority srcnat - 10; policy accept;", |out| {
            rule(out, format!("oifname \"{SKEP0}\" ip saddr 127.0.0.0/8 masquerade"))?;
            rule(out, format!("iifname \"{GWBRIDGE}\" oifname \"{SKEP0}\" masquerade"))?;
            let Some(egress) = self.egress else { return Ok(()) };
            let leaving = format!("ip saddr {egress} oifname != {{ \"{SKEP0}\", \"{GWBRIDGE}\" }}");
            // The answer to a published source port would be taken for a question to the mesh.
            let moved = format!("masquerade to :{MOVED_SOURCE_PORTS}");
            rule(
                out,
                format!("{leaving} meta l4proto {{ tcp, udp }} meta l4proto . th sport @ports {moved}"),
            )?;
            rule(out, format!("{leaving} masquerade"))
        })
    }
}

fn chain(
    out: &mut String,
    name: &str,
    hook: &str,
    body: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    writeln!(out, "\tchain {name} {{")?;
    if !hook.is_empty() {
        writeln!(out, "\t\t{hook}")?;
    }
    body(out)?;
    writeln!(out, "\t}}")
}

fn rule(out: &mut String, rule: String) -> fmt::Result {
    writeln!(out, "\t\t{rule}")
}

/// The comment says why, where an operator sees the counter.
fn drop_rule(out: &mut String, what: &str, why: &str) -> fmt::Result {
    rule(out, format!("{what} counter drop comment \"{why}\""))
}

/// nft takes no empty `elements`.
fn write_set(
    out: &mut String,
    head: &str,
    kind: &str,
    elements: impl Iterator<Item = impl Display>,
) -> fmt::Result {
    writeln!(out, "\t{head} {{")?;
    writeln!(out, "\t\ttype {kind}")?;
    let elements = joined(elements);
    if !elements.is_empty() {
        writeln!(out, "\t\telements = {{ {elements} }}")?;
    }
    writeln!(out, "\t}}")
}

fn joined(items: impl Iterator<Item = impl Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// IANA protocol numbers.
fn ip_protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let vip = "10.0.0.5".parse().unwrap();
        Rules {
            egress: Some("172.18.0.0/16".parse().unwrap()),
            ports: vec![
                PublishedPort { protocol: Protocol::Udp, published: 9000, vip, target: 9001 },
                PublishedPort { protocol: Protocol::Tcp, published: 8080, vip, target: 80 },
            ],
            reserved: vec!["10.0.0.0/24".parse().unwrap(), "10.0.1.0/24".parse().unwrap()],
            underlay: Some(Underlay {
                vtep: "192.0.2.1".parse().unwrap(),
                data_path_port: 4789,
                control_ports: [2377].into(),
            }),
            peers: vec!["192.0.2.3".parse().unwrap(), "192.0.2.2".parse().unwrap()],
            uid: 0,
        }
    }

    #[test]
    fn the_whole_table() {
        assert_eq!(rules().table(), include_str!("rules/table.nft"));
    }

    #[test]
    fn the_order_of_ports_makes_no_difference() {
        let mut turned = rules();
        turned.ports.reverse();
        turned.reserved.reverse();
        turned.peers.reverse();
        assert_eq!(turned.table(), rules().table());
    }

    #[test]
    fn nothing_published_leaves_no_empty_element_list() {
        let text = Rules::default().table();
        assert!(!text.contains("elements"), "{text}");
        assert!(!text.contains("icmp"), "{text}");
    }
}
