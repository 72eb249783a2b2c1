//! The text of Skep's nft table: a pure function of what should be true.
//!
//! A published port is translated by the kernel to VIP:target of the ingress network, whose route is
//! `skep0`; the answer comes back by `skep0` and conntrack restores node:published. The client's
//! address is left alone, except where it means nothing beyond this host (loopback, egress bridge).

use super::mesh::PublishedPort;
use super::{GWBRIDGE, SKEP0};
use ipnet::Ipv4Net;
use skep_model::service::Protocol;
use std::fmt::{self, Display, Write};

/// Conntrack zone of mesh traffic: entries of other programs, or from before a port was published,
/// never apply to it. An arbitrary number nobody else is likely to use.
const ZONE: u16 = 4789;
/// Where a container's connection goes whose source port is a published one. Above the kernel's default
/// ephemeral range (32768–60999), so that it meets no socket of the host.
const MOVED_SOURCE_PORTS: &str = "61000-65535";

/// What the table has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Subnet of the egress bridge, once there is one.
    pub(super) egress: Option<Ipv4Net>,
    /// Empty where the mesh is off or publishes nothing.
    pub(super) ports: Vec<PublishedPort>,
    /// Sources no client from outside may have.
    pub(super) reserved: Vec<Ipv4Net>,
}

/// Removes the table, whether it is there or not.
pub(super) const REMOVE: &str = "table inet skep\ndelete table inet skep\n";

impl Rules {
    /// One `nft -f` transaction that replaces the table as a whole.
    pub(super) fn transaction(&self) -> String {
        let mut text = String::from(REMOVE);
        self.write_table(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write_table(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "table inet skep {{")?;
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
        write_set(out, "set reserved", "ipv4_addr; flags interval", reserved.iter())
    }

    /// Every leg of a mesh connection has to be in the zone, ICMP errors about it included.
    fn write_zone_chains(&self, out: &mut String) -> fmt::Result {
        let published = "meta nfproto ipv4 meta l4proto . th dport @ports fib daddr type local";
        chain(out, "raw_in", "type filter hook prerouting priority raw; policy accept;", |out| {
            if let Some(egress) = self.egress {
                rule(out, format!("iifname \"{GWBRIDGE}\" ip saddr != {egress} drop"))?;
            }
            rule(out, format!("iifname \"{SKEP0}\" ct zone set {ZONE} accept"))?;
            rule(out, format!("{published} goto client"))?;
            self.write_icmp_error_rule(out)
        })?;
        chain(out, "client", "", |out| {
            rule(out, format!("iifname != {{ \"lo\", \"{GWBRIDGE}\" }} ip saddr @reserved drop"))?;
            rule(out, format!("ct zone set {ZONE}"))
        })?;
        chain(out, "raw_out", "type filter hook output priority raw; policy accept;", |out| {
            rule(out, format!("oifname \"{SKEP0}\" ct zone set {ZONE} accept"))?;
            rule(out, format!("{published} ct zone set {ZONE}"))
        })
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
    /// question. Nothing opens a connection into the egress bridge, its own containers included.
    fn write_guard_chains(&self, out: &mut String) -> fmt::Result {
        chain(
            out,
            "guard_forward",
            "type filter hook forward priority filter - 10; policy accept;",
            |out| {
                rule(out, format!("oifname \"{SKEP0}\" ct status & dnat == 0 drop"))?;
                rule(out, format!("iifname \"{SKEP0}\" ct status & dnat == 0 drop"))?;
                rule(out, format!("iifname \"{GWBRIDGE}\" oifname \"{GWBRIDGE}\" drop"))?;
                rule(out, format!("oifname \"{GWBRIDGE}\" ct state != {{ established, related }} drop"))
            },
        )?;
        chain(out, "guard_in", "type filter hook input priority filter - 10; policy accept;", |out| {
            rule(out, format!("iifname \"{SKEP0}\" ct state != {{ established, related }} drop"))
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
        }
    }

    #[test]
    fn the_whole_table() {
        assert_eq!(rules().transaction(), include_str!("rules/table.nft"));
    }

    #[test]
    fn the_order_of_ports_makes_no_difference() {
        let mut turned = rules();
        turned.ports.reverse();
        turned.reserved.reverse();
        assert_eq!(turned.transaction(), rules().transaction());
    }

    #[test]
    fn nothing_published_leaves_no_empty_element_list() {
        let text = Rules { ports: Vec::new(), reserved: Vec::new(), egress: None }.transaction();
        assert!(!text.contains("elements"), "{text}");
        assert!(!text.contains("icmp"), "{text}");
    }
}
