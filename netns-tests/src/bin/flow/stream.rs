//! Streams, and the digest at their end.

use crate::Gaps;
use crate::digest::{DIGEST_LEN, Digest};
use nix::sys::socket::{getsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// A stream moves a chunk each time, some 8 MB/s: enough for super-frames, and no more than a busy machine carries.
const CHUNK: usize = 32 << 10;
const PACE: Duration = Duration::from_millis(4);
/// Longer silence is a hang, for whoever waits.
const HANG: Duration = Duration::from_secs(60);

/// The first byte says for how many seconds to send; 0: to receive.
pub(crate) fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut seconds = [0];
    stream.read_exact(&mut seconds)?;
    match seconds {
        [0] => {
            let report = receive(&mut stream)?;
            println!("{report}");
            stream.write_all(report.as_bytes())
        }
        [seconds] => send(&mut stream, Bulk::paced(seconds.into())),
    }
}

pub(crate) fn up(server: SocketAddr, bulk: Bulk) -> io::Result<String> {
    let mut stream = connect(server)?;
    stream.write_all(&[0])?;
    send(&mut stream, bulk)?;
    let mut report = String::new();
    stream.read_to_string(&mut report)?;
    Ok(report)
}

pub(crate) fn down(server: SocketAddr, seconds: u64) -> io::Result<String> {
    let mut stream = connect(server)?;
    stream.write_all(&[u8::try_from(seconds).map_err(io::Error::other)?])?;
    receive(&mut stream)
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, HANG)?;
    println!("begun");
    stream.set_read_timeout(Some(HANG))?;
    stream.set_write_timeout(Some(HANG))?;
    Ok(stream)
}

pub(crate) struct Bulk {
    pub(crate) bytes: u64,
    pub(crate) pace: Duration,
}

impl Bulk {
    pub(crate) fn paced(seconds: u64) -> Self {
        let chunks = seconds * 1_000 / PACE.as_millis() as u64;
        Self { bytes: chunks * CHUNK as u64, pace: PACE }
    }
}

fn send(stream: &mut TcpStream, bulk: Bulk) -> io::Result<()> {
    let mut digest = Digest::start()?;
    let (mut left, mut random) = (bulk.bytes, 0x9e37_79b9_7f4a_7c15);
    while left > 0 {
        let len = left.min(CHUNK as u64) as usize;
        let chunk: Vec<u8> = (0..CHUNK / 8).flat_map(|_| next(&mut random).to_le_bytes()).take(len).collect();
        digest.take(&chunk)?;
        stream.write_all(&chunk)?;
        left -= len as u64;
        thread::sleep(bulk.pace);
    }
    stream.write_all(digest.end()?.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// Marsaglia's xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn receive(stream: &mut TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(HANG))?;
    let (mut digest, mut gaps) = (Digest::start()?, Gaps::default());
    let (mut buffer, mut tail, mut bytes) = (vec![0; 1 << 16], Vec::new(), 0);
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        gaps.note();
        tail.extend_from_slice(&buffer[..len]);
        let sure = tail.len().saturating_sub(DIGEST_LEN);
        digest.take(&tail[..sure])?;
        bytes += sure;
        tail.drain(..sure);
    }
    let is_whole = digest.end()?.as_bytes() == tail;
    // Of what this end sends: what the other end's SYN said, as it was when it arrived, less its options.
    let mss = getsockopt(stream, sockopt::TcpMaxSeg)?;
    Ok(format!("bytes {bytes} whole {} longest_gap_ms {} mss {mss}", u8::from(is_whole), gaps.longest()))
}
