//! The server on real sockets of the loopback: answering, forwarding, TCP, limits, life and death of containers.
//! Time limits here are wide: they stop a hang and tell a wait that should not be there, on a busy machine too.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use skep_dns::config::{FORWARD_DEADLINE, HEDGE};
use skep_dns::records::Records;
use skep_dns::{AttachError, Server, ServerConfig, View};
use support::{VIP, addresses, ip, message, records, view};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const HANG: Duration = Duration::from_secs(20);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// A UDP and a TCP socket on one free port, as a container's namespace would have them on 53.
fn sockets() -> (std::net::UdpSocket, std::net::TcpListener, SocketAddr) {
    loop {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = tcp.local_addr().unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(at) {
            return (udp, tcp, at);
        }
    }
}

fn attach(server: &Server, id: &str, view: View) -> SocketAddr {
    let (udp, tcp, at) = sockets();
    server.attach(id.into(), view, udp, tcp).unwrap();
    at
}

async fn serving(view: View) -> (Server, SocketAddr) {
    let server = Server::new(ServerConfig::default());
    server.publish(records());
    let at = attach(&server, "c1", view);
    (server, at)
}

async fn ask_with(at: SocketAddr, asked: &Message) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(at).await.unwrap();
    socket.send(&asked.to_vec().unwrap()).await.unwrap();
    let mut reply = vec![0; 65_535];
    let len = timeout(HANG, socket.recv(&mut reply)).await.expect("no answer").unwrap();
    let reply = Message::from_vec(&reply[..len]).unwrap();
    assert_eq!(reply.metadata.id, asked.metadata.id);
    assert!(reply.metadata.recursion_available);
    reply
}

async fn ask(at: SocketAddr, name: &str) -> Message {
    ask_with(at, &message(name, RecordType::A, None)).await
}

async fn ask_stream(stream: &mut TcpStream, name: &str) -> Message {
    let bytes = message(name, RecordType::A, None).to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let len = timeout(HANG, stream.read_u16()).await.expect("no answer").unwrap();
    let mut reply = vec![0; usize::from(len)];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

/// A resolver of the host: counts what it is asked, answers with `code` and `n` addresses, over UDP only up to 512
/// bytes.
struct Upstream {
    at: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    fn start(code: ResponseCode, n: u8) -> Self {
        let (udp, tcp, at) = sockets();
        let asked = Arc::new(AtomicUsize::new(0));
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (udp, tcp) = (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap());
        let counter = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut bytes = [0; 4_096];
            while let Ok((len, from)) = udp.recv_from(&mut bytes).await {
                counter.fetch_add(1, Ordering::Relaxed);
                // A forged answer first: another id must not be taken for ours.
                let mut forged = answer(&bytes[..len], ResponseCode::NoError, 1);
                forged[0] ^= 0xff;
                udp.send_to(&forged, from).await.unwrap();
                let mut reply = answer(&bytes[..len], code, n);
                if reply.len() > 512 {
                    reply = answer(&bytes[..len], code, 20);
                    reply[2] |= 0x02;
                }
                udp.send_to(&reply, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let len = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; usize::from(len)];
                stream.read_exact(&mut bytes).await.unwrap();
                let reply = answer(&bytes, code, n);
                stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        });
        Self { at, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn answer(asked: &[u8], code: ResponseCode, n: u8) -> Vec<u8> {
    let mut reply = Message::from_vec(asked).unwrap().into_response();
    reply.metadata.response_code = code;
    let name = reply.queries[0].name().clone();
    reply.add_answers((0..n).map(|_| Record::from_rdata(name.clone(), 60, RData::A(A(OUTSIDE)))));
    reply.to_vec().unwrap()
}

/// A resolver that takes questions and never answers, for as long as its sockets are held.
fn dead() -> (SocketAddr, impl Sized) {
    let (udp, tcp, at) = sockets();
    (at, (udp, tcp))
}

#[tokio::test]
async fn names_are_answered_and_later_records_count_at_once() {
    let (server, at) = serving(view(&["b"], &[])).await;
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
    let aaaa = ask_with(at, &message("web", RecordType::AAAA, None)).await;
    assert_eq!((aaaa.metadata.response_code, aaaa.answers.len()), (ResponseCode::NoError, 0));

    let mut changed = records();
    changed.zones.get_mut("b").unwrap().names.insert("new".into(), vec![ip(77)]);
    server.publish(changed);
    assert_eq!(addresses(&ask(at, "new").await), [ip(77)]);
    server.set_view("c1", view(&["o"], &[]));
    assert_eq!(addresses(&ask(at, "web").await), [ip(98)]);
    server.publish(Records::default());
    assert_eq!(ask(at, "web").await.metadata.response_code, ResponseCode::ServFail, "no upstreams, no name");
    let counters = server.counters();
    assert_eq!((counters.answered, counters.no_upstreams), (4, 1));
}

#[tokio::test]
async fn each_tasks_address_comes_first_in_turn_even_if_other_questions_interleave() {
    let (_server, at) = serving(view(&["b"], &[])).await;
    let mut firsts = Vec::new();
    for _ in 0..3 {
        firsts.push(addresses(&ask(at, "rr").await)[0]);
        ask_with(at, &message("rr", RecordType::AAAA, None)).await;
    }
    firsts.sort();
    assert_eq!(firsts, [ip(11), ip(12), ip(13)]);
}

#[tokio::test]
async fn unknown_names_are_forwarded_and_known_ones_are_not() {
    let upstream = Upstream::start(ResponseCode::NoError, 1);
    let (server, at) = serving(view(&["b"], &[upstream.at])).await;
    assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
    assert_eq!(addresses(&ask(at, "secret.other").await), [OUTSIDE], "another network's name is any name");
    assert_eq!(upstream.asked(), 2);
    ask_with(at, &message("web", RecordType::AAAA, None)).await;
    ask_with(at, &message("web", RecordType::TXT, None)).await;
    ask(at, "idle").await;
    assert_eq!(upstream.asked(), 2);
    assert_eq!(server.counters().forwarded, 2);
}

#[tokio::test]
async fn an_upstreams_no_is_passed_on_and_its_failure_is_not() {
    let nxdomain = Upstream::start(ResponseCode::NXDomain, 0);
    let good = Upstream::start(ResponseCode::NoError, 1);
    let (server, at) = serving(view(&[], &[nxdomain.at, good.at])).await;
    assert_eq!(ask(at, "nowhere.example").await.metadata.response_code, ResponseCode::NXDomain);
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let failing = Upstream::start(code, 0);
        server.set_view("c1", view(&[], &[failing.at, good.at]));
        assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE], "{code}");
        server.set_view("c1", view(&[], &[failing.at]));
        assert_eq!(ask(at, "outside.example").await.metadata.response_code, code);
        assert_eq!(failing.asked(), 2, "once per question: what failed isn't asked again");
    }
}

