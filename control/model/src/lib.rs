//! The words manager, agent, API and CLI share: the cluster's objects as Docker's API shapes them,
//! join tokens, and the messages between a manager and its agents.
//!
//! - [`cluster`], [`node`], [`network`], [`service`], [`task`]: objects. A `Spec` is the user's and never
//!   changed by the system; a `Status` is what was observed.
//! - [`assign`]: what one node has to make true, as a keyed set with COMPLETE and INCREMENTAL updates.
//! - [`session`]: the two message types of the stream between an agent and its manager; [`lines`]: its framing.
//! - [`signal`]: signals by name and number; [`hostname`]: what may be one.
//! - [`text`]: text of strangers, fit for people's tables.
//! - [`data_path`]: keys and cipher of the sealed overlay.
//! - [`join`]: how a node gets its certificate; [`token`]: Swarm's join token.
//!
//! Nothing here does I/O.

pub mod assign;
pub mod cluster;
pub mod data_path;
pub mod hostname;
pub mod id;
pub mod join;
pub mod lines;
pub mod network;
pub mod node;
pub mod service;
pub mod session;
pub mod signal;
pub mod task;
pub mod text;
pub mod token;

pub use id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
