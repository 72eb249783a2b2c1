//! The other daemons: their configuration for the same names, and how they are started.

use super::names::{NETWORK, REVERSE, Service};
use super::site::AT;
use std::fmt::Write as _;

/// Debian keeps it out of the PATH: Podman alone runs it.
pub(super) const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";

pub(super) struct Other {
    pub(super) kind: &'static str,
    /// What prints its version, and the word before that.
    pub(super) version: (&'static str, &'static str),
    pub(super) has_reverse: bool,
    /// Written to a file of a directory of its own.
    pub(super) names: fn(&[Service]) -> String,
    /// How it is started; `DIR` is the directory, the file is `DIR/names`.
    pub(super) line: &'static str,
}

pub(super) const OTHERS: [Other; 3] = [
    Other {
        kind: "dnsmasq",
        version: ("dnsmasq --version", "version"),
        has_reverse: true,
        names: hosts,
        line: "dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts \
            --addn-hosts=DIR/names --domain-needed --local=/names/ --local=/0.79.10.in-addr.arpa/ \
            --bind-interfaces --listen-address=127.0.0.11",
    },
    Other {
        kind: "unbound",
        version: ("unbound -V", "Version"),
        has_reverse: true,
        names: local_data,
        line: "unbound -d -c DIR/names",
    },
    Other {
        kind: "aardvark-dns",
        version: ("/usr/lib/podman/aardvark-dns --version", "aardvark-dns"),
        has_reverse: false,
        names: containers,
        line: "/usr/lib/podman/aardvark-dns --config DIR --port 53 run",
    },
];

/// As /etc/hosts.
fn hosts(services: &[Service]) -> String {
    let mut lines = String::new();
    for (name, addresses) in services.iter().flat_map(Service::names) {
        for address in addresses {
            let _ = writeln!(lines, "{address} {name}");
        }
    }
    lines
}

/// unbound.conf(5). One thread, as it is a core's worth that is asked for; answers go round as the others' do.
fn local_data(services: &[Service]) -> String {
    let mut lines = format!(
        "server:\n interface: {AT}\n do-ip6: no\n num-threads: 1\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n \
         use-syslog: no\n rrset-roundrobin: yes\n local-zone: \"{NETWORK}.\" static\n local-zone: \"{REVERSE}.\" static\n"
    );
    for service in services {
        for (name, addresses) in service.names() {
            for address in addresses {
                let _ = writeln!(lines, " local-data: \"{name}. 1 IN A {address}\"");
            }
        }
        let _ =
            writeln!(lines, " local-data: \"{}. 1 IN PTR {}.{NETWORK}.\"", service.reverse(), service.name);
    }
    lines.push_str("remote-control:\n control-enable: no\n");
    lines
}

/// The file that netavark writes of a network: where to listen, and then an id, an address and names of each container.
fn containers(services: &[Service]) -> String {
    let mut lines = format!("{AT}\n");
    for (name, addresses) in services.iter().flat_map(Service::names) {
        for address in addresses {
            let id = lines.len();
            let _ = writeln!(lines, "{id:064x} {address}  {name}");
        }
    }
    lines
}
