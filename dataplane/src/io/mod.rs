//! The engine's only way to the kernel: TAPs, the UDP socket, the clock and the thread that owns them.
//!
//! [`Worker::spawn`] starts that thread and gives a [`Handle`]; a [`Tap`] is opened by whoever builds a
//! container's namespace and handed over with [`Handle::attach`].

mod drops;
mod fast;
mod handle;
mod holder;
mod mmsg;
mod send;
mod staged;
mod tap;
mod udp;
mod worker;

pub use drops::IoDrop;
pub use fast::FastPaths;
pub use handle::{AttachError, Handle, StartError, Worker, WorkerConfig, WorkerGone, WorkerStats};
pub use holder::{Holder, Process};
pub use tap::{Tap, TapError, TapOptions};
pub use udp::{UdpError, probe};
