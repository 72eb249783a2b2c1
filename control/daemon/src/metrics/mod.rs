//! What this node counts, for Prometheus: `GET /metrics` on an address of its own, and `GET /skep/metrics` of the API.

mod server;
mod text;

pub(crate) use server::{Server, address};
pub(crate) use text::CONTENT_TYPE;

use crate::node::Node;
use std::time::Instant;
use text::Seen;

/// The exposition as of now.
pub(crate) async fn text(node: &Node) -> String {
    let seen = async {
        let (stats, paths) = (node.agent().stats().await?, node.agent().paths().await?);
        Some(Seen { drops: node.drops().await?, engine: stats.engine, paths, now: Instant::now() })
    };
    text::exposition(seen.await.as_ref())
}
