//! Datagrams collected to be sent together: many to a sendmmsg(2), and runs of one size to one peer as one buffer that
//! the kernel cuts (UDP_SEGMENT, udp(7)), so that it crosses the stack once.

use super::drops::{DropCounters, IoDrop};
use super::fast::FastPaths;
use super::mmsg::{Control, named, unnamed};
use std::array;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

/// Runs per sendmmsg.
const RUNS: usize = 32;
/// Datagrams collected at once: some super-frames of 45 at the usual MTU.
const DATAGRAMS: usize = 256;
/// Bytes of them.
const BYTES: usize = 4 << 16;
/// The kernel's limit of segments in a buffer (UDP_MAX_SEGMENTS before Linux 6.9), and of bytes, headers included.
const SEGMENTS: usize = 64;
const RUN_BYTES: usize = 65_000;
/// Bytes that a datagram may be padded by, to be in a run: far cheaper to copy and seal than a datagram is to send by
/// itself. Connections' acknowledgements, beginnings and ends differ by less; from a full segment they keep away.
const PADDING: usize = 128;
/// What is padded ahead of a run: a datagram with no more than a small segment, in a batch like one of so many before it.
const SMALL: usize = 2 * PADDING;
const SEVERAL: usize = 4;

pub(super) struct SendBatch {
    bytes: Box<[u8]>,
    used: usize,
    queued: Vec<Queued>,
    /// Of the small ones sent together the last time, the largest: the first of the next is likely to be followed by one.
    recent: usize,
    /// The UDP port every VTEP receives on.
    port: u16,
    /// Until the kernel or a device turns out not to cut (EIO, EOPNOTSUPP).
    can_segment: bool,
}

#[derive(Clone, Copy)]
struct Queued {
    to: Ipv4Addr,
    start: usize,
    len: usize,
}

/// Datagrams to one peer, one behind the other: all of one size, the last no larger.
#[derive(Clone, Copy)]
struct Run {
    to: Ipv4Addr,
    start: usize,
    len: usize,
    segment: usize,
    count: usize,
}

impl SendBatch {
    pub(super) fn new(port: u16) -> Self {
        let bytes = vec![0; BYTES].into_boxed_slice();
        Self {
            bytes,
            used: 0,
            queued: Vec::with_capacity(DATAGRAMS),
            recent: 0,
            port,
            can_segment: FastPaths::chosen().segment,
        }
    }

    /// Queues a datagram of `len` bytes that `fill` writes, every one of them; sends what is queued first if it doesn't
    /// fit beside it.
    pub(super) fn push(
        &mut self,
        to: Ipv4Addr,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
        socket: &UdpSocket,
        drops: &mut DropCounters,
    ) {
        if len > BYTES {
            return drops.add(IoDrop::UnderlayTooBig);
        }
        if self.queued.len() == DATAGRAMS || self.used + len > BYTES {
            self.flush(socket, drops);
        }
        fill(&mut self.bytes[self.used..self.used + len]);
        self.queued.push(Queued { to, start: self.used, len });
        self.used += len;
    }

    /// How long a datagram of `len` bytes has to be to go on with the run that it would end, or be no part of; the first of
    /// a batch: to begin such a run as the batch before had.
    pub(super) fn padded(&self, to: Ipv4Addr, len: usize) -> usize {
        let size = match self.queued.last() {
            Some(last) if self.can_segment && last.to == to => last.len,
            None if self.can_segment => self.recent,
            _ => len,
        };
        if (len..=len + PADDING).contains(&size) { size } else { len }
    }

    /// Sends everything queued. What the kernel refuses is counted and dropped.
    pub(super) fn flush(&mut self, socket: &UdpSocket, drops: &mut DropCounters) {
        // Older kernels answer EINVAL where an interface has become too narrow for a run, which passes: so for one batch.
        let (mut done, mut may_segment) = (0, self.can_segment);
        while done < self.queued.len() {
            let mut runs = [Run::NONE; RUNS];
            let count = self.runs(done, may_segment, &mut runs);
            let runs = &runs[..count];
            // An error is about the first run only; those before it were reported as sent.
            done += match self.send(runs, socket) {
                Ok(sent) => runs[..sent.max(1).min(count)].iter().map(|run| run.count).sum::<usize>(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) if runs[0].count > 1 && is_unable_to_segment(&error) => {
                    may_segment = false;
                    self.can_segment &= error.raw_os_error() == Some(libc::EINVAL);
                    0
                }
                Err(error) => {
                    (0..runs[0].count).for_each(|_| drops.add(IoDrop::of_send(&error)));
                    runs[0].count
                }
            };
        }
        if !self.queued.is_empty() {
            self.recent = self.largest_small();
        }
        self.queued.clear();
        self.used = 0;
    }

