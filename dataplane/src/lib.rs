//! Skep's packet engine. See ARCHITECTURE.md for the walks.

pub mod ids;
pub mod snapshot;
