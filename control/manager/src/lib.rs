//! The manager: the cluster's state and everything that decides over it. See ARCHITECTURE.md.

pub mod db;
pub mod state;
pub mod store;

pub use db::Db;
