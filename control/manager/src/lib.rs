//! The manager: see ARCHITECTURE.md.

pub mod state;
