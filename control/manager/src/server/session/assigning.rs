//! What a session sends its node of the state, and what of it the node has in place.

use super::{Session, SessionEnd};
use crate::dispatch;
use crate::server::reports::NodeRemoved;
use skep_model::assign::Desired;
use skep_model::session::ToAgent;

impl Session<'_> {
    /// Sends what changed for the node since the last time; everything if nothing was sent yet.
    pub(super) async fn assign(&mut self) -> Result<(), SessionEnd> {
        self.revision.mark_unchanged();
        self.drained.mark_unchanged();
        let state = self.core.db.state();
        if !state.nodes.contains_key(&self.node) {
            self.core.liveness().forget(&self.node);
            return Err(NodeRemoved.into());
        }
        let mut assignments = dispatch::assignments(&state, &self.node);
        self.core.observe(&state).mark(&mut assignments);
        let desired = Desired { revision: state.revision, assignments };
        let message = match &self.sent {
            None => desired.complete(),
            Some(sent) => match desired.since(sent) {
                Some(message) => message,
                // The node stays at the revision it has: the next message applies to that one.
                None => {
                    self.coverage.unchanged(state.revision);
                    self.note_coverage();
                    return Ok(());
                }
            },
        };
        self.coverage.sent(state.revision);
        self.sent = Some(desired);
        self.send(&ToAgent::Assignments(message)).await
    }

    /// The node has what it was sent in place, up to `revision`.
    pub(super) fn applied(&mut self, revision: u64) {
        self.coverage.applied(revision);
        self.note_coverage();
    }

    /// A session that was replaced speaks for a node that may have started anew since, with nothing in place.
    fn note_coverage(&self) {
        if !self.core.sessions.is_current(&self.node, self.generation) {
            return;
        }
        if let Some(revision) = self.coverage.covered() {
            self.core.covers(&self.node, revision);
        }
    }

    /// Whether a task of this node may be stopped that could not be when it was sent last.
    pub(super) fn has_drained(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| self.core.drains().has_news_for(&sent.assignments))
    }
}
