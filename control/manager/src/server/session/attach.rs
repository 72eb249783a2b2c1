//! An attachment a node asks for.

use crate::attach::{self, AttachError};
use crate::server::ManagerCore;
use jiff::Timestamp;
use skep_model::NodeId;
use skep_model::session::{AttachRequest, Attached};

/// Makes the attachment. Blocks for one disk sync. The error is for whoever asked the node for it.
///
/// A session that was replaced makes none: the newer one's Hello has said what the node holds, and nobody would
/// ever give this up.
pub(super) fn attach(
    core: &ManagerCore,
    node: &NodeId,
    generation: u64,
    request: &AttachRequest,
) -> Result<Attached, String> {
    let mut planned = None;
    core.db
        .update(|state| {
            if !core.sessions.is_current(node, generation) {
                return Err(AttachError::Replaced);
            }
            let (task, changes) = attach::plan(state, node, request, Timestamp::now())?;
            planned = Some(task);
            Ok::<_, AttachError>(changes)
        })
        .map_err(|error| error.to_string())?;
    let task = planned.ok_or("the attachment was not planned")?;
    let name = task.name();
    let attachment = task.attachments.into_iter().next().ok_or("the attachment has no address")?;
    Ok(Attached { task: task.id, name, attachment })
}
