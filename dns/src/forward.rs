//! A question the networks of a container don't answer, to the host's resolvers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until, timeout_at};

use crate::health::Plan;
use crate::message::{Question, response_code};
use crate::server::Shared;
use crate::upstream::{Outcome, ask};
use crate::view::MAX_UPSTREAMS;

/// Asks the upstreams in order, the next one as soon as one fails or has been silent for `hedge`; the first good
/// answer wins. One that was silent is asked after the others for a while, and then not waited for. None: nobody
/// answered before the deadline.
pub(crate) async fn forward(
    question: &Question,
    upstreams: &[SocketAddr],
    shared: &Arc<Shared>,
) -> Option<Vec<u8>> {
    let start = Instant::now();
    let Plan { order, probes } = shared.health.plan(&upstreams[..upstreams.len().min(MAX_UPSTREAMS)], start);
    probes.into_iter().for_each(|silent| probe(question, silent, shared));

    let hedge = shared.config.hedge;
    let deadline = start + shared.config.forward_deadline;
    let mut order = order.into_iter();
    let mut attempts = JoinSet::new();
    let (mut waiting, mut failing) = (Vec::new(), None);
    let answer = loop {
        let next = match order.next() {
            Some((upstream, was_silent)) => {
                let now = Instant::now();
                waiting.push((upstream, now));
                spawn(&mut attempts, question, upstream, now + 2 * hedge, shared);
                now + if was_silent { Duration::ZERO } else { hedge }
            }
            None if attempts.is_empty() => break failing,
            None => deadline,
        };
        tokio::select! {
            Some(Ok((upstream, outcome))) = attempts.join_next() => {
                waiting.retain(|(at, _)| *at != upstream);
                match outcome {
                    Outcome::Answered(reply) => {
                        shared.health.answered(upstream);
                        break Some(reply);
                    }
                    Outcome::Failing(reply) => {
                        shared.health.answered(upstream);
                        failing = Some(reply);
                    }
                    Outcome::Unreachable(error) => {
                        tracing::debug!(%upstream, %error, "a resolver of the host can't be asked");
                    }
                }
            }
            () = sleep_until(next.min(deadline)) => if Instant::now() >= deadline { break failing },
        }
    };
    let now = Instant::now();
    waiting
        .iter()
        .filter(|(_, since)| now - *since >= hedge)
        .for_each(|(at, _)| shared.health.silent(*at, now));
    answer.map(|reply| fit(reply, question))
}

fn spawn(
    attempts: &mut JoinSet<(SocketAddr, Outcome)>,
    question: &Question,
    upstream: SocketAddr,
    again: Instant,
    shared: &Arc<Shared>,
) {
    let (question, shared) = (question.clone(), Arc::clone(shared));
    attempts.spawn(async move { (upstream, ask(&question, upstream, again, &shared.counting).await) });
}

/// Asks on the side, to learn whether an upstream is back. Bounded by [`crate::health`]: one at a time for each.
fn probe(question: &Question, upstream: SocketAddr, shared: &Arc<Shared>) {
    let (question, shared) = (question.clone(), Arc::clone(shared));
    let deadline = Instant::now() + shared.config.forward_deadline;
    tokio::spawn(async move {
        let asking = ask(&question, upstream, deadline, &shared.counting);
        if let Ok(Outcome::Answered(_) | Outcome::Failing(_)) = timeout_at(deadline, asking).await {
            shared.health.answered(upstream);
        }
    });
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
