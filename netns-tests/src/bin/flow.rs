//! Flows that last, and what became of them, for tests of paths that change under way.
//!
//! `flow serve PORT` takes connections and datagrams until it is killed.
//! `flow up|down ADDRESS PORT SECONDS` moves a stream there or here, some megabytes a second.
//! `flow burst ADDRESS PORT BYTES` moves as many up, as fast as they go.
//! `flow datagrams ADDRESS PORT SECONDS` sends datagrams of 1,390 bytes, which Linux marks as not to be cut.
//! `flow size ADDRESS PORT` says how large a packet this host believes the path there carries, once it has tried one.
//!
//! Each says `begun` once it has begun, and at its end a line of names and numbers. A stream ends with the SHA-256 of
//! what was before it.

use nix::sys::socket::{getsockopt, sockopt};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A stream moves a chunk each time, some 8 MB/s: enough for super-frames, and no more than a busy machine carries.
const CHUNK: usize = 32 << 10;
const PACE: Duration = Duration::from_millis(4);
/// Hexadecimal.
const DIGEST_LEN: usize = 64;
/// Longer silence is a hang, for whoever waits.
const HANG: Duration = Duration::from_secs(60);
/// As much as fits a sealed network on Ethernet: 1,418 with its headers.
const DATAGRAM: usize = 1_390;
/// How often an answer is asked for.
const ASK: Duration = Duration::from_millis(200);
const ASKED: usize = 50;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve", port] => serve(port),
        [what, address, port, rest @ ..] => call(what, &format!("{address}:{port}"), rest),
        _ => Err(io::Error::other("usage: flow serve PORT | WHAT ADDRESS PORT …")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flow: {error}");
            ExitCode::FAILURE
        }
    }
}

fn call(what: &str, server: &str, rest: &[&str]) -> io::Result<()> {
    let server = server.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no such address"))?;
    let number = rest.first().map(|word| word.parse::<u64>()).transpose().map_err(io::Error::other)?;
    let number = number.unwrap_or_default();
    let said = match what {
        "up" => up(server, Bulk::paced(number))?,
        "burst" => up(server, Bulk { bytes: number, pace: Duration::ZERO })?,
        "down" => down(server, number)?,
        "datagrams" => datagrams(server, Duration::from_secs(number))?,
        "size" => size(server)?,
        _ => return Err(io::Error::other("what?")),
    };
    println!("{said}");
    Ok(())
}

fn serve(port: &str) -> io::Result<()> {
    let at = ("0.0.0.0", port.parse::<u16>().map_err(io::Error::other)?);
    let (listener, socket) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
    thread::spawn(move || count(&socket));
    println!("serving");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("flow: {error}");
            }
        });
    }
    Ok(())
}

/// The first byte says for how many seconds to send; 0: to receive.
fn answer(mut stream: TcpStream) -> io::Result<()> {
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

fn up(server: SocketAddr, bulk: Bulk) -> io::Result<String> {
    let mut stream = connect(server)?;
    stream.write_all(&[0])?;
    send(&mut stream, bulk)?;
    let mut report = String::new();
    stream.read_to_string(&mut report)?;
    Ok(report)
}

fn down(server: SocketAddr, seconds: u64) -> io::Result<String> {
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

struct Bulk {
    bytes: u64,
    pace: Duration,
}

impl Bulk {
    fn paced(seconds: u64) -> Self {
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

/// Times between things that happen.
#[derive(Default)]
struct Gaps {
    last: Option<Instant>,
    longest: Duration,
}

impl Gaps {
    fn note(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
    }

    fn longest(&self) -> u128 {
        self.longest.as_millis()
    }
}

/// By coreutils: a debug build's own would take longer than the transfer.
struct Digest(Child);

impl Digest {
    fn start() -> io::Result<Self> {
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Self)
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(bytes))
    }

    fn end(self) -> io::Result<String> {
        let said = self.0.wait_with_output()?.stdout;
        Ok(String::from_utf8_lossy(&said).chars().take(DIGEST_LEN).collect())
    }
}

fn datagram(nth: u64) -> Vec<u8> {
    let mut bytes = nth.to_be_bytes().to_vec();
    bytes.resize(DATAGRAM, nth as u8);
    bytes
}

fn datagrams(server: SocketAddr, lasting: Duration) -> io::Result<String> {
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

fn count(socket: &UdpSocket) {
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
fn size(server: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    let mut refused = 0;
    for nth in 0..5 {
        refused += u64::from(socket.send(&datagram(nth)).is_err());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(format!("mtu {} refused {refused}", getsockopt(&socket, sockopt::IpMtu)?))
}