    /// Of a batch that has several.
    fn largest_small(&self) -> usize {
        let small = self.queued.iter().map(|datagram| datagram.len).filter(|len| *len <= SMALL);
        if self.queued.len() < SEVERAL { 0 } else { small.max().unwrap_or(0) }
    }

    /// The next runs from datagram `from` on, and how many they are.
    fn runs(&self, from: usize, may_segment: bool, runs: &mut [Run; RUNS]) -> usize {
        let mut count = 0;
        for datagram in &self.queued[from..] {
            if count > 0 && may_segment && runs[count - 1].takes(datagram) {
                continue;
            }
            if count == RUNS {
                break;
            }
            let Queued { to, start, len } = *datagram;
            runs[count] = Run { to, start, len, segment: len, count: 1 };
            count += 1;
        }
        count
    }

    fn send(&self, runs: &[Run], socket: &UdpSocket) -> io::Result<usize> {
        let mut names = [unnamed(); RUNS];
        let mut controls = [Control::EMPTY; RUNS];
        let mut vectors: [libc::iovec; RUNS] =
            array::from_fn(|_| libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
        // SAFETY: mmsghdr is plain old data for which all zeroes (null pointers, no lengths) is a valid value; it
        // has private padding on some C libraries, so it cannot be written as a literal.
        let mut messages: [libc::mmsghdr; RUNS] = unsafe { mem::zeroed() };
        for (at, run) in runs.iter().enumerate() {
            names[at] = named(run.to, self.port);
            let bytes = &self.bytes[run.start..run.start + run.len];
            vectors[at] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut messages[at].msg_hdr;
            header.msg_name = ptr::from_mut(&mut names[at]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = &mut vectors[at];
            header.msg_iovlen = 1;
            if run.count > 1 {
                let control = controls[at].segment(run.segment as u16);
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = control.len() as _;
            }
        }
        // SAFETY: the descriptor is open for the call. The first `runs.len()` headers point to names, vectors and
        // controls on this stack frame, whose vectors point into `self.bytes`; sendmsg only reads through them.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                runs.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl Run {
    const NONE: Self = Self { to: Ipv4Addr::UNSPECIFIED, start: 0, len: 0, segment: 0, count: 0 };

    /// Takes a datagram in if it may be the next.
    fn takes(&mut self, next: &Queued) -> bool {
        let is_whole = self.len == self.segment * self.count;
        let fits = next.len <= self.segment && self.count < SEGMENTS && self.len + next.len <= RUN_BYTES;
        let takes = self.to == next.to && is_whole && fits && next.len > 0;
        if takes {
            self.len += next.len;
            self.count += 1;
        }
        takes
    }
}

/// A device without checksum offload before Linux 6.10 answers EIO, a policy that transforms packets EINVAL or EIO.
fn is_unable_to_segment(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::super::mmsg::RecvBatch;
    use super::*;
    use std::time::Duration;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn batch(receiver: &UdpSocket) -> SendBatch {
        SendBatch::new(receiver.local_addr().unwrap().port())
    }

    fn push(batch: &mut SendBatch, bytes: &[u8], sender: &UdpSocket, drops: &mut DropCounters) {
        let fill = |place: &mut [u8]| place.copy_from_slice(bytes);
        batch.push(Ipv4Addr::LOCALHOST, bytes.len(), fill, sender, drops);
    }

    fn receive(receiver: &UdpSocket, incoming: &mut RecvBatch) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        loop {
            let more = incoming.fill(receiver).unwrap();
            let before = received.len();
            received.extend(incoming.datagrams().map(|(from, datagram)| {
                assert_eq!(from, Ipv4Addr::LOCALHOST);
                datagram.to_vec()
            }));
            if !more && received.len() == before {
                return received;
            }
        }
    }

    /// Sizes that rise, fall and stay; more than a batch; each way of sending and receiving.
    #[test]
    fn whatever_is_sent_arrives_in_order_and_unchanged() {
        let sizes = [7, 7, 7, 3, 3, 9, 1_400, 1_400, 1_400, 20, 1_400, 5_000, 1, 1, 2];
        let sent: Vec<Vec<u8>> = (0..600usize).map(|n| vec![n as u8; sizes[n % sizes.len()]]).collect();
        for (can_segment, merges) in [(true, true), (true, false), (false, true), (false, false)] {
            let (sender, receiver) = (socket(), socket());
            if merges {
                super::super::udp::merge_received(&receiver).unwrap();
            }
            let (mut drops, mut outgoing) = (DropCounters::default(), batch(&receiver));
            outgoing.can_segment = can_segment;
            let mut incoming = RecvBatch::new();
            let mut received = Vec::new();
            for (nth, bytes) in sent.iter().enumerate() {
                push(&mut outgoing, bytes, &sender, &mut drops);
                if nth % 100 == 99 {
                    outgoing.flush(&sender, &mut drops);
                    received.extend(receive(&receiver, &mut incoming));
                }
            }
            assert!(received == sent, "segments {can_segment}, merges {merges}: {} arrive", received.len());
            assert_eq!(outgoing.can_segment, can_segment);
            assert!(drops.copy_out().iter().all(|(_, n)| *n == 0));
        }
    }

    #[test]
    fn what_differs_a_little_leaves_in_one_run_if_it_may_be_padded() {
        let (sender, receiver) = (socket(), socket());
        let (mut drops, mut outgoing) = (DropCounters::default(), batch(&receiver));
        let mut sizes = Vec::new();
        for len in [90, 82, 182, 82, 90, 1_400, 82, 1_300] {
            let size = outgoing.padded(Ipv4Addr::LOCALHOST, len);
            push(&mut outgoing, &vec![0; size], &sender, &mut drops);
            sizes.push(size);
        }
        assert_eq!(sizes, [90, 90, 182, 182, 182, 1_400, 82, 1_300]);
        assert_eq!(outgoing.runs(0, true, &mut [Run::NONE; RUNS]), 4);
        assert_eq!(outgoing.padded(Ipv4Addr::new(127, 0, 0, 2), 1_290), 1_290, "to another peer");
        outgoing.can_segment = false;
        assert_eq!(outgoing.padded(Ipv4Addr::LOCALHOST, 1_290), 1_290, "in no run");
    }

    #[test]
    fn the_first_of_a_batch_is_padded_as_the_last_batch_was() {
        let (sender, receiver) = (socket(), socket());
        let (mut drops, mut outgoing) = (DropCounters::default(), batch(&receiver));
        let mut first_after = |sizes: &[usize]| {
            sizes.iter().for_each(|len| push(&mut outgoing, &vec![0; *len], &sender, &mut drops));
            outgoing.flush(&sender, &mut drops);
            outgoing.padded(Ipv4Addr::LOCALHOST, 106)
        };
        assert_eq!(first_after(&[106, 114, 114, 206]), 206);
        assert_eq!(first_after(&[]), 206, "nothing was sent since");
        assert_eq!(first_after(&[106, 114, 1_400, 1_400]), 114, "a large one is no reason");
        assert_eq!(first_after(&[106, 240, 240, 240]), 106, "too much");
        assert_eq!(first_after(&[206]), 106, "one by itself");
    }

    #[test]
    fn a_refused_datagram_is_counted_and_the_others_are_sent() {
        let (sender, receiver) = (socket(), socket());
        let (mut drops, mut outgoing) = (DropCounters::default(), batch(&receiver));
        push(&mut outgoing, b"before", &sender, &mut drops);
        push(&mut outgoing, &[0; 65_508], &sender, &mut drops);
        push(&mut outgoing, b"after", &sender, &mut drops);
        outgoing.flush(&sender, &mut drops);

        let mut buffer = [0; 16];
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"before");
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"after");
        assert!(drops.copy_out().contains(&(IoDrop::UnderlayTooBig, 1)));
    }
}
