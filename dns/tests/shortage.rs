//! Descriptors: none leaks, and without any the names of the networks stay. Counts those of the whole process, so it
//! is one test in a binary of its own.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod support;

use std::fs::File;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use skep_dns::Server;
use support::server::{HANG, ask, ask_on, ask_stream, asker, attach, serving};
use support::upstream::{OUTSIDE, Upstream};
use support::{VIP, addresses, message, records, view};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn until_open(expected: usize) {
    let down = async {
        while open_descriptors() > expected {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let closed = timeout(HANG, down).await;
    assert!(closed.is_ok(), "{} descriptors are open, {expected} were", open_descriptors());
}

/// Containers come and go in the midst of whatever they do.
async fn nothing_leaks(server: &Server, upstream: &Upstream) {
    let before = open_descriptors();
    for round in 0..50 {
        let id = format!("brief-{round}");
        upstream.set_dead(round % 2 == 0);
        let at =
            attach(server, &id, view(&["b"], &[upstream.at, upstream.at, "127.0.0.1:1".parse().unwrap()]));
        let (socket, mut stream) = (asker(at).await, TcpStream::connect(at).await.unwrap());
        for _ in 0..5 {
            socket.send(&message("outside.example", RecordType::A, None).to_vec().unwrap()).await.unwrap();
        }
        assert_eq!(addresses(&ask_stream(&mut stream, "web").await), [VIP]);
        // Half a question, and one on its way to the upstream.
        stream.write_all(&[0, 30, 1]).await.unwrap();
        server.detach(&id);
    }
    until_open(before).await;
}

/// Every descriptor the process may have.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test]
async fn descriptors_are_given_back_and_done_without() {
    let upstream = Upstream::start(ResponseCode::NoError, 1);
    let (server, at) = serving(view(&["b"], &[upstream.at])).await;
    assert_eq!(addresses(&ask(at, "outside.example").await), [OUTSIDE]);
    let settled = open_descriptors();
    nothing_leaks(&server, &upstream).await;

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let (socket, stream) = (asker(at).await, TcpSocket::new_v4().unwrap());
    setrlimit(Resource::RLIMIT_NOFILE, settled as u64 + 20, hard).unwrap();
    let all = take_all();
    let a = |name| message(name, RecordType::A, None);
    assert_eq!(addresses(&ask_on(&socket, &a("web")).await), [VIP], "needs no descriptor");
    let outside = ask_on(&socket, &a("outside.example")).await;
    assert_eq!(outside.metadata.response_code, ResponseCode::ServFail, "said at once");
    // Connected by the kernel, and not accepted.
    let mut stream = stream.connect(at).await.unwrap();
    server.publish(records());
    assert_eq!(addresses(&ask_on(&socket, &a("web")).await), [VIP]);

    drop(all);
    assert_eq!(
        addresses(&ask_stream(&mut stream, "web").await),
        [VIP],
        "accepted once there is a descriptor"
    );
    assert_eq!(addresses(&ask_on(&socket, &a("outside.example")).await), [OUTSIDE]);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    drop((socket, stream));
    until_open(settled).await;
}
