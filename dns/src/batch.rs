//! Datagrams of a socket, as many as wait, with few calls of the kernel's: on the way of an answer from the records
//! those are most of the cost.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::message::MAX_QUESTION;

/// Datagrams taken at once.
const BATCH: usize = 32;

thread_local! {
    /// One for each thread that serves, not for each container: it is used between two waits only.
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        bytes: vec![[0; MAX_QUESTION]; BATCH],
        headers: MultiHeaders::preallocate(BATCH, None),
    });
}

struct Buffers {
    bytes: Vec<[u8; MAX_QUESTION]>,
    headers: MultiHeaders<SockaddrIn>,
}

/// A datagram to send.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: SocketAddrV4,
    pub(crate) bytes: Vec<u8>,
}

impl Outgoing {
    fn alike(&self, other: &Self) -> bool {
        (self.to, self.bytes.len()) == (other.to, other.bytes.len())
    }
}

/// Takes what waits, sends what `answer` makes of each datagram, and says how many those were. What the socket does not
/// take is left in `unsent`. The socket is one of IPv4.
pub(crate) fn serve(
    socket: &UdpSocket,
    unsent: &mut Vec<Outgoing>,
    mut answer: impl FnMut(&[u8], SocketAddrV4) -> Option<Vec<u8>>,
) -> io::Result<u32> {
    let mut answers = Vec::new();
    let taken = BUFFERS.with_borrow_mut(|buffers| {
        receive(socket, buffers, |datagram, to| {
            answers.extend(answer(datagram, to).map(|bytes| Outgoing { to, bytes }));
        })
    })?;
    send(socket, &mut answers, unsent);
    Ok(taken)
}

/// Fewer than there is room for were all that waited, which the runtime needs not find out by another call.
fn receive(
    socket: &UdpSocket,
    Buffers { bytes, headers }: &mut Buffers,
    mut take: impl FnMut(&[u8], SocketAddrV4),
) -> io::Result<u32> {
    let mut datagrams = [(0, None); BATCH];
    let mut taken = 0;
    let result = socket.try_io(Interest::READABLE, || {
        let mut slices: Vec<_> = bytes.iter_mut().map(|bytes| [IoSliceMut::new(bytes)]).collect();
        let messages = recvmmsg(socket.as_raw_fd(), headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
        for (datagram, message) in datagrams.iter_mut().zip(messages) {
            *datagram = (message.bytes, message.address);
            taken += 1;
        }
        if taken < BATCH { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Err(error) if taken == 0 => return Err(error),
        _ => {}
    }
    for (bytes, (len, from)) in bytes.iter().zip(&datagrams[..taken]) {
        if let Some(from) = *from {
            take(&bytes[..*len], from.into());
        }
    }
    Ok(u32::try_from(taken).unwrap_or(u32::MAX))
}

/// Answers to one asker cross the network's layers together where they can.
fn send(socket: &UdpSocket, answers: &mut [Outgoing], unsent: &mut Vec<Outgoing>) {
    sort(answers);
    for together in Together(answers) {
        let sent = match together {
            [answer] => socket.try_send_to(&answer.bytes, answer.to.into()).map(|_| ()),
            several => send_together(socket, several),
        };
        if sent.is_err() {
            unsent.extend_from_slice(together);
        }
    }
}

/// By asker and, the longest first, by length.
fn sort(answers: &mut [Outgoing]) {
    answers.sort_by_key(|answer| (answer.to, Reverse(answer.bytes.len())));
}

/// Answers to one asker, of one length but for the last, which may be shorter: these cross the network's layers as one datagram,
/// which its end takes apart again (UDP_SEGMENT, udp(7)). Of sorted ones.
struct Together<'a>(&'a [Outgoing]);

impl<'a> Iterator for Together<'a> {
    type Item = &'a [Outgoing];

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.0.first()?;
        let alike = self.0.iter().take_while(|answer| answer.alike(first)).count();
        let shorter = self.0.get(alike).is_some_and(|answer| answer.to == first.to);
        let (together, rest) = self.0.split_at(alike + usize::from(shorter));
        self.0 = rest;
        Some(together)
    }
}

/// Fails where they are too large together, or the interface takes none that large.
fn send_together(socket: &UdpSocket, answers: &[Outgoing]) -> io::Result<()> {
    let [first, ..] = answers else { return Ok(()) };
    let len = u16::try_from(first.bytes.len()).map_err(io::Error::other)?;
    let slices: Vec<_> = answers.iter().map(|answer| IoSlice::new(&answer.bytes)).collect();
    let control = [ControlMessage::UdpGsoSegments(&len)];
    let to = SockaddrIn::from(first.to);
    sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}

#[cfg(test)]
mod tests;
