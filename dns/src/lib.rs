//! Names inside containers.

pub mod records;
