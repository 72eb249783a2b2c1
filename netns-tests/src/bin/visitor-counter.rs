//! The demo's web service: counts visitors in one redis that all its tasks share.
//!
//! `PORT` (4567) is where it listens, `REDIS_HOST` (redis) whom it counts with.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

/// How long a client or redis may be silent.
const SILENCE: Duration = Duration::from_secs(5);
/// A request's head; longer ones are cut off.
const MAX_HEAD_LINES: usize = 100;

fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(4567);
    let redis = format!("{}:6379", env::var("REDIS_HOST").unwrap_or_else(|_| "redis".to_owned()));
    let own_name = own_name();
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("{own_name} listens on port {port} and counts in {redis}");
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let (redis, own_name) = (redis.clone(), own_name.clone());
        thread::spawn(move || {
            if let Err(error) = serve(stream, &redis, &own_name) {
                println!("a client went away: {error}");
            }
        });
    }
    Ok(())
}

fn own_name() -> String {
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    hostname.trim().to_owned()
}

fn serve(mut stream: TcpStream, redis: &str, own_name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    let client = stream.peer_addr()?.ip();
    let request = read_head(&stream)?;
    println!("{client} {request}");
    let (status, text) = match count_visitor(redis) {
        Ok(visitor) => ("200 OK", format!("visitor {visitor}, counted by {own_name}, you are {client}\n")),
        Err(error) => {
            println!("{redis}: {error}");
            ("500 Internal Server Error", format!("{own_name} cannot count in {redis}: {error}\n"))
        }
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// The request line; the headers are read and left alone.
fn read_head(stream: &TcpStream) -> io::Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
    for line in lines.take(MAX_HEAD_LINES) {
        if line?.is_empty() {
            break;
        }
    }
    Ok(request)
}

/// `INCR visitors` in redis' protocol (RESP): the answer is `:7` or `-ERR reason`.
fn count_visitor(redis: &str) -> io::Result<u64> {
    let mut stream = connect(redis)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(b"*2\r\n$4\r\nINCR\r\n$8\r\nvisitors\r\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let number = answer.trim_end().strip_prefix(':').and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("redis answered `{}`", answer.trim_end())))
}

/// Resolved for each visitor: a service's addresses may change.
fn connect(redis: &str) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = redis.to_socket_addrs()?.collect();
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, SILENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
