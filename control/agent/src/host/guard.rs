//! Guard sockets: each published port is bound, not listened on, so that no other program takes it
//! unnoticed and is shadowed by the mesh. Where one already has it, that program keeps it.

use super::mesh::PublishedPort;
use super::netns::Netns;
use skep_dataplane::io::Process;
use skep_model::service::Protocol;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// A published port without its backend.
pub(super) type PortKey = (Protocol, u16);

/// A guard socket receives nothing while the rules are there. Should they vanish, what comes for UDP
/// must not pile up; the kernel rounds this up to its minimum.
const RECEIVE_BUFFER: usize = 1;

#[derive(Debug, Default)]
pub(super) struct Guards {
    held: BTreeMap<PortKey, Socket>,
}

/// A port that could not be bound, and who has it.
pub(super) type Taken = BTreeMap<PortKey, Option<Process>>;

impl Guards {
    /// Binds what isn't held yet of `ports`. Returns those another program has.
    pub(super) async fn take(&mut self, netns: &Netns, ports: &[PublishedPort]) -> io::Result<Taken> {
        let wanted: Vec<PortKey> = ports.iter().map(key).filter(|key| !self.held.contains_key(key)).collect();
        if wanted.is_empty() {
            return Ok(Taken::new());
        }
        let (bound, taken) = netns.run(move || bind_all(&wanted)).await?;
        self.held.extend(bound);
        Ok(taken)
    }

    /// Lets go of everything that isn't in `ports`. Their rules must be gone by then.
    pub(super) fn release_others(&mut self, ports: &[PublishedPort]) {
        self.held.retain(|held, _| ports.iter().any(|port| key(port) == *held));
    }
}

pub(super) fn key(port: &PublishedPort) -> PortKey {
    (port.protocol, port.published)
}

fn bind_all(wanted: &[PortKey]) -> io::Result<(Vec<(PortKey, Socket)>, Taken)> {
    let mut bound = Vec::new();
    let mut taken = Taken::new();
    for &(protocol, port) in wanted {
        match bind(protocol, port) {
            Ok(socket) => bound.push(((protocol, port), socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                taken.insert((protocol, port), holder(protocol, port));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((bound, taken))
}

fn bind(protocol: Protocol, port: u16) -> io::Result<Socket> {
    let addr = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into();
    let Some(kind) = socket_type(protocol) else { return Err(io::ErrorKind::Unsupported.into()) };
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    match socket.bind(&addr) {
        // Connections of a server that is gone (TIME_WAIT, or still open) keep its port from a plain bind
        // for a minute. SO_REUSEADDR gets past those, but not past a listening socket. It is taken off
        // again, because with it on both sides another program could listen beside the guard.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && protocol == Protocol::Tcp => {
            socket.set_reuse_address(true)?;
            socket.bind(&addr)?;
            socket.set_reuse_address(false)?;
        }
        other => other?,
    }
    Ok(socket)
}

fn socket_type(protocol: Protocol) -> Option<Type> {
    match protocol {
        Protocol::Tcp => Some(Type::STREAM),
        Protocol::Udp => Some(Type::DGRAM),
        Protocol::Sctp => None,
    }
}

/// Who has a socket on `port` in the calling thread's namespace: a listener if there is one.
fn holder(protocol: Protocol, port: u16) -> Option<Process> {
    let tables = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp | Protocol::Sctp => ["udp", "udp6"],
    };
    // A kernel without IPv6 has no tcp6.
    let read = |table| fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).unwrap_or_default();
    let text = tables.map(read).join("\n");
    let find = |state| {
        let inodes: Vec<u64> = text.lines().filter_map(|line| inode_on(line, port, state)).collect();
        Process::with_socket(&inodes)
    };
    find(Some(TCP_LISTEN)).or_else(|| find(None))
}

/// State column of a listening TCP socket (include/net/tcp_states.h). UDP sockets never have it.
const TCP_LISTEN: &str = "0A";

/// The inode in a line of /proc/net/{tcp,udp}, if its local port and state are those asked for.
/// Columns: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
fn inode_on(line: &str, port: u16, state: Option<&str>) -> Option<u64> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
    let is_port = u16::from_str_radix(local_port, 16) == Ok(port);
    let is_state = state.is_none_or(|state| columns.get(3) == Some(&state));
    (is_port && is_state).then(|| columns.get(9)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENING: &str = "   0: 00000000:11D8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 39377 1 0000000000000000 100 0 0 10 0";

    #[test]
    fn a_line_of_proc_net_tcp() {
        assert_eq!(inode_on(LISTENING, 4568, Some("0A")), Some(39377));
        assert_eq!(inode_on(LISTENING, 4569, Some("0A")), None);
        assert_eq!(inode_on(&LISTENING.replace(" 0A ", " 06 "), 4568, Some("0A")), None);
        assert_eq!(inode_on("garbage", 4568, None), None);
    }
}
