//! Skep's packet engine: a switch, a VXLAN endpoint and a load balancer that make no system call.
//!
//! Bytes and the time go in ([`Engine::handle_frame`], [`Engine::handle_datagram`],
//! [`Engine::handle_timeout`]), instructions come out ([`Output`]). What should be true arrives as an
//! immutable [`Snapshot`](snapshot::Snapshot); what has happened (flows, fragments, counters) lives in
//! the engine. Only `io` makes system calls.
//!
//! Directions: *from a port* is what a container or the host's kernel sent, *to a port* what it is
//! handed; *forward* is client to service, *reverse* the answer. Sizes are in bytes, times inside the
//! engine in milliseconds since its first `now`.
//!
//! A container asks a virtual address, step by step and file by file:
//! 1. `switch::guard`: the frame carries its port's own MAC and address.
//! 2. `switch::gateway`: the destination MAC is the VIP's, and so is the address.
//! 3. `nat`: a known flow goes to its backend, a new one to the backend whose turn it is; `nat::rewrite`
//!    gives the packet its new ends, and every checksum its due.
//! 4. `switch::hop`: the backend's MAC, and with it a port of this node or a VTEP.
//! 5. `tunnel`: the network's policy decides what goes on the wire; `segment` cuts super-frames and
//!    finishes checksums in place.
//! 6. At the backend's node `switch::guard` checks that the VTEP owns the sender; the frame is delivered.
//! 7. The answer goes straight back. The client's engine finds the flow by its reverse side and shows
//!    the VIP as the sender.
//!
//! A packet never errors: it goes on, or it is dropped for a counted [`DropReason`].

pub mod ids;
#[cfg(feature = "io")]
pub mod io;
pub mod seal;
pub mod snapshot;

mod answers;
mod counters;
mod engine;
mod hash;
mod index;
mod merge;
mod mss;
mod nat;
mod offload;
mod packet;
mod prepared;
mod probe;
mod segment;
mod switch;
mod tunnel;
mod verdict;
mod wire;

pub use counters::{PortStats, Stats};
pub use engine::{Engine, HEADROOM, Output};
pub use merge::Merge;
pub use prepared::{Indexer, Prepared, Retired};
pub use probe::PathStats;
pub use seal::SessionStats;
pub use verdict::DropReason;
pub use wire::vnet::VnetHdr;
