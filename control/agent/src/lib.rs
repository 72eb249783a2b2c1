pub mod executor;
pub mod host;
