//! Many datagrams per system call: recvmmsg(2) and sendmmsg(2).

use super::drops::{DropCounters, IoDrop};
use std::array;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

/// Datagrams per recvmmsg: enough to make the call's cost small beside the packets'.
const RECV_BATCH: usize = 32;
/// No UDP payload is larger. Pages that no datagram reaches are never touched.
const RECV_BYTES: usize = 1 << 16;
/// Datagrams per sendmmsg: a 64 KiB super-frame makes 45 at the usual MTU.
const SEND_BATCH: usize = 64;
/// A whole super-frame, segmented and encapsulated, with room to spare.
const SEND_BYTES: usize = 1 << 17;

/// Buffers that received datagrams land in.
pub(super) struct RecvBatch {
    bytes: Box<[u8]>,
    received: Vec<(Ipv4Addr, usize)>,
}

impl RecvBatch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; RECV_BATCH * RECV_BYTES].into_boxed_slice(),
            received: Vec::with_capacity(RECV_BATCH),
        }
    }

    /// Receives what waits, at most one batch, and returns whether more may wait.
    pub(super) fn fill(&mut self, socket: &UdpSocket) -> io::Result<bool> {
        self.received.clear();
        let mut names = [unnamed(); RECV_BATCH];
        let mut buffers = self.bytes.chunks_exact_mut(RECV_BYTES);
        let mut vectors: [libc::iovec; RECV_BATCH] = array::from_fn(|_| {
            let buffer = buffers.next().unwrap_or_default();
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
        });
        let mut messages: [libc::mmsghdr; RECV_BATCH] =
            array::from_fn(|i| message(&mut names[i], &mut vectors[i]));
        // SAFETY: the descriptor is open for the call. Each header points to its own name and vector on this
        // stack frame, each vector to its own part of `self.bytes`, which nothing else reads or writes
        // meanwhile; all sizes are those of what they describe.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                RECV_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
        };
        let received = names.iter().zip(&messages).take(count);
        self.received.extend(received.map(|(name, message)| (address(name), message.msg_len as usize)));
        Ok(count == RECV_BATCH)
    }

    /// What was received last, with its sender.
    pub(super) fn datagrams(&mut self) -> impl Iterator<Item = (Ipv4Addr, &mut [u8])> {
        let buffers = self.bytes.chunks_exact_mut(RECV_BYTES);
        self.received.iter().zip(buffers).map(|((from, len), buffer)| (*from, &mut buffer[..*len]))
    }
}

/// Datagrams collected to be sent together.
pub(super) struct SendBatch {
    bytes: Vec<u8>,
    queued: Vec<Queued>,
    /// The UDP port every VTEP receives on.
    port: u16,
}

struct Queued {
    to: Ipv4Addr,
    start: usize,
    len: usize,
}

impl SendBatch {
    pub(super) fn new(port: u16) -> Self {
        Self { bytes: Vec::with_capacity(SEND_BYTES), queued: Vec::with_capacity(SEND_BATCH), port }
    }

    /// Queues a datagram; sends what is queued first if it doesn't fit beside it.
    pub(super) fn push(
        &mut self,
        to: Ipv4Addr,
        datagram: &[u8],
        socket: &UdpSocket,
        drops: &mut DropCounters,
    ) {
        if datagram.len() > SEND_BYTES {
            return drops.add(IoDrop::UnderlayTooBig);
        }
        if self.queued.len() == SEND_BATCH || self.bytes.len() + datagram.len() > SEND_BYTES {
            self.flush(socket, drops);
        }
        self.queued.push(Queued { to, start: self.bytes.len(), len: datagram.len() });
        self.bytes.extend_from_slice(datagram);
    }

    /// Sends everything queued. What the kernel refuses is counted and dropped.
    pub(super) fn flush(&mut self, socket: &UdpSocket, drops: &mut DropCounters) {
        let mut rest = self.queued.as_slice();
        while !rest.is_empty() {
            // An error is about the first datagram only; those before it were reported as sent.
            let done = match self.send(rest, socket) {
                Ok(sent) => sent.max(1),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => {
                    drops.add(IoDrop::of_send(&error));
                    1
                }
            };
            rest = &rest[done.min(rest.len())..];
        }
        self.queued.clear();
        self.bytes.clear();
    }

    fn send(&self, queued: &[Queued], socket: &UdpSocket) -> io::Result<usize> {
        let count = queued.len().min(SEND_BATCH);
        let mut names = [unnamed(); SEND_BATCH];
        let mut vectors: [libc::iovec; SEND_BATCH] =
            array::from_fn(|_| libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
        for ((datagram, name), vector) in queued.iter().zip(&mut names).zip(&mut vectors) {
            *name = named(datagram.to, self.port);
            let bytes = &self.bytes[datagram.start..datagram.start + datagram.len];
            *vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        }
        let mut messages: [libc::mmsghdr; SEND_BATCH] =
            array::from_fn(|i| message(&mut names[i], &mut vectors[i]));
        // SAFETY: the descriptor is open for the call. The first `count` headers point to names and vectors on
        // this stack frame, whose vectors point into `self.bytes`; sendmsg only reads through them.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn message(name: &mut libc::sockaddr_in, vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: msghdr is plain old data for which all zeroes (null pointers, no lengths) is a valid value; it
    // has private padding on some C libraries, so it cannot be written as a literal.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    libc::mmsghdr { msg_hdr: header, msg_len: 0 }
}

fn named(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    }
}

fn unnamed() -> libc::sockaddr_in {
    named(Ipv4Addr::UNSPECIFIED, 0)
}

fn address(name: &libc::sockaddr_in) -> Ipv4Addr {
    Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    #[test]
    fn more_than_a_batch_arrives_in_order_and_unchanged() {
        let (sender, receiver) = (socket(), socket());
        let mut drops = DropCounters::default();
        let mut outgoing = SendBatch::new(receiver.local_addr().unwrap().port());
        let count = SEND_BATCH * 2 + 3;
        for i in 0..count {
            outgoing.push(Ipv4Addr::LOCALHOST, &vec![i as u8; i + 1], &sender, &mut drops);
        }
        outgoing.flush(&sender, &mut drops);

        let mut seen = 0;
        let mut incoming = RecvBatch::new();
        while incoming.fill(&receiver).unwrap() || !incoming.received.is_empty() {
            for (from, datagram) in incoming.datagrams() {
                assert_eq!(from, Ipv4Addr::LOCALHOST);
                assert_eq!(datagram, vec![seen as u8; seen + 1]);
                seen += 1;
            }
        }
        assert_eq!(seen, count);
        assert!(drops.copy_out().iter().all(|(_, n)| *n == 0));
    }

    #[test]
    fn a_refused_datagram_is_counted_and_the_others_are_sent() {
        let (sender, receiver) = (socket(), socket());
        let mut drops = DropCounters::default();
        let mut outgoing = SendBatch::new(receiver.local_addr().unwrap().port());
        outgoing.push(Ipv4Addr::LOCALHOST, b"before", &sender, &mut drops);
        outgoing.push(Ipv4Addr::LOCALHOST, &[0; 65_508], &sender, &mut drops);
        outgoing.push(Ipv4Addr::LOCALHOST, b"after", &sender, &mut drops);
        outgoing.flush(&sender, &mut drops);

        let mut buffer = [0; 16];
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"before");
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"after");
        assert!(drops.copy_out().contains(&(IoDrop::UnderlayTooBig, 1)));
    }
}
