//! What one container may see.

use std::net::SocketAddr;

use crate::records::ZoneId;

/// Where a name that no zone of the view knows is asked, in order of preference. Empty: nowhere (a container that is
/// only on internal networks, or a host without resolvers), and such questions get SERVFAIL.
///
/// The first three are used, as in resolv.conf(5) (MAXNS): each one more would only add to the wait when all are dead.
pub type Upstreams = Vec<SocketAddr>;

/// How many of a view's upstreams are asked.
pub(crate) const MAX_UPSTREAMS: usize = 3;

/// What one container may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The networks of the container, in the order of its attachments: the first that knows a name answers.
    /// A zone that the records don't hold (yet) is skipped.
    pub zones: Vec<ZoneId>,
    pub upstreams: Upstreams,
}
