//! Traffic between two namespaces, checked at both ends.

use crate::Netns;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// How long a silent peer is waited for.
const SILENCE: Duration = Duration::from_secs(10);

/// Sends `file` from one namespace to `to` in the other over TCP and compares the SHA-256 of both ends.
pub fn tcp(file: &Path, from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<()> {
    let listener = to.enter(|| TcpListener::bind((address, 0)))??;
    let server = listener.local_addr()?;
    let receiver = thread::spawn(move || -> Result<String> {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(SILENCE))?;
        sha256(stream)
    });
    // A sender that fails leaves the receiver waiting for a connection; it ends with the test.
    let sent = from.enter(|| send(file, server))?.context("sending")?;
    let received =
        receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?.context("receiving")?;
    ensure!(sent == received, "sent {sent}, received {received}");
    Ok(())
}

fn send(file: &Path, server: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, SILENCE)?;
    stream.set_write_timeout(Some(SILENCE))?;
    io::copy(&mut File::open(file)?, &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    sha256(File::open(file)?)
}

/// By coreutils: a debug build's own would take longer than the transfer.
fn sha256(mut bytes: impl Read) -> Result<String> {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    io::copy(&mut bytes, &mut stdin)?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "sha256sum: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Sends `len` bytes in one UDP datagram from one namespace to `address` in the other and back.
pub fn udp_echo(len: usize, from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<()> {
    let server = to.enter(|| UdpSocket::bind((address, 0)))??;
    let client = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    server.set_read_timeout(Some(SILENCE))?;
    client.set_read_timeout(Some(SILENCE))?;
    client.connect(server.local_addr()?)?;

    let sent: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
    let mut buffer = vec![0; 65_536];
    client.send(&sent).context("sending the question")?;
    let (received, client_address) = server.recv_from(&mut buffer).context("waiting for the question")?;
    ensure!(buffer[..received] == sent, "the question arrived with {received} other bytes");
    server.send_to(&buffer[..received], client_address).context("sending the answer")?;
    let received = client.recv(&mut buffer).context("waiting for the answer")?;
    ensure!(buffer[..received] == sent, "the answer arrived with {received} other bytes");
    Ok(())
}

/// Hands the kernel `count` datagrams of `len` bytes as one buffer (UDP_SEGMENT, udp(7)), which a TAP with
/// offloads gets as one super-frame, and expects each at the other end.
pub fn udp_segments(count: usize, len: u16, from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
    let server = to.enter(|| UdpSocket::bind((address, 0)))??;
    let client = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    server.set_read_timeout(Some(SILENCE))?;
    client.connect(server.local_addr()?)?;
    setsockopt(&client, UdpGsoSegment, &i32::from(len))?;

    let numbered = |i: usize| vec![i as u8; usize::from(len)];
    let sent: Vec<u8> = (0..count).flat_map(numbered).collect();
    client.send(&sent)?;
    let mut buffer = vec![0; 65_536];
    for i in 0..count {
        let received = server.recv(&mut buffer).with_context(|| format!("waiting for datagram {i}"))?;
        ensure!(buffer[..received] == numbered(i), "datagram {i} arrived as {received} other bytes");
    }
    Ok(())
}
