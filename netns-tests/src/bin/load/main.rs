//! Connections and requests, and how long they took, for benches of what is in between.
//!
//! `load serve PORT` answers every request. `load connections ADDRESS PORT SECONDS PARALLEL` makes new connections, one
//! after the other in each of so many lines; `load paced ADDRESS PORT SECONDS RATE` begins so many a second, whether
//! the others are done or not; `load requests ADDRESS PORT SECONDS PARALLEL` sends request after request on connections
//! that stay. Each prints one line of JSON: how many went well each second, how many didn't, and times.
//!
//! Client and server have a thread for each processor, which share nothing: were they one thread each, what is in
//! between could not show what it does with the processors they leave idle. Requests and answers are of 100 bytes. The server closes first, as a web server does that keeps nothing alive: so it is its side that waits in
//! TIME_WAIT, and the client never runs out of ports. Nobody resets.

mod report;

use report::{Report, Times};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

const MESSAGE: usize = 100;
/// The first byte of a request: whether the server closes after its answer.
const LAST: u8 = b'l';
const MORE: u8 = b'm';
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    let threads = u32::try_from(thread::available_parallelism()?.get()).map_err(io::Error::other)?;
    match words {
        ["serve", port] => {
            let port = number(port)?;
            on_threads(0..threads, |_| serve(port))?.into_iter().collect()
        }
        [what, address, port, seconds, number_of] => {
            let server = format!("{address}:{port}").parse().map_err(io::Error::other)?;
            let (seconds, number): (_, u32) = (number(seconds)?, number(number_of)?);
            let end = Instant::now() + Duration::from_secs(seconds);
            let shares = (0..threads).map(|nth| number / threads + u32::from(nth < number % threads));
            let shares = shares.filter(|share| *share > 0);
            let reports = match *what {
                "connections" => on_threads(shares, |share| connections(server, end, share)),
                "paced" => on_threads(shares, |share| paced(server, end, share)),
                "requests" => on_threads(shares, |share| requests(server, end, share)),
                _ => return Err(io::Error::other("what?")),
            };
            let mut all = Report::until(end);
            reports?.into_iter().for_each(|report| all.add(report));
            println!("{}", all.json(seconds));
            Ok(())
        }
        _ => Err(io::Error::other("usage: load serve PORT | WHAT ADDRESS PORT SECONDS NUMBER")),
    }
}

/// A thread with a runtime of its own for each of `shares`; what came of them.
fn on_threads<S, T, F>(shares: impl Iterator<Item = S>, work: impl Fn(S) -> F + Sync) -> io::Result<Vec<T>>
where
    S: Send,
    T: Send,
    F: Future<Output = T>,
{
    let alone = |share| Ok(Builder::new_current_thread().enable_all().build()?.block_on(work(share)));
    thread::scope(|scope| {
        let threads: Vec<_> = shares.map(|share| scope.spawn(move || alone(share))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| io::Error::other("a thread died"))?)
            .collect()
    })
}

fn number<N: std::str::FromStr>(word: &str) -> io::Result<N> {
    word.parse().map_err(|_| io::Error::other(format!("{word} is no number for this")))
}

/// The kernel shares connections out among the threads. All that are made at once have room to wait.
async fn serve(port: u16) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    let listener = socket.listen(BACKLOG)?;
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // A client that is gone needs no answer.
            tokio::spawn(async move { answer(stream).await.unwrap_or_default() });
        }
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; MESSAGE];
    loop {
        stream.read_exact(&mut request).await?;
        stream.write_all(&request).await?;
        if request[0] == LAST {
            return Ok(());
        }
    }
}

async fn connections(server: SocketAddr, end: Instant, parallel: u32) -> Report {
    let mut lines = JoinSet::new();
    for _ in 0..parallel {
        lines.spawn(async move {
            let mut report = Report::until(end);
            while Instant::now() < end {
                report.note(visit(server).await);
            }
            report
        });
    }
    together(lines, end).await
}

async fn paced(server: SocketAddr, end: Instant, each_second: u32) -> Report {
    let mut visits = JoinSet::new();
    let mut pace = interval(Duration::from_secs(1) / each_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while Instant::now() < end {
        pace.tick().await;
        visits.spawn(async move {
            let mut report = Report::until(end);
            report.note(visit(server).await);
            report
        });
    }
    together(visits, end).await
}

async fn requests(server: SocketAddr, end: Instant, parallel: u32) -> Report {
    let mut lines = JoinSet::new();
    for _ in 0..parallel {
        lines.spawn(async move {
            let mut report = Report::until(end);
            if let Err(error) = stay(server, end, &mut report).await {
                report.note(Err(error));
            }
            report
        });
    }
    together(lines, end).await
}

/// A connection, a request, its answer, and the server's end of it.
async fn visit(server: SocketAddr) -> io::Result<Times> {
    let start = Instant::now();
    let mut stream = within(TcpStream::connect(server)).await?;
    let connect = start.elapsed();
    within(stream.write_all(&[LAST; MESSAGE])).await?;
    let mut answer = Vec::with_capacity(2 * MESSAGE);
    within(stream.read_to_end(&mut answer)).await?;
    match answer.len() {
        MESSAGE => Ok(Times { connect: Some(connect), answer: start.elapsed() }),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn stay(server: SocketAddr, end: Instant, report: &mut Report) -> io::Result<()> {
    let mut stream = within(TcpStream::connect(server)).await?;
    let mut answer = [0; MESSAGE];
    loop {
        let start = Instant::now();
        let is_last = start >= end;
        within(stream.write_all(&[if is_last { LAST } else { MORE }; MESSAGE])).await?;
        within(stream.read_exact(&mut answer)).await?;
        if is_last {
            return Ok(());
        }
        report.note(Ok(Times { connect: None, answer: start.elapsed() }));
    }
}

async fn within<T>(done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, done).await?
}

async fn together(mut parts: JoinSet<Report>, end: Instant) -> Report {
    let mut all = Report::until(end);
    while let Some(part) = parts.join_next().await {
        match part {
            Ok(part) => all.add(part),
            Err(error) => all.note(Err(error.into())),
        }
    }
    all
}
