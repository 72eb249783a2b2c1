//! The server on real sockets of the loopback: answering, TCP, limits, life and death of containers.
//! Time limits here are wide: they stop a hang and tell a wait that should not be there, on a busy machine too.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use skep_dns::records::Records;
use skep_dns::{AttachError, Server, ServerConfig, View};
use support::server::{
    HANG, ask, ask_stream, ask_with, assert_closed, attach, serving, serving_with, sockets,
};
use support::upstream::{OUTSIDE, Upstream};
use support::{VIP, addresses, ip, message, records, view};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

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
async fn tcp_serves_questions_one_after_the_other_and_closes_idle_connections() {
    let config = ServerConfig { tcp_idle: Duration::from_millis(100), ..ServerConfig::default() };
    let (server, at) = serving_with(config, view(&["b"], &[])).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    for _ in 0..3 {
        assert_eq!(addresses(&ask_stream(&mut stream, "web").await), [VIP]);
    }
    // Half a question is not a question.
    stream.write_all(&[0, 30, 1, 2, 3]).await.unwrap();
    assert_closed(&mut stream).await;
    assert_eq!(server.counters().idle_connections, 1);
}

#[tokio::test]
async fn connections_and_waiting_questions_are_bounded_per_container() {
    let silent = Upstream::dead().at;
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
    assert_closed(&mut second).await;
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

/// A daemon that leaves and joins again makes a server each time.
#[tokio::test]
async fn a_server_s_own_thread_answers_and_ends_with_the_last_handle() {
    let server = Server::with_own_thread(ServerConfig::default()).unwrap();
    server.publish(records());
    let at = attach(&server, "c1", view(&["b"], &[]));
    let other = server.clone();
    drop(server);
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
    let mut stream = TcpStream::connect(at).await.unwrap();
    assert_eq!(addresses(&ask_stream(&mut stream, "web").await), [VIP]);
    assert!(has_own_thread());
    drop(other);
    assert_closed(&mut stream).await;
    let ended = async {
        while has_own_thread() {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, ended).await.expect("the thread goes on without a server");
}

/// Of this process; no other test here makes one.
fn has_own_thread() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name any more.
    let name = |thread: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(thread.ok()?.path().join("comm")).ok()
    };
    threads.filter_map(name).any(|name| name.trim_end() == "skep-dns")
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

/// Three hundred addresses don't fit any datagram the server sends.
#[tokio::test]
async fn a_large_service_is_told_whole_over_tcp() {
    let (server, at) = serving(view(&["b"], &[])).await;
    let all: Vec<_> =
        (0..300u16).map(|n| Ipv4Addr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]])).collect();
    let zone = support::zone("backend", &[("tasks.many", &all)], &[]);
    server.publish(Records { zones: [("b".to_owned(), zone)].into() });
    for size in [None, Some(1_232), Some(u16::MAX)] {
        let cut = ask_with(at, &message("tasks.many", RecordType::A, size)).await;
        assert!(cut.metadata.truncation && (20..300).contains(&cut.answers.len()));
    }
    let mut stream = TcpStream::connect(at).await.unwrap();
    let whole = ask_stream(&mut stream, "tasks.many").await;
    let mut got = addresses(&whole);
    got.sort();
    assert_eq!((whole.metadata.truncation, got), (false, all));
}

/// Whether they go out together, alike or with a shorter one, or are too large for that.
#[tokio::test]
async fn questions_that_wait_together_are_answered_each_by_itself() {
    const QUESTIONS: u16 = 18;
    let (server, at) = serving(view(&["b"], &[])).await;
    let many: Vec<_> = (0..200).map(ip).collect();
    let zone = support::zone("backend", &[("web", &[VIP]), ("tasks.web", &many)], &[]);
    server.publish(Records { zones: [("b".to_owned(), zone)].into() });
    let socket = support::server::asker(at).await;
    let names: [&[&str]; 3] = [&["web"], &["tasks.web"], &["web", "web.backend", "tasks.web"]];
    for names in names {
        socket.writable().await.unwrap();
        // The server is of this thread, and has no turn before the next wait.
        for (id, name) in (0..QUESTIONS).zip(names.iter().cycle()) {
            let mut asked = message(name, RecordType::A, Some(4_096));
            asked.metadata.id = id;
            socket.try_send(&asked.to_vec().unwrap()).unwrap();
        }
        let mut answered = BTreeSet::new();
        for _ in 0..QUESTIONS {
            let mut reply = [0; 4_096];
            let len = timeout(HANG, socket.recv(&mut reply)).await.expect("no answer").unwrap();
            let reply = Message::from_vec(&reply[..len]).unwrap();
            let id = reply.metadata.id;
            let expected = if names[usize::from(id) % names.len()] == "tasks.web" { many.len() } else { 1 };
            assert_eq!(addresses(&reply).len(), expected);
            assert!(answered.insert(id), "{id} is answered twice");
        }
    }
    assert_eq!(server.counters().unsendable, 0);
}

/// Each unwelcome message has its counter, and the connection it came on its end.
#[tokio::test]
async fn what_is_refused_is_counted_by_reason() {
    let (server, at) = serving(view(&["b"], &[])).await;
    let socket = support::server::asker(at).await;
    let asked = message("web", RecordType::A, None).to_vec().unwrap();
    let mut update = asked.clone();
    update[2] |= 5 << 3;
    let mut chaos = asked.clone();
    *chaos.last_mut().unwrap() = 3;
    let mut version = message("web", RecordType::A, Some(512));
    version.edns.as_mut().unwrap().set_version(9);
    let transfer = message("web", RecordType::AXFR, None).to_vec().unwrap();
    for refused in [update, chaos, version.to_vec().unwrap(), transfer, asked[..20].to_vec()] {
        socket.send(&refused).await.unwrap();
        timeout(HANG, socket.recv(&mut [0; 512])).await.expect("no answer").unwrap();
    }
    ask(at, "77.1.0.10.in-addr.arpa").await;

    let mut long = TcpStream::connect(at).await.unwrap();
    long.write_all(&[0xff, 0xff, 0, 0]).await.unwrap();
    assert_closed(&mut long).await;
    let mut answer = TcpStream::connect(at).await.unwrap();
    answer.write_all(&[0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    assert_closed(&mut answer).await;

    let counted: Vec<_> = server.counters().by_name().filter(|(_, count)| *count > 0).collect();
    let expected = [
        "no_such_name",
        "malformed",
        "not_a_query",
        "bad_edns_version",
        "refused_class",
        "refused_transfer",
        "not_a_question",
        "oversized",
    ];
    assert_eq!(counted, expected.map(|name| (name, 1)));
}
