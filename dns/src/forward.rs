//! Questions for the host's resolvers, asked from the daemon's own network namespace.
//!
//! The asker's bytes go out as they came, with a message id of our own, and the answer's bytes come back the same way:
//! record types and EDNS options this crate has never heard of pass.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Header, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::config::ServerConfig;
use crate::message::{HEADER_LEN, PLAIN_UDP_ANSWER, Question};
use crate::view::MAX_UPSTREAMS;

/// What one upstream said to one question.
enum Outcome {
    /// To be passed on, NXDOMAIN included.
    Answered(Vec<u8>),
    /// SERVFAIL or REFUSED: another may do better; passed on if none does.
    Failing(SocketAddr, Vec<u8>),
    Unreachable(io::Error),
}

/// Asks the upstreams in order, the next one as soon as one fails or has been silent for `hedge`; the first good
/// answer wins. None: nobody answered before the deadline.
pub(crate) async fn forward(
    bytes: &[u8],
    question: &Question,
    upstreams: &[SocketAddr],
    config: &ServerConfig,
) -> Option<Vec<u8>> {
    let upstreams = &upstreams[..upstreams.len().min(MAX_UPSTREAMS)];
    let deadline = Instant::now() + config.forward_deadline;
    let mut order = order(upstreams).into_iter();
    let mut attempts = JoinSet::new();
    let (mut failing, mut refused_by) = (None, Vec::new());
    loop {
        let hedge = match order.find(|(_, upstream)| !refused_by.contains(upstream)) {
            Some((patience, upstream)) => {
                attempts.spawn(ask(bytes.to_vec(), question.clone(), upstream));
                Instant::now() + config.hedge * patience
            }
            None if attempts.is_empty() => break,
            None => deadline,
        };
        tokio::select! {
            Some(Ok(outcome)) = attempts.join_next() => match outcome {
                Outcome::Answered(reply) => return Some(fit(reply, question)),
                Outcome::Failing(upstream, reply) => {
                    refused_by.push(upstream);
                    failing = Some(reply);
                }
                Outcome::Unreachable(error) => tracing::debug!(%error, "a resolver of the host can't be asked"),
            },
            () = sleep_until(hedge.min(deadline)) => if Instant::now() >= deadline { break },
        }
    }
    failing.map(|reply| fit(reply, question))
}

/// Whom to ask, and how many hedge times to wait for it before asking the next. Every upstream has a second turn, in
/// case a datagram was lost, at half the pace.
fn order(upstreams: &[SocketAddr]) -> Vec<(u32, SocketAddr)> {
    [1, 2].iter().flat_map(|patience| upstreams.iter().map(move |at| (*patience, *at))).collect()
}

async fn ask(mut bytes: Vec<u8>, question: Question, upstream: SocketAddr) -> Outcome {
    // Our own id and (by the fresh socket) our own source port: a container can't foretell either.
    bytes[..2].copy_from_slice(&rand::random::<[u8; 2]>());
    let reply = match ask_udp(&bytes, &question.query, upstream).await {
        // Over UDP the upstream had the same limit as the asker, unless its own is lower: only then does TCP help.
        Ok(reply) if is_truncated(&reply) && question.room > PLAIN_UDP_ANSWER => {
            ask_tcp(&bytes, &question.query, upstream).await.unwrap_or(reply)
        }
        Ok(reply) => reply,
        Err(error) => return Outcome::Unreachable(error),
    };
    match response_code(&reply) {
        ResponseCode::ServFail | ResponseCode::Refused => Outcome::Failing(upstream, reply),
        _ => Outcome::Answered(reply),
    }
}

async fn ask_udp(bytes: &[u8], query: &Query, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel drops what comes from elsewhere and reports a closed port at once.
    socket.connect(upstream).await?;
    socket.send(bytes).await?;
    let mut reply = vec![0; usize::from(u16::MAX)];
    loop {
        let len = socket.recv(&mut reply).await?;
        if is_reply_to(&reply[..len], bytes, query) {
            reply.truncate(len);
            reply.shrink_to_fit();
            return Ok(reply);
        }
    }
}

async fn ask_tcp(bytes: &[u8], query: &Query, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    let len = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(len)];
    stream.read_exact(&mut reply).await?;
    if is_reply_to(&reply, bytes, query) {
        Ok(reply)
    } else {
        Err(io::Error::other("the resolver answered another question over TCP"))
    }
}

/// The id, the QR bit and the question must be ours. A reply with an error code may leave the question out (many
/// servers do so for FORMERR and REFUSED).
fn is_reply_to(reply: &[u8], asked: &[u8], query: &Query) -> bool {
    if reply.len() < HEADER_LEN || reply[..2] != asked[..2] || reply[2] & 0x80 == 0 {
        return false;
    }
    let mut decoder = BinDecoder::new(reply);
    let Ok(header) = Header::read(&mut decoder) else { return false };
    match header.counts.queries {
        0 => response_code(reply) != ResponseCode::NoError,
        1 => Query::read(&mut decoder).is_ok_and(|echoed| echoed == *query),
        _ => false,
    }
}

fn is_truncated(reply: &[u8]) -> bool {
    reply[2] & 0x02 != 0
}

fn response_code(reply: &[u8]) -> ResponseCode {
    ResponseCode::from_low(reply[3] & 0x0f)
}

/// The upstream's reply as this asker takes it: its own id, recursion available, no larger than it has room for.
fn fit(mut reply: Vec<u8>, question: &Question) -> Vec<u8> {
    if reply.len() > usize::from(question.room) {
        return question.truncated_reply(response_code(&reply));
    }
    reply[..2].copy_from_slice(&question.id().to_be_bytes());
    reply[3] |= 0x80;
    reply
}
