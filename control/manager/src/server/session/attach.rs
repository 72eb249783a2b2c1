//! An attachment a node asks for.

use crate::Db;
use crate::attach::{self, AttachError};
use jiff::Timestamp;
use skep_model::NodeId;
use skep_model::session::{AttachRequest, Attached};

/// Makes the attachment. Blocks for one disk sync. The error is for whoever asked the node for it.
pub(super) fn attach(db: &Db, node: &NodeId, request: &AttachRequest) -> Result<Attached, String> {
    let mut planned = None;
    db.update(|state| {
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
