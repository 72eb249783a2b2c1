//! Questions no network answers, and the host's resolvers: alive, dead, failing, and forged.
//! Time limits here are wide: they stop a hang and tell a wait that should not be there, on a busy machine too.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use skep_dns::ServerConfig;
use skep_dns::config::{FORWARD_DEADLINE, HEDGE};
use skep_dns::message::MAX_UPSTREAM_ANSWER;
use support::server::{HANG, ask, ask_on, ask_stream, ask_with, asker, serving, serving_with};
use support::upstream::{FORGED, OUTSIDE, Upstream, answer};
use support::{VIP, addresses, message, query, view};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

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
    let (silent, closed) = (Upstream::dead().at, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
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

/// A dead one costs its wait once, not every question, and is asked again when it is back.
#[tokio::test]
async fn a_dead_resolver_is_remembered_until_it_answers_again() {
    let (first, second) = (Upstream::dead(), Upstream::start(ResponseCode::NoError, 1));
    let (server, at) = serving(view(&[], &[first.at, second.at])).await;
    for _ in 0..20 {
        assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
    }
    assert_eq!(second.asked(), 20);
    // The first question, and a probe every two seconds should the machine be slow.
    assert!(first.asked() < 10, "the dead one was asked {} times", first.asked());

    first.set_dead(false);
    let back = async {
        loop {
            let before = second.asked();
            assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
            if second.asked() == before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(HANG, back).await.expect("the first resolver is back and isn't asked");
    assert_eq!(server.counters().upstreams_failed, 0);
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let (udp, _tcp, at) = support::server::sockets();
    udp.set_nonblocking(true).unwrap();
    let resolver = UdpSocket::from_std(udp).unwrap();
    let (_server, container) = serving(view(&[], &[at])).await;
    let asked = tokio::spawn(async move { ask(container, "outside.example").await });
    let (mut lost, mut again) = ([0; 512], [0; 512]);
    let (_, first) = timeout(HANG, resolver.recv_from(&mut lost)).await.unwrap().unwrap();
    let (len, second) = timeout(HANG, resolver.recv_from(&mut again)).await.unwrap().unwrap();
    // One id and one port: two of each would be twice as easy to guess.
    assert_eq!((first, lost), (second, again));
    resolver.send_to(&answer(&again[..len], ResponseCode::NoError, OUTSIDE, 1), second).await.unwrap();
    assert_eq!(addresses(&asked.await.unwrap()), [OUTSIDE]);
}

/// The best of a few, for a busy machine.
#[tokio::test]
async fn a_dead_first_resolver_costs_300_ms_and_all_dead_are_said_within_2_s() {
    let mut dead_first = Vec::new();
    for _ in 0..5 {
        let (silent, good) = (Upstream::dead(), Upstream::start(ResponseCode::NoError, 1));
        let (_server, at) = serving(view(&[], &[silent.at, good.at])).await;
        let start = Instant::now();
        assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
        dead_first.push(start.elapsed());
    }
    assert!(dead_first.iter().min().unwrap() <= &Duration::from_millis(300), "{dead_first:?}");

    let mut all_dead = Vec::new();
    for _ in 0..2 {
        let silent = [Upstream::dead().at, Upstream::dead().at, Upstream::dead().at];
        let (_server, at) = serving(view(&[], &silent)).await;
        let start = Instant::now();
        assert_eq!(ask(at, "outside.example").await.metadata.response_code, ResponseCode::ServFail);
        all_dead.push(start.elapsed());
    }
    assert!(all_dead.iter().min().unwrap() <= &Duration::from_secs(2), "{all_dead:?}");
}

/// Everything wrong an off-path attacker could send who knows the asker's port but not what was asked.
fn forgeries(asked: &[u8]) -> Vec<Vec<u8>> {
    let right = answer(asked, ResponseCode::NoError, FORGED, 1);
    let mut wrong_id = right.clone();
    wrong_id[1] ^= 1;
    let mut question = right.clone();
    question[2] &= 0x7f;
    let mut other = Message::from_vec(&right).unwrap();
    other.queries = vec![query("inside.example", RecordType::A)];
    let mut other_type = Message::from_vec(&right).unwrap();
    other_type.queries[0].set_query_type(RecordType::AAAA);
    let mut two = Message::from_vec(&right).unwrap();
    two.add_query(query("inside.example", RecordType::A));
    let mut none = Message::from_vec(&right).unwrap();
    none.queries.clear();
    let built = [other, other_type, two, none].map(|message| message.to_vec().unwrap());
    let mut all = vec![wrong_id, question, right[..11].to_vec(), right[..20].to_vec(), Vec::new()];
    all.extend(built);
    all
}

#[tokio::test]
async fn of_wrong_answers_none_is_taken() {
    for wrong in 0..forgeries(&message("x", RecordType::A, None).to_vec().unwrap()).len() {
        let (udp, _, at) = support::server::sockets();
        udp.set_nonblocking(true).unwrap();
        let resolver = UdpSocket::from_std(udp).unwrap();
        let (server, container) = serving(view(&[], &[at])).await;
        let asked = tokio::spawn(async move { ask(container, "outside.example").await });
        let mut bytes = [0; 512];
        let (len, from) = timeout(HANG, resolver.recv_from(&mut bytes)).await.unwrap().unwrap();
        // From somewhere else even the right answer is wrong: the kernel sorts it out.
        let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        elsewhere.send_to(&answer(&bytes[..len], ResponseCode::NoError, FORGED, 1), from).await.unwrap();
        resolver.send_to(&forgeries(&bytes[..len])[wrong], from).await.unwrap();
        resolver.send_to(&answer(&bytes[..len], ResponseCode::NoError, OUTSIDE, 1), from).await.unwrap();
        assert_eq!(addresses(&asked.await.unwrap()), [OUTSIDE], "forgery {wrong}");
        assert_eq!(server.counters().forged, 1, "forgery {wrong}");
    }
}

/// Whoever floods has 65,536 ids to try; after a few the question goes where nobody can answer in the resolver's name.
#[tokio::test]
async fn a_flood_of_guesses_ends_at_tcp() {
    let upstream = Upstream::with_forger(ResponseCode::NoError, 1, |asked| {
        let right = u16::from_be_bytes([asked[0], asked[1]]);
        let guess = |id: u16| {
            let mut forged = answer(asked, ResponseCode::NoError, FORGED, 1);
            forged[..2].copy_from_slice(&right.wrapping_add(id).to_be_bytes());
            forged
        };
        // The right one is among them, late.
        (1..200).map(guess).chain([answer(asked, ResponseCode::NoError, FORGED, 1)]).collect()
    });
    let (server, at) = serving(view(&[], &[upstream.at])).await;
    for _ in 0..20 {
        assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
    }
    assert_eq!(upstream.asked_over_tcp(), 20);
    assert!(server.counters().forged >= 60);
}

/// Pearson's statistic of the samples, of which each bin expects as many as every other.
fn chi_square(bins: usize, samples: &[usize]) -> f64 {
    let expected = samples.len() as f64 / bins as f64;
    let mut counts = vec![0.0; bins];
    samples.iter().for_each(|bin| counts[*bin] += 1.0);
    counts.iter().map(|count| (count - expected) * (count - expected) / expected).sum()
}

#[tokio::test]
async fn ids_and_source_ports_can_not_be_foretold() {
    let upstream = Upstream::start(ResponseCode::NoError, 1);
    let (_server, at) = serving(view(&[], &[upstream.at])).await;
    let askers = (0..16).map(|_| async move {
        let socket = asker(at).await;
        let mut asked = message("outside.example", RecordType::A, None);
        // Whatever the container chooses, the id outside is another.
        asked.metadata.id = 7;
        for _ in 0..250 {
            ask_on(&socket, &asked).await;
        }
    });
    let askers: Vec<_> = askers.map(tokio::spawn).collect();
    for asker in askers {
        asker.await.unwrap();
    }
    let seen = upstream.seen();
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let range: Vec<usize> = range.split_whitespace().map(|bound| bound.parse().unwrap()).collect();
    let ports: Vec<_> = seen.iter().map(|(_, from)| usize::from(from.port())).collect();
    let bins: Vec<_> = ports.iter().map(|port| (port - range[0]) * 64 / (range[1] - range[0] + 1)).collect();
    // Means are 63 and 255; that far above them by chance is one run in some ten million.
    assert!(chi_square(64, &bins) < 141.0, "ports: {}", chi_square(64, &bins));
    for byte in 0..2 {
        let ids: Vec<_> = seen.iter().map(|(asked, _)| usize::from(asked[byte])).collect();
        assert!(chi_square(256, &ids) < 391.0, "ids: {}", chi_square(256, &ids));
    }
    let neighbours = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    assert!(neighbours < 20, "{neighbours} of {} ports follow one another", ports.len());
}

#[tokio::test]
async fn a_resolver_is_asked_the_question_and_nothing_else() {
    let upstream = Upstream::start(ResponseCode::NoError, 1);
    let (_server, at) = serving(view(&[], &[upstream.at])).await;
    let mut asked = message("oUtside.example", RecordType::Unknown(65_280), Some(4_096));
    asked.metadata.checking_disabled = true;
    let edns = asked.edns.as_mut().unwrap();
    edns.set_dnssec_ok(true);
    let option = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(65_001, vec![1, 2, 3]);
    edns.options_mut().insert(option.clone());
    let mut bytes = asked.to_vec().unwrap();
    bytes.extend(b"something else");
    let socket = asker(at).await;
    socket.send(&bytes).await.unwrap();
    timeout(HANG, socket.recv(&mut [0; 4_096])).await.unwrap().unwrap();
    ask(at, "outside.example").await;

    let seen: Vec<_> = upstream.seen().iter().map(|(asked, _)| Message::from_vec(asked).unwrap()).collect();
    let (rich, plain) = (&seen[0], &seen[1]);
    assert_eq!(rich.queries[0].name().to_ascii(), "oUtside.example.");
    assert_eq!(rich.queries[0].query_type(), RecordType::Unknown(65_280));
    assert!(rich.metadata.checking_disabled && rich.metadata.recursion_desired);
    let edns = rich.edns.as_ref().unwrap();
    assert_eq!(edns.max_payload(), MAX_UPSTREAM_ANSWER, "an answer no path fragments");
    assert!(edns.flags().dnssec_ok && edns.options().as_ref().iter().any(|(_, given)| *given == option));
    assert!(!upstream.seen()[0].0.windows(9).any(|window| window == b"something"));
    assert!(plain.edns.is_none() && !plain.metadata.checking_disabled);
}

/// Two names that mean each other, for ever. It is the asker's to follow them or not: here an answer is passed on.
#[tokio::test]
async fn an_answer_that_leads_in_circles_is_passed_on_and_not_followed() {
    let upstream = Upstream::with_forger(ResponseCode::NoError, 1, |asked| vec![circle(asked)]);
    let (_server, at) = serving(view(&["b"], &[upstream.at])).await;
    for _ in 0..100 {
        let told = ask(at, "a.example").await;
        let leads: Vec<_> = told.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(leads, ["b.example.", "a.example."]);
    }
    assert_eq!(upstream.asked(), 100, "once per question");
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
}

fn circle(asked: &[u8]) -> Vec<u8> {
    let mut reply = Message::from_vec(asked).unwrap().into_response();
    let [a, b] = ["a.example.", "b.example."].map(|name| Name::from_ascii(name).unwrap());
    let lead = |from: &Name, to: &Name| Record::from_rdata(from.clone(), 60, RData::CNAME(CNAME(to.clone())));
    reply.add_answers([lead(&a, &b), lead(&b, &a)]);
    reply.to_vec().unwrap()
}

/// A host whose resolver leads back here: refused after as many rounds as a container has places.
#[tokio::test]
async fn a_resolver_that_asks_us_again_ends() {
    let config = ServerConfig { forwards_per_container: 16, ..ServerConfig::default() };
    let (server, at) = serving_with(config, view(&["b"], &[])).await;
    server.set_view("c1", view(&["b"], &[at]));
    assert_eq!(ask(at, "outside.example").await.metadata.response_code, ResponseCode::Refused);
    let counters = server.counters();
    assert_eq!((counters.forwarded, counters.too_many_forwards), (16, 1));
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
    let good = Upstream::start(ResponseCode::NoError, 1);
    server.set_view("c1", view(&["b"], &[at, good.at]));
    assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
}

/// As a network is made internal, or a container leaves its last one that isn't.
#[tokio::test]
async fn without_upstreams_nothing_leaves_and_names_of_the_networks_stay() {
    let upstream = Upstream::start(ResponseCode::NoError, 1);
    let (server, at) = serving(view(&["b"], &[upstream.at])).await;
    assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
    server.set_view("c1", view(&["b"], &[]));
    let mut stream = TcpStream::connect(at).await.unwrap();
    for name in ["outside.example", "8.8.8.8.in-addr.arpa", "web.other", "nobody"] {
        assert_eq!(ask(at, name).await.metadata.response_code, ResponseCode::ServFail, "{name}");
        assert_eq!(ask_stream(&mut stream, name).await.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!(addresses(&ask(at, "web").await), [VIP]);
    assert_eq!((upstream.asked(), upstream.asked_over_tcp()), (1, 0));
    assert_eq!(server.counters().no_upstreams, 8);
}
