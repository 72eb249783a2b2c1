//! Asks and answers, for tests of who reaches whom.
//!
//! `prober serve NAME PORT…` says its name to whoever connects or sends a datagram. SIGTERM ends it, also where it is
//! the first process of its namespace, for which the kernel has no default.
//! `prober echo PORT…` sends back what it is sent, and ends by SIGTERM too.
//! `prober ask` reads `tcp|udp ADDRESS PORT` and `ping ADDRESS` lines, asks all at once, and writes a line for each,
//! in the same order: what was answered, or `-` where nothing was heard in time.
//! `prober load ADDRESS PORT` asks over and over until its standard input ends, and says how that went: each request
//! is `ok` or `failed`, none is left out.

use netns_tests::talk::Echo;
use nix::sys::signal::{SigSet, Signal};
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Hosts of a test share a machine: what has not been answered by then never will be.
const PATIENCE: Duration = Duration::from_millis(1200);
/// Pause between two requests of a load.
const PACE: Duration = Duration::from_millis(10);
/// An answer's name is short.
const LONGEST_NAME: usize = 256;
/// Threads of one `ask`.
const AT_ONCE: usize = 128;
/// A thread waits for a socket.
const STACK: usize = 64 << 10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve", name, ports @ ..] if !ports.is_empty() => serve(name, ports),
        ["echo", ports @ ..] if !ports.is_empty() => echo(ports),
        ["ask"] => ask(),
        ["load", address, port] => load(address, port),
        _ => Err(io::Error::other("usage: prober serve NAME PORT… | echo PORT… | ask | load ADDRESS PORT")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prober: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::other(format!("{port} is no port")))
}

fn serve(name: &str, ports: &[&str]) -> io::Result<()> {
    end_on_sigterm()?;
    let mut served = Vec::new();
    for port in ports {
        let port = number(port)?;
        let (listener, socket) = (TcpListener::bind(("0.0.0.0", port))?, UdpSocket::bind(("0.0.0.0", port))?);
        let (to_streams, to_datagrams) = (name.to_owned(), name.to_owned());
        served.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that is gone needs no answer.
                let _ = (&stream).write_all(to_streams.as_bytes());
            }
        }));
        served.push(thread::spawn(move || {
            let mut question = [0; LONGEST_NAME];
            loop {
                if let Ok((_, from)) = socket.recv_from(&mut question) {
                    let _ = socket.send_to(to_datagrams.as_bytes(), from);
                }
            }
        }));
    }
    println!("serving");
    for thread in served {
        thread.join().map_err(|_| io::Error::other("a listener failed"))?;
    }
    Ok(())
}

fn echo(ports: &[&str]) -> io::Result<()> {
    end_on_sigterm()?;
    let echoes: Vec<Echo> = ports.iter().map(|port| Echo::here(number(port)?)).collect::<io::Result<_>>()?;
    println!("echoing");
    echoes.into_iter().for_each(Echo::wait);
    Ok(())
}

/// Blocked in every thread that is started from here on, so that only the one that waits gets it.
fn end_on_sigterm() -> io::Result<()> {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.thread_block()?;
    thread::spawn(move || {
        // Fails only for a signal there isn't.
        let _ = end.wait();
        std::process::exit(0);
    });
    Ok(())
}

fn ask() -> io::Result<()> {
    let lines: Vec<String> = io::stdin().lines().collect::<io::Result<_>>()?;
    for some in lines.chunks(AT_ONCE) {
        let asked: Vec<_> = some.iter().map(|line| spawn(line.clone())).collect::<io::Result<_>>()?;
        for thread in asked {
            let answer = thread.join().unwrap_or_default();
            println!("{}", answer.as_deref().unwrap_or("-"));
        }
    }
    Ok(())
}

fn spawn(line: String) -> io::Result<thread::JoinHandle<Option<String>>> {
    thread::Builder::new().stack_size(STACK).spawn(move || {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["tcp", address, port] => ask_tcp(format!("{address}:{port}").parse().ok()?).ok(),
            ["udp", address, port] => ask_udp(format!("{address}:{port}").parse().ok()?).ok(),
            ["ping", address] => ping(address),
            _ => Some(format!("what is `{line}`?")),
        }
    })
}

/// What the server says before it closes; an error where it says nothing.
fn ask_tcp(server: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    Read::by_ref(&mut stream).take(LONGEST_NAME as u64).read_to_end(&mut answer)?;
    match answer.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

fn ask_udp(server: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"?")?;
    let mut answer = [0; LONGEST_NAME];
    let len = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
}

fn ping(address: &str) -> Option<String> {
    let mut ping = Command::new("ping");
    ping.args(["-n", "-c", "1", "-W", "1", address]).stdin(Stdio::null());
    let status = ping.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    status.success().then(|| "pong".to_owned())
}

fn load(address: &str, port: &str) -> io::Result<()> {
    let server = SocketAddr::new(
        address.parse().map_err(|_| io::Error::other(format!("{address} is no address")))?,
        number(port)?,
    );
    let ends = Arc::new(AtomicBool::new(false));
    let end = ends.clone();
    thread::spawn(move || {
        let _ = io::stdin().lock().lines().count();
        end.store(true, Ordering::Relaxed);
    });
    let (mut ok, mut failed, mut worst) = (0_u64, 0_u64, Duration::ZERO);
    let (mut failing_since, mut longest_outage) = (None, Duration::ZERO);
    while !ends.load(Ordering::Relaxed) {
        let start = Instant::now();
        match ask_tcp(server) {
            Ok(_) => {
                ok += 1;
                worst = worst.max(start.elapsed());
                failing_since = None;
            }
            Err(error) => {
                failed += 1;
                println!("failed after {} ms: {error}", start.elapsed().as_millis());
                let since = *failing_since.get_or_insert(start);
                longest_outage = longest_outage.max(since.elapsed());
            }
        }
        thread::sleep(PACE);
    }
    let (worst, outage) = (worst.as_millis(), longest_outage.as_millis());
    println!("ok {ok} failed {failed} worst_ms {worst} longest_outage_ms {outage}");
    Ok(())
}
