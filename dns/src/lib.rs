//! Names inside containers.
//!
//! Every container has a resolver on 127.0.0.11:53 of its own network namespace. What it answers comes from one
//! immutable set of [`records`] and the container's [`View`]; what no network of the container knows goes to the
//! host's resolvers. This crate knows nothing of namespaces: the caller binds the sockets inside and hands them over.
//!
//! [`decide`](decide::decide) says what to do with a message and does no I/O. [`Server`] owns the sockets; which container
//! asks is known by the socket the question came in on, so no question can reach another container's networks.

mod batch;
pub mod config;
mod container;
mod counters;
pub mod decide;
mod forward;
mod health;
mod log;
pub mod message;
mod pace;
mod places;
mod plain;
pub mod records;
pub mod resolver;
mod reverse;
mod server;
mod turns;
mod upstream;
mod view;

pub use config::ServerConfig;
pub use counters::Counters;
pub use server::{AttachError, Server};
pub use view::{Upstreams, View};
