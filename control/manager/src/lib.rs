//! The manager: the cluster's state and everything that decides over it. See ARCHITECTURE.md.

mod allocator;
pub mod api;
pub mod attach;
pub mod ca;
#[cfg(test)]
mod chaos;
pub mod control_loop;
pub mod db;
pub mod dispatch;
mod draft;
mod liveness;
mod logs;
mod manager;
mod orchestrator;
mod placement;
mod scheduler;
mod server;
pub mod state;
pub mod store;
mod tls;

pub use db::Db;
pub use logs::{LogError, LogOptions, LogReceiver, LogTarget, TaskLogContext};
pub use manager::{InitError, InitOptions, Manager, OpenError, StartError};
