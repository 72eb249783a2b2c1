//! Packet formats at fixed offsets.
pub(crate) mod vnet;
