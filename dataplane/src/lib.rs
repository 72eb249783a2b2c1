//! Skep's packet engine: a switch, a VXLAN endpoint and a load balancer that make no system call.
//!
//! Bytes and the time go in ([`Engine::handle_frame`], [`Engine::handle_datagram`],
//! [`Engine::handle_timeout`]), instructions come out ([`Output`]). What should be true arrives as an
//! immutable [`Snapshot`](snapshot::Snapshot); what has happened (flows, fragments, counters) lives in the engine.
//! Only `io` makes system calls.
//!
//! Directions: *from a port* is what a container or the host's kernel sent, *to a port* what it is
//! handed; *forward* is client to service, *reverse* the answer.

pub mod ids;
#[cfg(feature = "io")]
pub mod io;
pub mod snapshot;

mod counters;
mod engine;
mod hash;
mod index;
mod nat;
mod offload;
mod packet;
mod segment;
mod switch;
mod tunnel;
mod verdict;
mod wire;

pub use counters::{PortStats, Stats};
pub use engine::{Engine, HEADROOM, Output};
pub use verdict::DropReason;
pub use wire::vnet::VnetHdr;
