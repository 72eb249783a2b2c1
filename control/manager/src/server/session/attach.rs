//! An attachment a node asks for.

use crate::Db;
use skep_model::NodeId;
use skep_model::session::{AttachRequest, Attached};

pub(super) fn attach(_db: &Db, _node: &NodeId, _request: &AttachRequest) -> Result<Attached, String> {
    Err("attaching isn't there yet".to_owned())
}
