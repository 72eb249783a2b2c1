//! Other programs' packet filters. A packet passes only if every chain at the forward hook lets it, so an
//! accept of ours in a chain of ours doesn't help on a host that forwards nothing by default.
//!
//! Where a firewall offers a chain to others ([`PLACES`]), one marked jump there leads to a chain of ours
//! that lets Skep's interfaces pass; Skep's own guards, which run before, still apply to them. Where none
//! is offered, what stands in the way is said, with the command that lets Skep pass: an operator's own rules
//! are not rewritten.

mod legacy;
mod nftables;

use super::netns::Netns;
use super::{GWBRIDGE, SKEP0};
use std::io;

/// Chains of the table `filter` that firewalls leave to others, the preferred one first: Docker's, which it
/// asks first, and ufw's, which it asks after the rules its user has given.
const PLACES: [&str; 2] = ["DOCKER-USER", "ufw-after-forward"];
/// What our jumps lead to.
const CHAIN: &str = "SKEP-FORWARD";
/// Marks them.
const MARK: &str = "Skep: the routing mesh and ways out of containers";
/// What may pass, by interface.
const PASSES: [(Direction, &str); 4] =
    [(Direction::In, SKEP0), (Direction::Out, SKEP0), (Direction::In, GWBRIDGE), (Direction::Out, GWBRIDGE)];

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// What one look at the host's firewalls came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Jumps that had to be made.
    pub(super) made: Vec<String>,
    /// What is in the way, one sentence each, with what to do.
    pub(super) obstacles: Vec<String>,
}

/// Makes the jumps that are missing, and looks for what is in the way all the same.
pub(super) async fn pass(netns: &Netns) -> io::Result<Outcome> {
    let mut outcome = nftables::pass(netns).await?;
    let legacy = netns.run(legacy::pass).await?;
    outcome.made.extend(legacy.made);
    outcome.obstacles.extend(legacy.obstacles);
    Ok(outcome)
}

/// Whether this host has a filter that says nothing of its changes, so that it has to be looked at.
pub(super) async fn has_legacy(netns: &Netns) -> io::Result<bool> {
    netns.run(|| Ok(legacy::is_in_use())).await
}

/// Takes the jumps out again. Collects errors.
pub(super) async fn leave(netns: &Netns) -> Vec<String> {
    let failed = |error: io::Error| format!("cannot take Skep's jump out of this host's firewall: {error}");
    let nftables = nftables::leave(netns).await.map_err(failed);
    let legacy = netns.run(legacy::leave).await.map_err(failed);
    [nftables, legacy].into_iter().filter_map(Result::err).collect()
}

fn obstacle(chain: &str, command: &str) -> String {
    format!(
        "{chain} drops what this host forwards, so published ports and containers' ways out may not work on \
         this node; to let Skep pass: {command}"
    )
}

fn jump_in(place: &str) -> String {
    format!("a jump to {CHAIN} in {place}")
}
