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

mod datagrams;
mod digest;
mod stream;

use std::io;
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use stream::Bulk;

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
        "up" => stream::up(server, Bulk::paced(number))?,
        "burst" => stream::up(server, Bulk { bytes: number, pace: Duration::ZERO })?,
        "down" => stream::down(server, number)?,
        "datagrams" => datagrams::send(server, Duration::from_secs(number))?,
        "size" => datagrams::size(server)?,
        _ => return Err(io::Error::other("what?")),
    };
    println!("{said}");
    Ok(())
}

fn serve(port: &str) -> io::Result<()> {
    let at = ("0.0.0.0", port.parse::<u16>().map_err(io::Error::other)?);
    let (listener, socket) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
    thread::spawn(move || datagrams::count(&socket));
    println!("serving");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            if let Err(error) = stream::answer(stream) {
                eprintln!("flow: {error}");
            }
        });
    }
    Ok(())
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
