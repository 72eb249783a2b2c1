//! Many datagrams per system call: recvmmsg(2), where each message may be a run of datagrams that the kernel has put
//! together (UDP_GRO, udp(7)).

use std::array;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

/// Messages per recvmmsg: enough to make the call's cost small beside the packets'.
const MESSAGES: usize = 16;
/// No UDP payload is larger. Pages that nothing reaches are never touched.
const MESSAGE_BYTES: usize = 1 << 16;

/// Buffers that received datagrams land in.
pub(super) struct RecvBatch {
    bytes: Box<[u8]>,
    received: Vec<Received>,
}

#[derive(Clone, Copy)]
struct Received {
    from: Ipv4Addr,
    len: usize,
    /// Every datagram of it has this many bytes, the last may have fewer.
    segment: usize,
}

impl RecvBatch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; MESSAGES * MESSAGE_BYTES].into_boxed_slice(),
            received: Vec::with_capacity(MESSAGES),
        }
    }

    /// Receives what waits, at most one batch, and returns whether more may wait.
    pub(super) fn fill(&mut self, socket: &UdpSocket) -> io::Result<bool> {
        self.received.clear();
        let mut names = [unnamed(); MESSAGES];
        let mut controls = [Control::EMPTY; MESSAGES];
        let mut buffers = self.bytes.chunks_exact_mut(MESSAGE_BYTES);
        let mut vectors: [libc::iovec; MESSAGES] = array::from_fn(|_| {
            let buffer = buffers.next().unwrap_or_default();
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
        });
        // SAFETY: mmsghdr is plain old data for which all zeroes (null pointers, no lengths) is a valid value; it
        // has private padding on some C libraries, so it cannot be written as a literal.
        let mut messages: [libc::mmsghdr; MESSAGES] = unsafe { mem::zeroed() };
        for at in 0..MESSAGES {
            let header = &mut messages[at].msg_hdr;
            header.msg_name = ptr::from_mut(&mut names[at]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = &mut vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = controls[at].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: the descriptor is open for the call. Each header points to its own name, vector and control on this
        // stack frame, each vector to its own part of `self.bytes`, which nothing else reads or writes meanwhile; all
        // sizes are those of what they describe.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
        };
        for at in 0..count {
            let len = messages[at].msg_len as usize;
            let control = messages[at].msg_hdr.msg_controllen as usize;
            let segment = controls[at].segment_of(control).unwrap_or(len);
            self.received.push(Received { from: address(&names[at]), len, segment });
        }
        Ok(count == MESSAGES)
    }

    /// What was received last, with its sender.
    pub(super) fn datagrams(&mut self) -> impl Iterator<Item = (Ipv4Addr, &mut [u8])> {
        let buffers = self.bytes.chunks_exact_mut(MESSAGE_BYTES);
        self.received.iter().zip(buffers).flat_map(|(received, buffer)| {
            let Received { from, len, segment } = *received;
            // An empty datagram is one too.
            let empty = if len == 0 { Some(&mut [][..]) } else { None };
            let whole = &mut buffer[..len];
            empty.into_iter().chain(whole.chunks_mut(segment.max(1))).map(move |datagram| (from, datagram))
        })
    }
}

/// Room for one control message with a number (cmsg(3)), aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; CONTROL_LEN]);

/// CMSG_SPACE of an int: a header of 16 bytes and 8 for the number.
const CONTROL_LEN: usize = 24;

impl Control {
    pub(super) const EMPTY: Self = Self([0; CONTROL_LEN]);
    const HEADER_LEN: usize = 16;

    /// Says that a buffer is to be cut into datagrams of this size. Returns what to hand to the kernel.
    pub(super) fn segment(&mut self, size: u16) -> &mut [u8] {
        let len = Self::HEADER_LEN + size_of::<u16>();
        self.0[..8].copy_from_slice(&(len as u64).to_ne_bytes());
        self.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        self.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        self.0[16..18].copy_from_slice(&size.to_ne_bytes());
        &mut self.0
    }

    /// The size of the datagrams that the kernel put together, if it did. `len` bytes came.
    fn segment_of(&self, len: usize) -> Option<usize> {
        let int_at =
            |at: usize| i32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        let is_size = len >= Self::HEADER_LEN + size_of::<i32>()
            && int_at(8) == libc::SOL_UDP
            && int_at(12) == libc::UDP_GRO;
        is_size.then(|| int_at(16)).and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0)
    }
}

pub(super) fn named(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    }
}

pub(super) fn unnamed() -> libc::sockaddr_in {
    named(Ipv4Addr::UNSPECIFIED, 0)
}

fn address(name: &libc::sockaddr_in) -> Ipv4Addr {
    Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes())
}
