//! A flood of forged handshakes on the underlay: who holds a session goes on, and who wants one gets it.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::eventually;
use netns_tests::pair::{DATA_PATH_PORT, Pair, container, vtep};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, sendmsg,
    setsockopt, socket, sockopt,
};
use skep_dataplane::DropReason;
use skep_dataplane::snapshot::Policy;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const WINDOW: Duration = Duration::from_secs(3);
/// A standing conversation, in datagrams a second.
const RATE: u64 = 2_000;
const RECEIVE_BUFFER: usize = 8 << 20;
/// Wanted of the flood, in datagrams a second; what the machine gives is told.
const FLOOD: u64 = 200_000;

/// Datagrams of one sender that cross its own stack as one: else that would be what the flood costs most.
const RUN: u64 = 16;
const STRANGERS: u32 = 64;

/// A handshake invented by somebody who knows the format only.
fn initiation(nth: u64) -> Vec<u8> {
    let mut noise = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut message = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0];
    message.extend((0..164).map(|_| {
        noise = noise.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d);
        (noise >> 32) as u8 | 1
    }));
    message
}

/// Sends as if it were somebody else.
fn spoofing(from: Ipv4Addr) -> Result<UdpSocket> {
    let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::Udp)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, DATA_PATH_PORT)))?;
    Ok(socket.into())
}

/// Strangers from all over, and the peer's own address before each of them.
fn spoofers() -> Result<Vec<UdpSocket>> {
    let strangers = (0..STRANGERS).map(|nth| Ipv4Addr::from_bits(0x0a0a_0000 + nth));
    let peer = spoofing(vtep(0))?;
    let each = strangers.map(|from| Ok([peer.try_clone()?, spoofing(from)?]));
    Ok(each.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Sends until it is told to stop, at most so many a second.
fn flood(spoofers: &[UdpSocket], stop: &AtomicBool, sent: &AtomicU64) {
    let to = SockaddrIn::from(SocketAddrV4::new(vtep(1), DATA_PATH_PORT));
    let message = initiation(0).len() as u16;
    let runs: Vec<Vec<u8>> = (0..spoofers.len() as u64)
        .map(|run| (0..RUN).flat_map(|nth| initiation(run * RUN + nth)).collect())
        .collect();
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for (socket, run) in spoofers.iter().zip(&runs) {
            let control = [ControlMessage::UdpGsoSegments(&message)];
            let run = [IoSlice::new(run)];
            // A full queue is the flood's own affair.
            let is_sent =
                sendmsg(socket.as_raw_fd(), &run, &control, MsgFlags::MSG_DONTWAIT, Some(&to)).is_ok();
            let count = sent.fetch_add(if is_sent { RUN } else { 0 }, Ordering::Relaxed);
            let due = begin + Duration::from_secs_f64(count as f64 / FLOOD as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// How many of the datagrams that one container sends for a while reach the other.
fn converse(pair: &Pair) -> Result<(u64, u64)> {
    let address = (container(1), 9_000);
    let receiver = pair.sides[1].container.enter(|| UdpSocket::bind(address))??;
    let sender = pair.sides[0].container.enter(|| UdpSocket::bind((container(0), 0)))??;
    receiver.set_read_timeout(Some(Duration::from_millis(500)))?;
    // What is lost is to be lost on the way, not here while this process waits for its turn.
    setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let heard = thread::spawn(move || {
        let mut buffer = [0; 2048];
        let mut heard = 0;
        while receiver.recv(&mut buffer).is_ok() {
            heard += 1;
        }
        heard
    });
    let begin = Instant::now();
    let mut sent = 0;
    let mut due = begin;
    while begin.elapsed() < WINDOW {
        sender.send_to(&[7; 400], address)?;
        sent += 1;
        // Who was kept waiting does not make up for it: that burst would be more than an interface's queue takes.
        due = (due + Duration::from_micros(1_000_000 / RATE)).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok((sent, heard.join().ok().context("the receiver")?))
}

/// What happened while the flood was on.
struct Flooded {
    sent: u64,
    heard: u64,
    handshake: Duration,
}

fn under_flood(pair: &mut Pair) -> Result<Flooded> {
    let (sent, heard) = converse(pair)?;
    pair.restart(0)?;
    let begin = Instant::now();
    eventually(PATIENCE, "a session in the flood", || pair.is_met())?;
    Ok(Flooded { sent, heard, handshake: begin.elapsed() })
}

#[test]
fn a_flood_of_forged_handshakes_disturbs_neither_sessions_nor_their_beginning() -> Result<()> {
    let mut pair = Pair::new(Policy::Sealed)?;
    eventually(PATIENCE, "a session", || pair.is_met())?;
    let (sent, heard) = converse(&pair)?;
    ensure!(heard * 100 >= sent * 99, "in peace {heard} of {sent} arrive");

    let spoofers = pair.other.enter(spoofers)??;
    let (stop, count, begin) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let flooded = thread::scope(|scope| {
        scope.spawn(|| flood(&spoofers, &stop, &count));
        let flooded = under_flood(&mut pair);
        stop.store(true, Ordering::Relaxed);
        flooded
    })?;
    let rate = count.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    let stats = pair.sides[1].worker.stats()?.engine;
    let dropped = |reason| stats.dropped(reason);
    let (strangers, unsigned) = (dropped(DropReason::HandshakeStranger), dropped(DropReason::HandshakeMac));
    println!(
        "{rate:.0} forged handshakes a second: {} of {} datagrams arrive, a handshake takes {:?}; \
         dropped {strangers} of strangers and {unsigned} that do not know the key",
        flooded.heard, flooded.sent, flooded.handshake
    );
    ensure!(strangers > 10_000 && unsigned > 10_000, "the flood was seen");
    ensure!(flooded.heard * 100 >= flooded.sent * 95, "{} of {}", flooded.heard, flooded.sent);
    ensure!(flooded.handshake < Duration::from_secs(2), "{:?}", flooded.handshake);
    Ok(())
}