#[tokio::test]
async fn a_dead_first_resolver_is_passed_over_and_all_dead_is_said() {
    let ((silent, _held), closed) = (dead(), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let good = Upstream::start(ResponseCode::NoError, 1);
    let (server, at) = serving(view(&["b"], &[silent, good.at])).await;
    let start = Instant::now();
    assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
    assert!(start.elapsed() < FORWARD_DEADLINE, "{:?}", start.elapsed());

    server.set_view("c1", view(&["b"], &[closed, closed]));
    assert_eq!(ask(at, "outside.example").await.metadata.response_code, ResponseCode::ServFail);
    server.set_view("c1", view(&["b"], &[silent, silent, silent]));
    let start = Instant::now();
    let outside = tokio::spawn(async move { ask(at, "outside.example").await });
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
    assert!(!outside.is_finished(), "a name of the network doesn't wait behind a forwarded one");
    assert_eq!(outside.await.unwrap().metadata.response_code, ResponseCode::ServFail);
    const { assert!(FORWARD_DEADLINE.as_millis() < 2_000 && HEDGE.as_millis() < 300) };
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}: glibc would have given up", start.elapsed());
    assert_eq!(server.counters().upstreams_failed, 2);
}

#[tokio::test]
async fn an_answer_the_upstream_truncated_is_fetched_over_tcp_for_who_has_room() {
    let upstream = Upstream::start(ResponseCode::NoError, 100);
    let (_server, at) = serving(view(&[], &[upstream.at])).await;
    let roomy = ask_with(at, &message("outside.example", RecordType::A, Some(4_096))).await;
    assert_eq!((roomy.metadata.truncation, roomy.answers.len()), (false, 100));
    let plain = ask(at, "outside.example").await;
    assert_eq!((plain.metadata.truncation, plain.answers.len()), (true, 20), "what fits, marked");
    let between = ask_with(at, &message("outside.example", RecordType::A, Some(1_000))).await;
    assert!(between.metadata.truncation);
    let mut stream = TcpStream::connect(at).await.unwrap();
    assert_eq!(ask_stream(&mut stream, "outside.example").await.answers.len(), 100);
}

