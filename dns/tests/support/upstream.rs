//! A resolver of the host.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::server::sockets;

pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const FORGED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// Remembers what it is asked, answers with `code` and `n` addresses, over UDP only up to 512 bytes.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) at: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    udp: Mutex<Vec<(Vec<u8>, SocketAddr)>>,
    tcp: AtomicUsize,
    is_dead: AtomicBool,
}

/// What somebody sends in the upstream's name before it answers.
type Forger = fn(asked: &[u8]) -> Vec<Vec<u8>>;

impl Upstream {
    pub(crate) fn start(code: ResponseCode, n: u8) -> Self {
        Self::with_forger(code, n, |_| Vec::new())
    }

    pub(crate) fn with_forger(code: ResponseCode, n: u8, forger: Forger) -> Self {
        let (udp, tcp, at) = sockets();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (udp, tcp) = (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap());
        let seen = Arc::new(Seen::default());
        tokio::spawn(serve_udp(udp, Arc::clone(&seen), code, n, forger));
        tokio::spawn(serve_tcp(tcp, Arc::clone(&seen), code, n));
        Self { at, seen }
    }

    /// Takes questions and doesn't answer.
    pub(crate) fn dead() -> Self {
        let dead = Self::start(ResponseCode::NoError, 1);
        dead.set_dead(true);
        dead
    }

    pub(crate) fn set_dead(&self, is_dead: bool) {
        self.seen.is_dead.store(is_dead, Ordering::Relaxed);
    }

    /// Datagrams that came.
    pub(crate) fn asked(&self) -> usize {
        self.seen.udp.lock().unwrap().len()
    }

    /// Each datagram and where it came from.
    pub(crate) fn seen(&self) -> Vec<(Vec<u8>, SocketAddr)> {
        self.seen.udp.lock().unwrap().clone()
    }

    pub(crate) fn asked_over_tcp(&self) -> usize {
        self.seen.tcp.load(Ordering::Relaxed)
    }
}

async fn serve_udp(udp: UdpSocket, seen: Arc<Seen>, code: ResponseCode, n: u8, forger: Forger) {
    let mut bytes = [0; 4_096];
    while let Ok((len, from)) = udp.recv_from(&mut bytes).await {
        let asked = &bytes[..len];
        seen.udp.lock().unwrap().push((asked.to_vec(), from));
        if seen.is_dead.load(Ordering::Relaxed) {
            continue;
        }
        for forged in forger(asked) {
            // Fails when the asker gave up on this socket.
            let _ = udp.send_to(&forged, from).await;
        }
        let mut reply = answer(asked, code, OUTSIDE, n);
        if reply.len() > 512 {
            reply = answer(asked, code, OUTSIDE, 20);
            reply[2] |= 0x02;
        }
        let _ = udp.send_to(&reply, from).await;
    }
}

async fn serve_tcp(tcp: TcpListener, seen: Arc<Seen>, code: ResponseCode, n: u8) {
    while let Ok((mut stream, _)) = tcp.accept().await {
        seen.tcp.fetch_add(1, Ordering::Relaxed);
        let len = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; usize::from(len)];
        stream.read_exact(&mut bytes).await.unwrap();
        let reply = answer(&bytes, code, OUTSIDE, n);
        stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
        stream.write_all(&reply).await.unwrap();
    }
}

pub(crate) fn answer(asked: &[u8], code: ResponseCode, address: Ipv4Addr, n: u8) -> Vec<u8> {
    let mut reply = Message::from_vec(asked).unwrap().into_response();
    reply.metadata.response_code = code;
    let name = reply.queries[0].name().clone();
    reply.add_answers((0..n).map(|_| Record::from_rdata(name.clone(), 60, RData::A(A(address)))));
    reply.to_vec().unwrap()
}
