//! What the tests in real namespaces share. They need root and fail without it.

pub mod api;
pub mod flow;
pub mod hop;
pub mod lab;
mod netns;
pub mod pair;
mod process;
pub mod transfer;

pub use netns::{Netns, require_root};
pub use process::{Running, example, run};
