//! What the tests in real namespaces share. They need root and fail without it.

pub mod api;
pub mod capture;
pub mod ear;
pub mod flow;
pub mod hop;
pub mod lab;
pub mod marker;
mod netns;
pub mod pair;
mod process;
pub mod talk;
pub mod transfer;

pub use netns::{Netns, require_root};
pub use process::{Running, example, run};
