//! How many connections of this host's one container may hold: conntrack's table is shared by all of
//! them, the host and the mesh.

use super::GWBRIDGE;

/// Connections a container may have through the egress bridge at a time, unless configured otherwise.
///
/// Conntrack's table has 262,144 places on a host with more than 4 GiB of memory and 65,536 on one with
/// more than 1 GiB (nf_conntrack_init_start in net/netfilter/nf_conntrack_core.c): one container takes a
/// sixteenth of the smaller one. Closed connections don't count. A question nobody answers does, for 120 s
/// (TCP) or 30 s (UDP), so a container that floods is back in business that long after, and only it has to
/// wait; one that asks by UDP from ever new ports may ask 136 times a second. The kernel looks through a
/// container's connections when it opens one, at most once a timer tick and in the sender's time: at twice
/// this number a flood would keep a processor busy with that (measured: 2,048 cost nothing to speak of,
/// 4,096 nearly double what 20,000 attempts take).
pub const EGRESS_CONNECTIONS: u32 = 4096;

/// Every address of the largest subnet the bridge gets. An address that finds no place here would not be
/// counted.
const COUNTED_ADDRESSES: u32 = 65_536;

pub(super) const NAME: &str = "inet skep_quota";

/// A table of its own, because the count would begin anew whenever its table is replaced. Entries come
/// into being behind both hooks, so what is dropped here takes none.
pub(super) fn table(limit: u32) -> String {
    let chain = |hook: &str| {
        format!(
            "\tchain {hook} {{\n\
             \t\ttype filter hook {hook} priority filter - 9; policy accept;\n\
             \t\tiifname \"{GWBRIDGE}\" ct state new add @open {{ ip saddr ct count over {limit} }} counter drop \
             comment \"container has too many connections\"\n\
             \t}}\n"
        )
    };
    format!(
        "table {NAME} {{\n\
         \tset open {{\n\t\ttype ipv4_addr\n\t\tsize {COUNTED_ADDRESSES}\n\t\tflags dynamic\n\t}}\n{}{}}}\n",
        chain("forward"),
        chain("input"),
    )
}
