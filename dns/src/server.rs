//! The resolvers of all containers of a node, and the records they answer from.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::config::ServerConfig;
use crate::container::Container;
use crate::counters::{Counters, Counting};
use crate::health::Health;
use crate::log::Rarely;
use crate::places::NodePlaces;
use crate::records::Records;
use crate::view::View;

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("container {0} already has a resolver: detach it first")]
    Duplicate(String),
    #[error("the resolver's sockets can't be served: {0}")]
    Sockets(#[from] io::Error),
}

/// Serves every container of this node. Clones are handles to the same server; with the last one it ends.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    attached: Arc<Mutex<HashMap<String, Attached>>>,
    runtime: Handle,
    /// Ends the thread that serves, if it is the server's own, with the last handle.
    _thread: Option<Arc<oneshot::Sender<()>>>,
}

/// What every container's resolver needs.
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) records: ArcSwap<Records>,
    pub(crate) counting: Counting,
    pub(crate) health: Health,
    pub(crate) places: NodePlaces,
    /// What pace is counted from.
    pub(crate) start: Instant,
    pub(crate) busy_log: Rarely,
    pub(crate) socket_log: Rarely,
}

struct Attached {
    view: Arc<ArcSwap<View>>,
    serving: AbortHandle,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// Questions that no zone knows are asked from the network namespace of the threads of the tokio runtime this is
    /// called in: they must never have left the daemon's own.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: ServerConfig) -> Self {
        Self::on(Handle::current(), None, config)
    }

    /// Serves from a thread of its own: answers come from one processor's caches, and no worker thread has to wake another for
    /// a handful of microseconds' work. Like [`Self::new`], it asks others from the namespace that the caller is in.
    pub fn with_own_thread(config: ServerConfig) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (last, ended) = oneshot::channel();
        thread::Builder::new().name("skep-dns".to_owned()).spawn(move || {
            // An error: the last handle is gone, and that is what is waited for.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self::on(handle, Some(Arc::new(last)), config))
    }

    fn on(runtime: Handle, thread: Option<Arc<oneshot::Sender<()>>>, config: ServerConfig) -> Self {
        let shared = Shared {
            places: NodePlaces::new(config.forwards_per_node),
            config,
            records: ArcSwap::default(),
            counting: Counting::default(),
            health: Health::default(),
            start: Instant::now(),
            busy_log: Rarely::default(),
            socket_log: Rarely::default(),
        };
        Self { shared: Arc::new(shared), attached: Arc::default(), runtime, _thread: thread }
    }

    /// Replaces all records at once; every question that comes in after the return is answered from these.
    pub fn publish(&self, records: Records) {
        self.shared.records.store(Arc::new(records));
    }

    /// Serves a container. The sockets are bound to 127.0.0.11:53 inside its network namespace by the caller.
    pub fn attach(
        &self,
        id: String,
        view: View,
        udp: UdpSocket,
        tcp: TcpListener,
    ) -> Result<(), AttachError> {
        let mut attached = self.attached();
        if attached.contains_key(&id) {
            return Err(AttachError::Duplicate(id));
        }
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        // Registering a socket needs the runtime's reactor, and the caller may be an ordinary thread.
        let _runtime = self.runtime.enter();
        let (udp, tcp) = (tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?);
        let view = Arc::new(ArcSwap::from_pointee(view));
        let container = Container::new(id.clone(), Arc::clone(&view), Arc::clone(&self.shared));
        let serving = self.runtime.spawn(container.serve(udp, tcp)).abort_handle();
        attached.insert(id, Attached { view, serving });
        Ok(())
    }

    /// Replaces what a container sees. One that isn't attached has no view to replace.
    pub fn set_view(&self, id: &str, view: View) {
        if let Some(container) = self.attached().get(id) {
            container.view.store(Arc::new(view));
        }
    }

    /// Ends a container's resolver and closes its sockets. One that isn't attached stays so.
    pub fn detach(&self, id: &str) {
        self.attached().remove(id);
    }

    pub fn counters(&self) -> Counters {
        self.shared.counting.read()
    }

    /// The map is whole after every statement that changes it, so a panic elsewhere can't have left it half changed.
    fn attached(&self) -> MutexGuard<'_, HashMap<String, Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