#[tokio::test]
async fn tcp_serves_questions_one_after_the_other_and_closes_idle_connections() {
    let config = ServerConfig { tcp_idle: Duration::from_millis(100), ..ServerConfig::default() };
    let server = Server::new(config);
    server.publish(records());
    let at = attach(&server, "c1", view(&["b"], &[]));
    let mut stream = TcpStream::connect(at).await.unwrap();
    for _ in 0..3 {
        assert_eq!(addresses(&ask_stream(&mut stream, "web").await), [VIP]);
    }
    // Half a question is not a question.
    stream.write_all(&[0, 30, 1, 2, 3]).await.unwrap();
    assert_eq!(timeout(HANG, stream.read(&mut [0; 1])).await.expect("still open").unwrap_or(0), 0);
}

#[tokio::test]
async fn connections_and_waiting_questions_are_bounded_per_container() {
    let (silent, _held) = dead();
    let config = ServerConfig {
        forwards_per_container: 2,
        tcp_connections_per_container: 1,
        ..ServerConfig::default()
    };
    let server = Server::new(config);
    server.publish(records());
    let at = attach(&server, "greedy", view(&["b"], &[silent]));
    let other = attach(&server, "other", view(&["b"], &[Upstream::start(ResponseCode::NoError, 1).at]));

    let mut first = TcpStream::connect(at).await.unwrap();
    assert_eq!(addresses(&ask_stream(&mut first, "web").await), [VIP]);
    let mut second = TcpStream::connect(at).await.unwrap();
    assert_eq!(timeout(HANG, second.read(&mut [0; 1])).await.expect("still open").unwrap_or(0), 0);
    assert_eq!(server.counters().too_many_connections, 1);

    let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for _ in 0..2 {
        let asked = message("outside.example", RecordType::A, None).to_vec().unwrap();
        asker.send_to(&asked, at).await.unwrap();
    }
    assert_eq!(ask(at, "third.example").await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(server.counters().too_many_forwards, 1);
    assert_eq!(addresses(&ask(at, "web").await), [VIP], "its own names stay");
    assert_eq!(addresses(&ask(other, "outside.example").await), [OUTSIDE], "its neighbour is not touched");
}

#[tokio::test]
async fn a_detached_containers_sockets_are_closed_and_its_id_is_free() {
    let (server, at) = serving(view(&["b"], &[])).await;
    let (udp, tcp, _) = sockets();
    let again = server.attach("c1".into(), View::default(), udp, tcp);
    assert!(matches!(again, Err(AttachError::Duplicate(id)) if id == "c1"));
    server.detach("c1");
    server.detach("never-there");
    server.set_view("c1", View::default());
    let reopened = async {
        while std::net::UdpSocket::bind(at).is_err() || std::net::TcpListener::bind(at).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, reopened).await.expect("the sockets are still open");
    let at = attach(&server, "c1", view(&["b"], &[]));
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
    drop(server);
    let reopened = async {
        while std::net::UdpSocket::bind(at).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, reopened).await.expect("the last handle is gone and the sockets are still open");
}

#[tokio::test]
async fn garbage_is_counted_and_the_next_question_answered() {
    let (server, at) = serving(view(&["b"], &[])).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(b"no", at).await.unwrap();
    socket.send_to(&[0xff; 600], at).await.unwrap();
    socket.send_to(&[0; 30], at).await.unwrap();
    socket.send_to(&[], at).await.unwrap();
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
    let counters = server.counters();
    assert_eq!((counters.not_a_question, counters.malformed), (3, 1));
}

/// Records swap under load without a question lost or answered from neither set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_question_is_lost_while_records_change() {
    let (server, at) = serving(view(&["b"], &[])).await;
    let swapping = tokio::task::spawn_blocking({
        let server = server.clone();
        move || {
            for last in 0..1_000u32 {
                let mut changed = records();
                let address = ip(u8::try_from(last % 200).unwrap());
                changed.zones.get_mut("b").unwrap().names.insert("web".into(), vec![address]);
                server.publish(changed);
            }
        }
    });
    let mut asked = 0;
    while !swapping.is_finished() || asked < 200 {
        assert_eq!(addresses(&ask(at, "web").await).len(), 1);
        asked += 1;
    }
    swapping.await.unwrap();
    assert_eq!(server.counters().answered, asked);
}
