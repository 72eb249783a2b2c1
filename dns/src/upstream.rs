//! One question to one of the host's resolvers, from the daemon's own network namespace.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until};

use crate::counters::{Counting, count};
use crate::message::{PLAIN_UDP_ANSWER, Question, Transport, is_reply_to, response_code};

/// How many datagrams that are no answer to the question a resolver's address may send before it is asked over TCP,
/// where nobody can answer in its name. One such may be a stray; several are somebody's guesses at the id (RFC 5452
/// §9.2), of which there are 65,536.
const STRAYS: u32 = 3;

/// What one upstream said to one question.
pub(crate) enum Outcome {
    /// To be passed on, NXDOMAIN included.
    Answered(Vec<u8>),
    /// SERVFAIL or REFUSED: another may do better; passed on if none does.
    Failing(Vec<u8>),
    Unreachable(io::Error),
}

/// Waits as long as it takes, and asks a second time at `again`, in case a datagram was lost.
pub(crate) async fn ask(
    question: &Question,
    upstream: SocketAddr,
    again: Instant,
    counting: &Counting,
) -> Outcome {
    // An id of our own and (by the fresh socket) a source port of its own: a container can't foretell either.
    let asked = question.for_upstream(rand::random());
    let reply = match ask_udp(&asked, &question.query, upstream, again, counting).await {
        Ok(Some(reply)) if !is_worth_tcp(&reply, question) => Ok(reply),
        // Over TCP a truncated answer is none; over UDP it says to ask over TCP.
        Ok(Some(reply)) => match ask_tcp(&asked, &question.query, upstream).await {
            Err(_) if question.transport == Transport::Udp => Ok(reply),
            whole => whole,
        },
        Ok(None) => ask_tcp(&asked, &question.query, upstream).await,
        Err(error) => Err(error),
    };
    match reply {
        Ok(reply) => match response_code(&reply) {
            ResponseCode::ServFail | ResponseCode::Refused => Outcome::Failing(reply),
            _ => Outcome::Answered(reply),
        },
        Err(error) => Outcome::Unreachable(error),
    }
}

/// None: somebody answers in the upstream's name.
async fn ask_udp(
    asked: &[u8],
    query: &Query,
    upstream: SocketAddr,
    again: Instant,
    counting: &Counting,
) -> io::Result<Option<Vec<u8>>> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel drops what comes from elsewhere and reports a closed port at once.
    socket.connect(upstream).await?;
    socket.send(asked).await?;
    let (mut reply, mut was_repeated, mut strays) = (vec![0; usize::from(u16::MAX)], false, 0);
    while strays < STRAYS {
        let len = tokio::select! {
            received = socket.recv(&mut reply) => received?,
            () = sleep_until(again), if !was_repeated => {
                was_repeated = true;
                socket.send(asked).await?;
                continue;
            }
        };
        if is_reply_to(&reply[..len], [asked[0], asked[1]], query) {
            reply.truncate(len);
            reply.shrink_to_fit();
            return Ok(Some(reply));
        }
        strays += 1;
        count(&counting.forged);
    }
    Ok(None)
}

async fn ask_tcp(asked: &[u8], query: &Query, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let len = u16::try_from(asked.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), asked].concat()).await?;
    let len = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(len)];
    stream.read_exact(&mut reply).await?;
    if is_reply_to(&reply, [asked[0], asked[1]], query) {
        Ok(reply)
    } else {
        Err(io::Error::other("the resolver answered another question over TCP"))
    }
}

/// Truncated, and the asker has room for more. Over UDP the upstream had the asker's limit, or its own lower one.
fn is_worth_tcp(reply: &[u8], question: &Question) -> bool {
    reply[2] & 0x02 != 0 && question.room > PLAIN_UDP_ANSWER
}
