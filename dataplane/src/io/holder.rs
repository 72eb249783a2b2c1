//! Who holds a UDP port: so that "address already in use" can be answered with a name.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

/// Who holds a UDP port of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Process(Process),
    /// A `vxlan` interface of the kernel.
    KernelVxlan {
        device: String,
    },
    /// A process this one may not look into, or a kernel socket of another kind.
    Hidden,
}

/// A process of this machine, as far as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    pub pid: u32,
}

impl Process {
    /// The first process with one of these sockets open, given by their inodes.
    pub fn with_socket(inodes: &[u64]) -> Option<Self> {
        if inodes.is_empty() {
            return None;
        }
        let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let pid = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .find(|pid| has_open(*pid, &wanted))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(Self { name: name.trim_end().to_owned(), pid })
    }
}

impl Holder {
    /// Looks in the calling thread's network namespace.
    pub(super) fn of(address: Ipv4Addr, port: u16) -> Self {
        // A v6 wildcard socket holds the port for v4 too.
        let inodes: Vec<u64> = ["udp", "udp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
            .flat_map(|table| inodes_on(&table, address, port))
            .collect();
        let process = Process::with_socket(&inodes).map(Self::Process);
        process.or_else(|| kernel_vxlan(port)).unwrap_or(Self::Hidden)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(Process { name, pid }) => write!(f, "`{name}` (pid {pid}): stop it"),
            Self::KernelVxlan { device } => {
                write!(f, "the kernel's vxlan interface `{device}`: remove it (`ip link del {device}`)")
            }
            Self::Hidden => {
                f.write_str("a program or kernel tunnel that cannot be seen from here: find it (`ss -lunp` as root, `ip -d link`) and stop it")
            }
        }
    }
}

/// The inodes of sockets in a `/proc/net/udp` table that stand in the way of `address:port`.
fn inodes_on(table: &str, address: Ipv4Addr, port: u16) -> Vec<u64> {
    // Addresses are printed as the u32 in memory: 1.2.3.4 is 04030201 on a little-endian machine.
    let own = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let stands_in_the_way = |local: &str| {
        let is_port = local.rsplit_once(':').is_some_and(|(_, p)| u16::from_str_radix(p, 16) == Ok(port));
        let is_wildcard = |ip: &str| ip.bytes().all(|digit| digit == b'0');
        let meets = local
            .split_once(':')
            .is_some_and(|(ip, _)| address.is_unspecified() || is_wildcard(ip) || ip.ends_with(&own));
        is_port && meets
    };
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            stands_in_the_way(columns.get(1)?).then(|| columns.get(9)?.parse().ok())?
        })
        .collect()
}

fn has_open(pid: u32, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|link| links.iter().any(|wanted| link.as_os_str() == wanted.as_str()))
}

/// A kernel socket belongs to no process. `ip` looks in this thread's namespace, which /sys need not show.
fn kernel_vxlan(port: u16) -> Option<Holder> {
    let listing = Command::new("ip").args(["-d", "-o", "link", "show", "type", "vxlan"]).output().ok()?;
    vxlan_on(&String::from_utf8_lossy(&listing.stdout), port).map(|device| Holder::KernelVxlan { device })
}

/// The first interface with this `dstport` in the output of `ip -d -o link show type vxlan`.
fn vxlan_on(listing: &str, port: u16) -> Option<String> {
    listing.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.nth(1)?.trim_end_matches(':');
        let found = words.skip_while(|word| *word != "dstport").nth(1)?;
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        (found.parse() == Ok(port)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1000: 014DA8C0:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
 1001: 0100007F:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
 1002: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0000000000000000 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn only_sockets_on_the_same_address_and_port_stand_in_the_way() {
        assert_eq!(inodes_on(TABLE, Ipv4Addr::new(192, 168, 77, 1), 4789), [4711]);
        assert_eq!(inodes_on(TABLE, Ipv4Addr::new(192, 168, 77, 2), 4789), [] as [u64; 0]);
    }

    #[test]
    fn a_wildcard_meets_every_address() {
        assert_eq!(inodes_on(TABLE, Ipv4Addr::UNSPECIFIED, 4789), [4711, 4712]);
        assert_eq!(inodes_on(TABLE, Ipv4Addr::new(192, 168, 77, 2), 53), [4713]);
    }

    #[test]
    fn a_vxlan_interface_is_found_by_its_port() {
        let listing = "7: vx0@eth0: <BROADCAST,MULTICAST> mtu 1450 qdisc noop state DOWN \\    link/ether aa:bb \\    vxlan id 42 local 10.0.0.1 srcport 0 0 dstport 8472 nolearning\n\
                       8: vx1: <BROADCAST,MULTICAST> mtu 1450 qdisc noop \\    link/ether aa:bc \\    vxlan id 43 srcport 0 0 dstport 4789 ttl auto\n";
        assert_eq!(vxlan_on(listing, 4789).as_deref(), Some("vx1"));
        assert_eq!(vxlan_on(listing, 8472).as_deref(), Some("vx0"));
        assert_eq!(vxlan_on(listing, 4790), None);
    }
}
