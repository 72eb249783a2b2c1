//! The VTEP's UDP socket.

use super::fast::FastPaths;
use super::holder::Holder;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// Some 10 ms at 10 Gb/s: a burst that arrives while the worker handles another port's.
const BUFFER_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    #[error("UDP port {port} is held by {holder}, or give the cluster another data path port")]
    InUse { port: u16, holder: Holder },
    #[error(
        "{0} is not an address of this host: name one that `ip -4 address` lists and the other nodes can reach"
    )]
    NotOurAddress(Ipv4Addr),
    #[error("cannot open UDP {address}: {step}")]
    Setup { address: SocketAddrV4, step: &'static str, source: io::Error },
}

/// Opens the socket in the calling thread's network namespace.
///
/// It is bound to the VTEP's address, so that what it sends carries the source peers expect whatever the
/// route says, and what reaches another address of this host is not taken for underlay traffic. The probe is
/// bound to every address: a kernel vxlan device always is, and a second daemon may have been given another
/// address of this host. Neither socket shares its port (no SO_REUSEADDR or SO_REUSEPORT), so that a later
/// daemon or vxlan device is refused as well.
pub(super) fn open(vtep: Ipv4Addr, port: u16) -> Result<UdpSocket, UdpError> {
    drop(bind(Ipv4Addr::UNSPECIFIED, port)?);
    let socket = bind(vtep, port)?;
    let setup = |step| move |source| UdpError::Setup { address: SocketAddrV4::new(vtep, port), step, source };
    never_fragment(&socket).map_err(setup("IP_MTU_DISCOVER"))?;
    enlarge_buffers(&socket).map_err(setup("buffer sizes"))?;
    // A kernel before 5.0 hands over each datagram by itself.
    let _ = if FastPaths::chosen().gro { merge_received(&socket) } else { Ok(()) };
    socket.set_nonblocking(true).map_err(setup("O_NONBLOCK"))?;
    Ok(socket.into())
}

/// Whether a worker could have this data path address and port, in the calling thread's network namespace; who holds
/// the port, if not.
pub fn probe(vtep: Ipv4Addr, port: u16) -> Result<(), UdpError> {
    open(vtep, port).map(drop)
}

fn bind(ip: Ipv4Addr, port: u16) -> Result<Socket, UdpError> {
    let address = SocketAddrV4::new(ip, port);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))
        .map_err(|source| UdpError::Setup { address, step: "socket", source })?;
    socket.bind(&address.into()).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => UdpError::InUse { port, holder: Holder::of(ip, port) },
        io::ErrorKind::AddrNotAvailable => UdpError::NotOurAddress(ip),
        _ => UdpError::Setup { address, step: "bind", source },
    })?;
    Ok(socket)
}

/// VTEPs must not fragment (RFC 7348 §4.3): set DF, and let what is larger than the interface takes fail with EMSGSIZE.
/// What routers are said to have said of the path counts for nothing (IP_PMTUDISC_PROBE, ip(7)): anybody may have said
/// it, and the engine finds out for itself.
fn never_fragment(socket: &Socket) -> io::Result<()> {
    let value: libc::c_int = libc::IP_PMTUDISC_PROBE;
    // SAFETY: the descriptor is open, and pointer and length are those of a live int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the kernel hand over datagrams of one sender and size as one buffer (udp(7), UDP_GRO).
pub(super) fn merge_received(socket: &impl AsFd) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    Ok(setsockopt(&socket.as_fd(), sockopt::UdpGroSegment, &true)?)
}

/// Beyond net.core.rmem_max and wmem_max where allowed (CAP_NET_ADMIN), else up to it.
fn enlarge_buffers(socket: &Socket) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    let plain = SockRef::from(socket);
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER_BYTES)
        .or_else(|_| plain.set_recv_buffer_size(BUFFER_BYTES))?;
    setsockopt(socket, sockopt::SndBufForce, &BUFFER_BYTES)
        .or_else(|_| plain.set_send_buffer_size(BUFFER_BYTES))
}
