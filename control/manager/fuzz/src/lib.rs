//! What the fuzzer feeds to the control plane, and what has to hold whatever it feeds. `tests/corpus.rs` of the manager
//! replays the committed inputs through the same functions.

mod cluster;

use skep_manager::api::{self, ApiError, CreateNetwork};
use skep_model::assign::{AssignmentKind, Desired};
use skep_model::lines::Lines;
use skep_model::service::ServiceSpec;
use skep_model::session::{ToAgent, ToManager};
use skep_model::token::JoinToken;

/// What runs one input; it panics where something doesn't hold.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[("api", api), ("token", token), ("assignments", assignments)];

/// A refusal is a sentence, whatever was asked.
const LONGEST_REFUSAL: usize = 4 << 10;
/// As on a session's stream, only shorter: a fuzzer has no 16 MiB.
const LONGEST_LINE: usize = 8 << 10;

/// Bodies of requests, one a line, against a cluster of two nodes that settles after each.
pub fn api(data: &[u8]) {
    let mut cluster = cluster::Cluster::new();
    for line in data.split(|byte| *byte == b'\n').take(8) {
        let Some((kind, body)) = line.split_first() else { continue };
        let refused = match kind {
            b'n' => serde_json::from_slice::<CreateNetwork>(body)
                .ok()
                .and_then(|body| api::create_network(&cluster.db, body).err()),
            b'u' => {
                serde_json::from_slice::<ServiceSpec>(body).ok().and_then(|spec| cluster.update(&spec).err())
            }
            _ => serde_json::from_slice::<ServiceSpec>(body)
                .ok()
                .and_then(|spec| api::create_service(&cluster.db, &spec).err()),
        };
        if let Some(refusal) = refused {
            judge(&refusal);
        }
        cluster.settle();
    }
    cluster.judge();
}

fn judge(refusal: &ApiError) {
    let text = refusal.to_string();
    assert!(!text.is_empty() && text.len() <= LONGEST_REFUSAL, "a refusal of {} bytes", text.len());
    assert!((400..=503).contains(&refusal.http_status()), "{} is no refusal", refusal.http_status());
}

/// A join token as a user types it.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string(), text.trim(), "a token reads back as it was written");
        assert!(!token.pins(data), "made for a root it never saw");
    }
}

/// A session's bytes, in either direction and in pieces; what is understood is applied.
pub fn assignments(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let mut lines = Lines::new(LONGEST_LINE);
    let mut desired = Desired::default();
    for piece in data.chunks(usize::from(*piece) + 1) {
        lines.push(piece);
        loop {
            match lines.pop() {
                Ok(Some(line)) => take(&mut desired, &line),
                Ok(None) => break,
                Err(_too_long) => return,
            }
        }
    }
}

fn take(desired: &mut Desired, line: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<ToManager>(line) {
        let written = serde_json::to_vec(&message).expect("what was read can be written");
        serde_json::from_slice::<ToManager>(&written).expect("and read again");
    }
    let Ok(ToAgent::Assignments(message)) = serde_json::from_slice(line) else { return };
    let (before, kind, applies_to, results_in) =
        (desired.clone(), message.kind, message.applies_to, message.results_in);
    match desired.apply(message) {
        Ok(()) => assert_eq!(desired.revision, results_in),
        Err(gap) => {
            assert_eq!(*desired, before, "a gap changes nothing");
            assert!(kind == AssignmentKind::Incremental && gap.applies_to == applies_to);
        }
    }
    let mut copy = before;
    copy.apply(desired.complete()).expect("a complete set fits anything");
    assert_eq!(copy, *desired, "a complete set says all there is");
}
