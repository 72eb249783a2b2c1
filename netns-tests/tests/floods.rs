//! A flood of forged handshakes on the underlay: who holds a session goes on, and who wants one gets it.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::eventually;
use netns_tests::pair::{DATA_PATH_PORT, Pair, container, vtep};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt, socket,
    sockopt,
};
use skep_dataplane::DropReason;
use skep_dataplane::snapshot::Policy;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
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

/// A handshake invented by somebody who knows the format only.
fn initiation(from: Ipv4Addr, nth: u64) -> Vec<u8> {
    let mut noise = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut message = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0];
    message.extend((0..164).map(|_| {
        noise = noise.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d);
        (noise >> 32) as u8 | 1
    }));
    let udp_len = (8 + message.len()) as u16;
    // RFC 791 and 768; the kernel sums the IP header, and a UDP checksum of zero is none.
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_len).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(vtep(1).octets());
    packet.extend(DATA_PATH_PORT.to_be_bytes());
    packet.extend(DATA_PATH_PORT.to_be_bytes());
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(message);
    packet
}

/// Sends until it is told to stop, at most so many a second: from addresses all over, and from the peer's own.
fn flood(raw: &OwnedFd, stop: &AtomicBool, sent: &AtomicU64) {
    let to = SockaddrIn::from(SocketAddrV4::new(vtep(1), 0));
    let packets: Vec<_> = (0..512u64)
        .map(|nth| match nth % 2 {
            0 => initiation(vtep(0), nth),
            _ => initiation(Ipv4Addr::from_bits(0x0a0a_0000 + nth as u32), nth),
        })
        .collect();
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for packet in &packets {
            // A full queue is the flood's own affair.
            let _ = sendto(raw.as_raw_fd(), packet, &to, MsgFlags::MSG_DONTWAIT);
        }
        let count = sent.fetch_add(packets.len() as u64, Ordering::Relaxed);
        let due = begin + Duration::from_secs_f64(count as f64 / FLOOD as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
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

    let (family, kind) = (AddressFamily::Inet, SockType::Raw);
    let raw = pair.other.enter(|| socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw))??;
    let (stop, count, begin) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let flooded = thread::scope(|scope| {
        scope.spawn(|| flood(&raw, &stop, &count));
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
