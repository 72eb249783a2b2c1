//! Packets are counted, never logged: who sends garbage fills no disk and hides no message.

#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod identity;

use identity::{identity, public};
use skep_dataplane::io::{Handle, Worker, WorkerConfig};
use skep_dataplane::snapshot::{Peer, Snapshot};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const DATAGRAMS: u64 = 100_000;
/// Sent before the packet thread is waited for: they fit any socket's buffer.
const BURST: u64 = 100;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const MEMBER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

static LINES: AtomicU64 = AtomicU64::new(0);

/// Counts what would be logged at any level.
struct Count;

impl Subscriber for Count {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("skep")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        LINES.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn dropped(handle: &Handle) -> u64 {
    handle.stats().unwrap().engine.drops.iter().map(|(_, count)| count).sum()
}

#[test]
fn garbage_is_counted_to_the_last_datagram_and_logged_nowhere() {
    tracing::subscriber::set_global_default(Count).unwrap();
    let port = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
    let config = WorkerConfig { vtep: Ipv4Addr::LOCALHOST, port, seed: 1, identity: identity(1, 0) };
    let handle = Worker::spawn(config, |_| ()).unwrap();
    handle
        .publish(Arc::new(Snapshot {
            peers: vec![Peer { vtep: MEMBER, key: public(2) }],
            ..Snapshot::default()
        }))
        .unwrap();
    let senders = [STRANGER, MEMBER].map(|ip| UdpSocket::bind((ip, port)).unwrap());
    let garbage: [&[u8]; 6] = [
        b"",
        &[8, 0, 0],
        &[0; 60],
        &[8, 0, 0, 0, 0, 0x10, 0x01, 0, 0xff, 0xff],
        &[8, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9],
    ];
    for sent in 0..DATAGRAMS {
        let sender = &senders[(sent / garbage.len() as u64 % 2) as usize];
        sender.send_to(garbage[(sent % garbage.len() as u64) as usize], (Ipv4Addr::LOCALHOST, port)).unwrap();
        if (sent + 1) % BURST == 0 {
            let since = Instant::now();
            while dropped(&handle) < sent + 1 {
                assert!(since.elapsed() < Duration::from_secs(30), "{} of {}", dropped(&handle), sent + 1);
            }
        }
    }
    assert_eq!(dropped(&handle), DATAGRAMS);
    assert_eq!(LINES.load(Ordering::Relaxed), 0);
    tracing::trace!(target: "skep_dataplane", "this one is counted");
    assert_eq!(LINES.load(Ordering::Relaxed), 1);
}
