//! The least that stands for the packet engine here: passes IPv4 between `skep0` and one task's ingress
//! interface, VIP and task address translated, and answers ARP. What is tested is the kernel around it.

use crate::world::PATIENCE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_agent::host::Tap;
use std::io::{PipeReader, PipeWriter, pipe};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

/// virtio_net_hdr; all zero says that the frame is complete.
const VNET: usize = 10;
const ETHERNET: usize = 14;
const IP: usize = VNET + ETHERNET;
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];

#[derive(Default)]
struct Log {
    packets: Mutex<Vec<Packet>>,
    grown: Condvar,
}

pub(crate) struct Wire {
    from_skep0: Arc<Log>,
    /// The thread ends when this is closed.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// An IPv4 packet that came out of `skep0`.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    /// What follows the IP header.
    pub(crate) payload: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(skep0: Tap, task: Tap, vip: Ipv4Addr, addr: Ipv4Addr) -> Self {
        let from_skep0 = Arc::<Log>::default();
        let (stopped, stop) = pipe().unwrap();
        let log = Arc::clone(&from_skep0);
        let thread = thread::spawn(move || pass_frames([&skep0, &task], &stopped, vip, addr, &log));
        Self { from_skep0, stop: Some(stop), thread: Some(thread) }
    }

    /// Everything that has come out of `skep0`.
    pub(crate) fn seen(&self) -> Vec<Packet> {
        self.from_skep0.packets.lock().unwrap().clone()
    }

    /// The first packet out of `skep0` that `is_it`.
    pub(crate) fn wait_for(&self, is_it: impl Fn(&Packet) -> bool) -> Packet {
        let Log { packets, grown } = &*self.from_skep0;
        let none = |packets: &mut Vec<Packet>| !packets.iter().any(&is_it);
        let (packets, _) = grown.wait_timeout_while(packets.lock().unwrap(), PATIENCE, none).unwrap();
        packets.iter().find(|packet| is_it(packet)).expect("the packet came out of skep0 in time").clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || thread::panicking());
    }
}

fn pass_frames([skep0, task]: [&Tap; 2], stopped: &PipeReader, vip: Ipv4Addr, addr: Ipv4Addr, log: &Log) {
    let to_task = |ip: &mut [u8]| {
        log.packets.lock().unwrap().push(packet(ip));
        log.grown.notify_all();
        (destination(ip) == vip).then(|| ip[16..20].copy_from_slice(&addr.octets())).is_some()
    };
    let from_task =
        |ip: &mut [u8]| (source(ip) == addr).then(|| ip[12..16].copy_from_slice(&vip.octets())).is_some();
    loop {
        let mut fds =
            [skep0.as_fd(), task.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::NONE).unwrap();
        if fds[2].any() == Some(true) {
            return;
        }
        pass(skep0.as_fd(), task.as_fd(), to_task);
        pass(task.as_fd(), skep0.as_fd(), from_task);
    }
}

/// Passes on what waits and `translate` says yes to.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>, translate: impl Fn(&mut [u8]) -> bool) {
    let mut buf = [0; 2048];
    while let Ok(read) = nix::unistd::read(from, &mut buf) {
        let frame = &mut buf[..read];
        frame[..VNET].fill(0);
        match (frame[VNET + 12], frame[VNET + 13]) {
            (0x08, 0x06) if answer_arp(frame) => write(from, frame),
            (0x08, 0x00) if translate(&mut frame[IP..]) => {
                let owner = mac_of(destination(&frame[IP..]));
                frame[VNET..VNET + 6].copy_from_slice(&owner);
                frame[VNET + 6..VNET + 12].copy_from_slice(&MAC);
                finish_checksums(&mut frame[IP..]);
                write(to, frame);
            }
            _ => {}
        }
    }
}

fn write(to: BorrowedFd<'_>, frame: &[u8]) {
    assert_eq!(nix::unistd::write(to, frame), Ok(frame.len()));
}

/// Frames towards `skep0` go to whatever client; its MAC is the one thing they have in common.
fn mac_of(destination: Ipv4Addr) -> [u8; 6] {
    let owner = if destination == crate::mesh_path::TASK { destination } else { crate::mesh::SKEP0_ADDR };
    skep_dataplane::ids::MacAddr::for_ip(owner).0
}

/// Turns a request into its answer: every address is at [`MAC`].
fn answer_arp(frame: &mut [u8]) -> bool {
    let arp = VNET + ETHERNET;
    let asks = frame[arp + 7] == 1 && frame[arp + 14..arp + 18] != frame[arp + 24..arp + 28];
    if asks {
        let asker: [u8; 10] = frame[arp + 8..arp + 18].try_into().unwrap();
        let asked: [u8; 4] = frame[arp + 24..arp + 28].try_into().unwrap();
        frame[VNET..VNET + 6].copy_from_slice(&asker[..6]);
        frame[arp + 7] = 2;
        frame[arp + 8..arp + 14].copy_from_slice(&MAC);
        frame[arp + 14..arp + 18].copy_from_slice(&asked);
        frame[arp + 18..arp + 28].copy_from_slice(&asker);
    }
    asks
}

fn source(ip: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15])
}

fn destination(ip: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19])
}

fn packet(ip: &[u8]) -> Packet {
    let (source, destination) = (source(ip), destination(ip));
    Packet { source, destination, protocol: ip[9], payload: ip[20..].to_vec() }
}

fn finish_checksums(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let header = internet_checksum(&ip[..20]);
    ip[10..12].copy_from_slice(&header);
    let at = match ip[9] {
        6 => 36,
        17 => 26,
        _ => return,
    };
    ip[at..at + 2].fill(0);
    // The pseudo-header of RFC 9293 §3.1: addresses, protocol, length.
    let length = u16::try_from(ip.len() - 20).unwrap();
    let mut pseudo = ip[12..20].to_vec();
    pseudo.extend([0, ip[9]]);
    pseudo.extend(length.to_be_bytes());
    pseudo.extend(&ip[20..]);
    let sum = internet_checksum(&pseudo);
    ip[at..at + 2].copy_from_slice(&sum);
}

/// RFC 1071.
pub(crate) fn internet_checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
