//! What is on a wire, as somebody hears it who listens there.

use crate::Netns;
use anyhow::{Context, Result, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout, ReceiveTimestampns, RxqOvfl};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket,
};
use nix::sys::time::{TimeSpec, TimeVal};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// A reader that stands still for seconds misses nothing.
const KERNEL_BUFFER: usize = 512 << 20;
/// Longer than the longest super-frame.
const LONGEST_FRAME: usize = 256 << 10;
/// How long one look waits.
const LOOK: i64 = 20_000;
/// PACKET_OUTGOING of packet(7).
const OUTGOING: u8 = 4;

/// Every frame that comes into a namespace by any of its interfaces, before bridges and rules see it.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    /// When the kernel took it, since the epoch.
    pub at: Duration,
}

impl Wire {
    pub fn of(netns: &Netns) -> Result<Self> {
        let socket = netns.enter(|| {
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        })??;
        setsockopt(&socket, RcvBufForce, &KERNEL_BUFFER)?;
        setsockopt(&socket, RxqOvfl, &1)?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, LOOK))?;
        Ok(Self { socket, buffer: vec![0; LONGEST_FRAME] })
    }

    /// The next frame; none if none came in a while. An error where the kernel had to drop one: then nothing is proved.
    pub fn hear(&mut self) -> Result<Option<Frame<'_>>> {
        loop {
            match self.read()? {
                None => return Ok(None),
                // Each frame is to be heard once, where it comes in.
                Some((_, OUTGOING, _)) => {}
                Some((len, _, at)) => return Ok(Some(Frame { bytes: &self.buffer[..len], at })),
            }
        }
    }

    /// Reads a frame into the buffer: its length, what packet(7) says of it, and when it was taken.
    fn read(&mut self) -> Result<Option<(usize, u8, Duration)>> {
        let mut control = cmsg_space!(u32, TimeSpec);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let received = match recvmsg::<LinkAddr>(socket, &mut parts, Some(&mut control), flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            other => other.context("listening")?,
        };
        ensure!(!received.flags.contains(MsgFlags::MSG_TRUNC), "a frame was longer than {LONGEST_FRAME}");
        let mut at = Duration::ZERO;
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::RxqOvfl(lost) => ensure!(lost == 0, "the kernel dropped {lost} frames"),
                ControlMessageOwned::ScmTimestampns(stamp) => at = stamp.into(),
                _ => {}
            }
        }
        let kind = received.address.map_or(0, |from| from.pkttype());
        Ok(Some((received.bytes, kind, at)))
    }
}

/// A UDP datagram over IPv4 in an Ethernet frame.
pub struct Udp<'a> {
    pub from: [u8; 4],
    pub to: [u8; 4],
    /// Whether routers must not fragment it.
    pub is_whole: bool,
    pub from_port: u16,
    pub to_port: u16,
    pub payload: &'a [u8],
}

/// Source and destination of an IPv4 packet in an Ethernet frame.
pub fn ipv4(frame: &[u8]) -> Option<([u8; 4], [u8; 4])> {
    let packet = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    Some((packet.get(12..16)?.try_into().ok()?, packet.get(16..20)?.try_into().ok()?))
}

pub fn udp(frame: &[u8]) -> Option<Udp<'_>> {
    let (from, to) = ipv4(frame)?;
    let header = 14 + usize::from(frame[14] & 15) * 4;
    let datagram = frame.get(header..).filter(|rest| frame[23] == 17 && rest.len() >= 8)?;
    let port = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
    // DF alone: no fragment of a datagram either (RFC 791).
    let is_whole = frame[20] & 0xe0 == 0x40;
    Some(Udp { from, to, is_whole, from_port: port(0), to_port: port(2), payload: &datagram[8..] })
}
