//! The outside machine's two DNS servers: they know two names, count questions and can play dead.

use super::daemon::POLL;
use super::layout::{FAR, Lab, OUTSIDE, OUTSIDE_2};
use crate::interrupt::Interrupt;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

const SERVERS: [Ipv4Addr; 2] = [OUTSIDE, OUTSIDE_2];
const NAMES: [(&str, Ipv4Addr); 2] = [("outside.example", OUTSIDE), ("far.example", FAR)];
/// Seconds. Short, so that a test that changes which server lives isn't answered from memory.
const TTL: u32 = 1;
const START: Duration = Duration::from_secs(10);
/// How long a TCP client may take to ask.
const SILENCE: Duration = Duration::from_secs(2);

// RFC 1035 §4.1.1 and §3.2.
const HEADER: usize = 12;
const NXDOMAIN: u8 = 3;
const TYPE_A: u16 = 1;

/// Starts both servers on the outside machine.
pub(super) fn start(lab: &Lab, interrupt: &Interrupt) -> Result<()> {
    for (index, address) in SERVERS.iter().enumerate() {
        let log = log(lab, index);
        // Whoever waits for the end of `lab up`'s output does not wait for its servers.
        let errors = OpenOptions::new().create(true).append(true).open(lab.client().log())?;
        let mut server = lab
            .client()
            .command(std::env::current_exe()?.to_str().context("a path in UTF-8")?)?
            .args(["lab", "dns-server", &address.to_string()])
            .args([&log, &dead_file(lab, index)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .process_group(0)
            .spawn()?;
        let deadline = Instant::now() + START;
        while !fs::read_to_string(&log).is_ok_and(|text| text.starts_with("listening")) {
            interrupt.check()?;
            ensure!(server.try_wait()?.is_none(), "the DNS server on {address} ended");
            ensure!(Instant::now() < deadline, "the DNS server on {address} does not start");
            thread::sleep(POLL);
        }
    }
    Ok(())
}

/// `lab dns 2 dead`
pub(super) fn set_state(lab: &Lab, server: &str, state: &str) -> Result<()> {
    let index = match server {
        "1" => 0,
        "2" => 1,
        _ => bail!("the DNS servers are 1 and 2, there is no `{server}`"),
    };
    ensure!(lab.directory().exists(), "the lab `{}` is not up: `cargo xtask lab up`", lab.name());
    let file = dead_file(lab, index);
    match state {
        "dead" => File::create(file).map(|_| ())?,
        "alive" if file.exists() => fs::remove_file(file)?,
        "alive" => {}
        _ => bail!("a DNS server is `dead` or `alive`, not `{state}`"),
    }
    Ok(())
}

pub(super) fn print_status(lab: &Lab) {
    for (index, address) in SERVERS.iter().enumerate() {
        let state = if dead_file(lab, index).exists() { "dead" } else { "alive" };
        let text = fs::read_to_string(log(lab, index)).unwrap_or_default();
        let questions = text.lines().filter(|line| line.starts_with("question")).count();
        println!("DNS {} on {address}: {state}, {questions} questions so far", index + 1);
    }
}

fn log(lab: &Lab, index: usize) -> PathBuf {
    lab.directory().join(format!("dns{}.log", index + 1))
}

/// A server whose file exists plays dead. Each question looks, so that a test needs no acknowledgement.
fn dead_file(lab: &Lab, index: usize) -> PathBuf {
    lab.directory().join(format!("dns{}.dead", index + 1))
}

/// Runs one server for ever: UDP here, TCP beside it.
pub(super) fn serve(listen: Ipv4Addr, log: &Path, dead_file: &Path) -> Result<()> {
    let udp = UdpSocket::bind((listen, 53)).with_context(|| format!("cannot listen on {listen}"))?;
    let tcp = TcpListener::bind((listen, 53)).with_context(|| format!("cannot listen on {listen}"))?;
    let mut log = OpenOptions::new().create(true).append(true).open(log)?;
    writeln!(log, "listening on {listen}")?;
    let server = Server { log, dead_file: dead_file.to_owned() };
    let beside = Server { log: server.log.try_clone()?, dead_file: dead_file.to_owned() };
    thread::spawn(move || beside.serve_tcp(&tcp));
    server.serve_udp(&udp)
}

struct Server {
    log: File,
    dead_file: PathBuf,
}

impl Server {
    fn serve_udp(&self, socket: &UdpSocket) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let (len, from) = socket.recv_from(&mut buffer)?;
            if let Some(answer) = self.answer(&buffer[..len], from.ip()) {
                // A client that went away is no reason to stop.
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    /// One client after the other; a slow or broken one is dropped.
    fn serve_tcp(&self, listener: &TcpListener) {
        for mut stream in listener.incoming().flatten() {
            let _ = self.converse(&mut stream);
        }
    }

    fn converse(&self, stream: &mut std::net::TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        let from = stream.peer_addr()?.ip();
        loop {
            let mut length = [0; 2];
            match stream.read_exact(&mut length) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question)?;
            let Some(answer) = self.answer(&question, from) else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
        }
    }

    fn answer(&self, question: &[u8], from: IpAddr) -> Option<Vec<u8>> {
        let asked = Question::parse(question)?;
        if self.dead_file.exists() {
            return None;
        }
        // The log is the count; losing a line of it must not keep a test's resolver from answering.
        let _ = writeln!(&self.log, "question from {from}: {} type {}", asked.name, asked.kind);
        Some(asked.answer(question))
    }
}

struct Question {
    name: String,
    kind: u16,
    /// Where the question section ends.
    end: usize,
}

impl Question {
    /// Only what a stub resolver or forwarder sends: a query with one uncompressed name.
    fn parse(message: &[u8]) -> Option<Self> {
        let is_query = message.get(2)? & 0x80 == 0;
        let one_question = message.get(4..6)? == [0, 1];
        let mut labels = Vec::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            match length {
                0 => break,
                1..=63 => labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_lowercase()),
                _ => return None,
            }
            at += length;
        }
        let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
        message.get(at + 3)?;
        (is_query && one_question).then(|| Self { name: labels.join("."), kind, end: at + 4 })
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let known = NAMES.iter().find(|(name, _)| *name == self.name).map(|(_, address)| *address);
        let record = known.filter(|_| self.kind == TYPE_A);
        let recursion_desired = question[2] & 1;
        let code = if known.is_some() { 0 } else { NXDOMAIN };
        let mut answer = question[..self.end].to_vec();
        // QR and AA; RA, since nobody asks further.
        answer[2] = 0x84 | recursion_desired;
        answer[3] = 0x80 | code;
        answer[6..HEADER].copy_from_slice(&[0, u8::from(record.is_some()), 0, 0, 0, 0]);
        if let Some(address) = record {
            // The name by a pointer to the question, type A, class IN.
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1]);
            answer.extend(TTL.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(address.octets());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    fn answer(name: &str, kind: u16) -> Vec<u8> {
        let question = ask(name, kind);
        Question::parse(&question).unwrap().answer(&question)
    }

    #[test]
    fn a_known_name_has_its_address() {
        let answer = answer("Outside.Example", TYPE_A);
        assert_eq!(&answer[..2], [0x12, 0x34]);
        assert_eq!((answer[3] & 0xf, answer[7]), (0, 1));
        assert!(answer.ends_with(&OUTSIDE.octets()));
    }

    #[test]
    fn a_known_name_without_that_type_is_an_empty_answer() {
        let answer = answer("outside.example", 28);
        assert_eq!((answer[3] & 0xf, answer[7]), (0, 0));
    }

    #[test]
    fn an_unknown_name_does_not_exist() {
        assert_eq!(answer("redis", TYPE_A)[3] & 0xf, NXDOMAIN);
    }

    #[test]
    fn no_prefix_of_a_question_is_a_question() {
        let question = ask("outside.example", TYPE_A);
        for end in 0..question.len() {
            assert!(Question::parse(&question[..end]).is_none(), "{end}");
        }
    }
}
