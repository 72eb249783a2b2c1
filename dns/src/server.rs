//! The shell: sockets of many containers, one set of records.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::records::{Records, ZoneId};

/// Where names that no zone knows are asked, in order of preference. Empty: nowhere (an internal container).
pub type Upstreams = Vec<SocketAddr>;

/// What one container may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The networks of the container, in the order of its attachments: the first that knows a name answers.
    pub zones: Vec<ZoneId>,
    pub upstreams: Upstreams,
}

#[derive(Clone, Debug, Default)]
pub struct ServerConfig {}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("a container {0} already has a resolver: detach it first")]
    Duplicate(String),
    #[error("the resolver's sockets can't be served: {0}")]
    Sockets(#[from] std::io::Error),
}

/// Serves every container of this node. Clones are handles to the same server.
#[derive(Clone)]
pub struct Server {
    records: Arc<ArcSwap<Records>>,
}

impl Server {
    pub fn new(_config: ServerConfig) -> Self {
        Self { records: Arc::default() }
    }

    pub fn publish(&self, records: Records) {
        self.records.store(Arc::new(records));
    }

    pub fn attach(
        &self,
        _id: String,
        _view: View,
        _udp: UdpSocket,
        _tcp: TcpListener,
    ) -> Result<(), AttachError> {
        Ok(())
    }

    pub fn set_view(&self, _id: &str, _view: View) {}

    pub fn detach(&self, _id: &str) {}
}
