//! The agent: what makes one host a node. It enrolls, keeps a session with a manager, and makes true on
//! its host what the manager assigns: namespaces and interfaces, forwarding, names, processes.
//!
//! ```text
//! session ── Desired ──> reconcile ── plan ──> host · dataplane · dns · tasks
//!    ^                      ^ projections (pure): Snapshot, Records, MeshPlan
//!    └── statuses, port conflicts, logs, attachments
//! ```
//!
//! - [`enroll()`]: from a join token to credentials.
//! - [`Agent`]: the daemon's handle to everything else.
//! - [`host`], [`executor`]: the only parts that touch the kernel.

mod agent;
pub mod attach;
mod completion;
pub mod containers;
mod desired;
pub mod enroll;
pub mod executor;
mod explain;
#[cfg(test)]
mod fake_manager;
pub mod host;
mod key;
mod member;
mod paths;
mod places;
mod project;
mod reconcile;
mod renewal;
mod sandboxes;
mod session;
mod tasks;
mod tls;
mod transport;

pub use agent::{Agent, AgentConfig, AgentStatus, JoinError, Membership, StartError};
pub use attach::{AttachError, AttachOptions, AttachedInterface, DetachError, DetachTarget};
pub use enroll::{EnrollError, EnrollRequest, Enrolled, enroll};
pub use key::KeyError;
pub use paths::PeerPath;
pub use renewal::KeepCredentials;
pub use skep_dataplane::{DropReason, PathStats, SessionStats, Stats};
