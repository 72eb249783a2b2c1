//! Records and views change while questions come in: none is lost, none is answered from two sets.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use skep_dns::Server;
use skep_dns::records::Records;
use support::server::{ask, ask_on, ask_stream, asker, serving};
use support::{VIP, addresses, ip, message, records, view, zone};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CHANGES: u32 = 1_000;
/// Each change waits for this many answers, so that it meets questions on their way.
const ANSWERS_PER_CHANGE: u32 = 12;

/// Two addresses that tell by which change they were published.
fn generation(n: u32) -> [Ipv4Addr; 2] {
    let [.., high, low] = n.to_be_bytes();
    [Ipv4Addr::new(10, high, low, 1), Ipv4Addr::new(10, high, low, 2)]
}

fn published(n: u32) -> Records {
    let mut records = records();
    records.zones.insert("b".into(), zone("backend", &[("web", &generation(n))], &[]));
    records
}

/// How far the publisher is.
#[derive(Default)]
struct Progress {
    begun: AtomicU32,
    done: AtomicU32,
    answers: AtomicU32,
}

impl Progress {
    /// The answer is whole, and of a set that was current between the question and now.
    fn check(&self, since: u32, answer: &Message) {
        let mut got = addresses(answer);
        got.sort();
        let [.., high, low, _] = got[0].octets();
        let n = u32::from_be_bytes([0, 0, high, low]);
        assert_eq!(got, generation(n), "mixed");
        let until = self.begun.load(Ordering::SeqCst);
        assert!((since..=until).contains(&n), "records {n} while {since} to {until} were current");
        self.answers.fetch_add(1, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.done.load(Ordering::SeqCst) == CHANGES
    }

    fn publish_all(&self, server: &Server) {
        for n in 1..=CHANGES {
            while self.answers.load(Ordering::SeqCst) < n * ANSWERS_PER_CHANGE {
                std::thread::yield_now();
            }
            self.begun.store(n, Ordering::SeqCst);
            server.publish(published(n));
            self.done.store(n, Ordering::SeqCst);
        }
    }
}

async fn ask_over_udp(at: SocketAddr, progress: Arc<Progress>) {
    let socket = asker(at).await;
    while !progress.is_over() {
        let since = progress.done.load(Ordering::SeqCst);
        let answer = ask_on(&socket, &message("web", RecordType::A, None)).await;
        progress.check(since, &answer);
    }
}

async fn ask_over_tcp(at: SocketAddr, progress: Arc<Progress>) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    while !progress.is_over() {
        let since = progress.done.load(Ordering::SeqCst);
        let answer = ask_stream(&mut stream, "web.backend").await;
        progress.check(since, &answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_question_is_lost_or_answered_from_two_sets_while_records_change() {
    let (server, at) = serving(view(&["b"], &[])).await;
    server.publish(published(0));
    let progress = Arc::new(Progress::default());
    let mut asking = JoinSet::new();
    for _ in 0..3 {
        asking.spawn(ask_over_udp(at, Arc::clone(&progress)));
        asking.spawn(ask_over_tcp(at, Arc::clone(&progress)));
    }
    let publishing = tokio::task::spawn_blocking({
        let (server, progress) = (server.clone(), Arc::clone(&progress));
        move || progress.publish_all(&server)
    });
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    publishing.await.unwrap();
    let answers = progress.answers.load(Ordering::SeqCst);
    assert!(answers >= CHANGES * ANSWERS_PER_CHANGE);
    assert_eq!(server.counters().answered, u64::from(answers), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_container_changes_networks_between_two_answers() {
    let (server, at) = serving(view(&["b"], &[])).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let socket = asker(at).await;
            let mut stream = TcpStream::connect(at).await.unwrap();
            let mut answers = 0;
            while !is_over.load(Ordering::SeqCst) {
                for answer in [
                    ask_on(&socket, &message("web", RecordType::A, None)).await,
                    ask_stream(&mut stream, "web").await,
                ] {
                    assert!([vec![VIP], vec![ip(98)]].contains(&addresses(&answer)), "{answer}");
                    answers += 1;
                }
            }
            answers
        }
    });
    for turn in 0..1_000 {
        let (network, expected) = if turn % 2 == 0 { ("o", ip(98)) } else { ("b", VIP) };
        server.set_view("c1", view(&[network], &[]));
        assert_eq!(addresses(&ask(at, "web").await), [expected], "the view in force from here on");
    }
    is_over.store(true, Ordering::SeqCst);
    let answers: u64 = asking.await.unwrap();
    assert_eq!(server.counters().answered, answers + 1_000);
}
