//! Names inside containers.

pub mod records;
mod server;

pub use server::{AttachError, Server, ServerConfig, Upstreams, View};
