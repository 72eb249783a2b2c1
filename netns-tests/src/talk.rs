//! Words and their echo: somebody says them, somebody else sends them back, and it is looked whether they are the same.

use crate::Netns;
use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often threads look whether they shall end.
const LOOK: Duration = Duration::from_millis(50);
/// How long an answer is waited for, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two words of a murmur.
const PACE: Duration = Duration::from_millis(20);
const LONGEST: usize = 64 << 10;

/// Sends back whatever comes to its port, by TCP and UDP.
#[derive(Debug)]
pub struct Echo {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    pub fn of(netns: &Netns, port: u16) -> Result<Self> {
        Ok(netns.enter(|| Self::here(port))??)
    }

    /// In the namespace of who calls.
    pub fn here(port: u16) -> io::Result<Self> {
        let any = (Ipv4Addr::UNSPECIFIED, port);
        let (listener, socket) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
        listener.set_nonblocking(true)?;
        socket.set_read_timeout(Some(LOOK))?;
        let ends = Arc::<AtomicBool>::default();
        let (to_tcp, to_udp) = (ends.clone(), ends.clone());
        let tcp = thread::spawn(move || {
            while !to_tcp.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Ends with its connection, however that ends.
                    Ok((stream, _)) => _ = thread::spawn(move || echo_stream(stream)),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        let udp = thread::spawn(move || {
            let mut buffer = vec![0; LONGEST];
            while !to_udp.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    // Who cannot be answered asks again.
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        });
        Ok(Self { ends, threads: vec![tcp, udp] })
    }

    /// Waits for what never comes.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        // A thread that panicked has said so.
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.join();
    }
}

fn echo_stream(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; LONGEST];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len])?,
        }
    }
}

/// Says `words` over a connection of its own and expects them back.
pub fn tcp(from: &Netns, to: SocketAddrV4, words: &[u8]) -> Result<()> {
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to.into(), PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    thread::scope(|scope| {
        let mut writing = stream.try_clone()?;
        let writer = scope.spawn(move || {
            writing.write_all(words)?;
            writing.shutdown(Shutdown::Write)
        });
        let mut heard = Vec::with_capacity(words.len());
        stream.read_to_end(&mut heard).context("listening to the echo")?;
        writer.join().map_err(|_| anyhow::anyhow!("the speaker panicked"))?.context("speaking")?;
        ensure!(heard == words, "said {} bytes, heard {} others", words.len(), heard.len());
        Ok(())
    })
}

/// Says `words` in a datagram, again every second, until they come back.
pub fn udp(from: &Netns, to: SocketAddrV4, words: &[u8]) -> Result<()> {
    let socket = udp_socket(from)?;
    let began = Instant::now();
    while !said_and_heard(&socket, to, words) {
        ensure!(began.elapsed() < 2 * PATIENCE, "{} bytes to {to} did not come back", words.len());
    }
    Ok(())
}

/// Hands the kernel many datagrams as one (UDP_SEGMENT of udp(7)), and expects at least one of them back.
pub fn udp_at_once(from: &Netns, to: SocketAddrV4, words: &[u8], each: u16) -> Result<()> {
    let socket = udp_socket(from)?;
    setsockopt(&socket, UdpGsoSegment, &i32::from(each))?;
    let mut buffer = vec![0; LONGEST];
    let began = Instant::now();
    loop {
        socket.send_to(words, to)?;
        if let Ok(len) = socket.recv(&mut buffer) {
            ensure!(words.starts_with(&buffer[..len]), "{len} other bytes came back");
            return Ok(());
        }
        ensure!(began.elapsed() < 2 * PATIENCE, "none of the datagrams to {to} came back");
    }
}

fn udp_socket(from: &Netns) -> Result<UdpSocket> {
    let socket = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

fn said_and_heard(socket: &UdpSocket, to: SocketAddrV4, words: &[u8]) -> bool {
    let mut buffer = vec![0; LONGEST];
    if socket.send_to(words, to).is_err() {
        // There is no way at the moment: not a reason to ask without a pause.
        thread::sleep(PACE);
        return false;
    }
    socket.recv(&mut buffer).is_ok_and(|len| buffer[..len] == *words)
}

/// Somebody who says the same words over and over, whatever comes of it, until he is dropped.
#[derive(Debug)]
pub struct Murmur {
    ends: Arc<AtomicBool>,
    said: Arc<AtomicU64>,
    heard: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Murmur {
    /// In datagrams; each of the addresses in turn.
    pub fn udp(from: &Netns, to: Vec<SocketAddrV4>, words: Vec<u8>) -> Result<Self> {
        let socket = udp_socket(from)?;
        socket.set_read_timeout(Some(PACE))?;
        let mut next = to.into_iter().cycle();
        Ok(Self::start(move || {
            // An answer that comes late is one.
            let began = Instant::now();
            let is_heard = next.next().is_some_and(|to| said_and_heard(&socket, to, &words));
            thread::sleep(PACE.saturating_sub(began.elapsed()));
            is_heard
        }))
    }

    /// Over one connection after the other.
    pub fn tcp(from: Netns, to: SocketAddrV4, words: Vec<u8>) -> Self {
        Self::start(move || {
            let is_heard = tcp(&from, to, &words).is_ok();
            thread::sleep(PACE);
            is_heard
        })
    }

    fn start(mut say: impl FnMut() -> bool + Send + 'static) -> Self {
        let (ends, said, heard) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (end, count, answers) = (ends.clone(), said.clone(), heard.clone());
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
                if say() {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { ends, said, heard, thread: Some(thread) }
    }

    pub fn said(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }

    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Waits until `more` are answered that were not yet.
    pub fn until_heard(&self, more: u64, at_most: Duration) -> Result<()> {
        let (began, before) = (Instant::now(), self.heard());
        while self.heard() < before + more {
            ensure!(
                began.elapsed() < at_most,
                "{} of {more} words were answered in {at_most:?}",
                self.heard() - before
            );
            thread::sleep(PACE);
        }
        Ok(())
    }
}

impl Drop for Murmur {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It says nothing but what it counts.
            let _ = thread.join();
        }
    }
}

/// Whether nothing was sent to the socket.
pub fn is_silent(socket: &UdpSocket) -> Result<bool> {
    match socket.recv(&mut [0; 64]) {
        Ok(_) => Ok(false),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
        Err(error) => Err(error).context("listening"),
    }
}
