//! Datagrams, and who counts them.

use crate::Gaps;
use nix::sys::socket::{getsockopt, sockopt};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Between two of them.
const PACE: Duration = Duration::from_millis(4);
/// As much as fits a sealed network on Ethernet: 1,418 with its headers.
const DATAGRAM: usize = 1_390;
/// How often an answer is asked for.
const ASK: Duration = Duration::from_millis(200);
const ASKED: usize = 50;

fn datagram(nth: u64) -> Vec<u8> {
    let mut bytes = nth.to_be_bytes().to_vec();
    bytes.resize(DATAGRAM, nth as u8);
    bytes
}

pub(crate) fn send(server: SocketAddr, lasting: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ASK))?;
    println!("begun");
    let (begin, mut sent, mut refused) = (Instant::now(), 0, 0);
    while begin.elapsed() < lasting {
        // An error is about one before it, which a router refused.
        match socket.send(&datagram(sent)) {
            Ok(_) => sent += 1,
            Err(_) => refused += 1,
        }
        thread::sleep(PACE);
    }
    let mut report = [0; 256];
    for _ in 0..ASKED {
        let _ = socket.send(b"?");
        if let Ok(len) = socket.recv(&mut report) {
            let report = String::from_utf8_lossy(&report[..len]).into_owned();
            return Ok(format!("sent {sent} refused {refused} {report}"));
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// What came from each sender.
#[derive(Default)]
struct Seen {
    received: u64,
    wrong: u64,
    gaps: Gaps,
}

pub(crate) fn count(socket: &UdpSocket) {
    let mut seen: BTreeMap<SocketAddr, Seen> = BTreeMap::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let seen = seen.entry(from).or_default();
        // The end is the end of a gap, too.
        seen.gaps.note();
        if &buffer[..len] == b"?" {
            let Seen { received, wrong, gaps } = seen;
            let report = format!("received {received} wrong {wrong} longest_gap_ms {}", gaps.longest());
            let _ = socket.send_to(report.as_bytes(), from);
            continue;
        }
        let nth = buffer[..8].try_into().map_or(0, u64::from_be_bytes);
        seen.received += 1;
        seen.wrong += u64::from(buffer[..len] != datagram(nth));
    }
}

/// Tries until an error came back, or none did.
pub(crate) fn size(server: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    let mut refused = 0;
    for nth in 0..5 {
        refused += u64::from(socket.send(&datagram(nth)).is_err());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(format!("mtu {} refused {refused}", getsockopt(&socket, sockopt::IpMtu)?))
}
