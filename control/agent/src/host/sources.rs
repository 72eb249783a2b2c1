//! Each port of the egress bridge may only speak for its container: by Ethernet, IP and ARP. Otherwise one
//! container could take another's answers, or use up its quota.

use super::VETH_PREFIX;
use super::gwbridge::veth_name;
use skep_dataplane::ids::MacAddr;
use std::net::Ipv4Addr;

pub(super) const NAME: &str = "bridge skep";

/// Ahead of the bridge's learning, so that a forged frame teaches it nothing. `containers` are their
/// addresses on the bridge, which say everything else.
pub(super) fn table(containers: &[Ipv4Addr]) -> String {
    let element = |addr: &Ipv4Addr| format!("\"{}\" . {} . {addr}", veth_name(*addr), MacAddr::for_ip(*addr));
    let elements = match containers {
        [] => String::new(),
        some => format!("\t\telements = {{ {} }}\n", some.iter().map(element).collect::<Vec<_>>().join(", ")),
    };
    format!(
        "table {NAME} {{\n\
         \tset containers {{\n\t\ttype ifname . ether_addr . ipv4_addr\n{elements}\t}}\n\
         \tchain from_containers {{\n\
         \t\ttype filter hook prerouting priority dstnat; policy accept;\n\
         \t\tiifname != \"{VETH_PREFIX}*\" accept\n\
         \t\tether type ip iifname . ether saddr . ip saddr @containers accept\n\
         \t\tether type arp iifname . ether saddr . arp saddr ip @containers \
         iifname . arp saddr ether . arp saddr ip @containers accept\n\
         \t\tcounter drop comment \"container claims another's address\"\n\
         \t}}\n}}\n"
    )
}
