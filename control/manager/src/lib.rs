//! The manager: the cluster's state and everything that decides over it. See ARCHITECTURE.md.

pub mod ca;
pub mod db;
pub mod dispatch;
mod liveness;
mod logs;
mod manager;
mod server;
pub mod state;
pub mod store;
mod tls;

pub use db::Db;
pub use liveness::HEARTBEAT_PERIOD;
pub use logs::{LogError, LogOptions, LogReceiver, LogTarget, TaskLogContext};
pub use manager::{InitError, InitOptions, Manager, OpenError, StartError};
