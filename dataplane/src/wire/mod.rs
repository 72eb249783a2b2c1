//! Packet formats at fixed offsets.
//!
//! `parse` functions accept any bytes and never panic. Accessors and setters that take an offset
//! panic beyond the slice: their callers have parsed first.

pub(crate) mod arp;
pub(crate) mod checksum;
pub(crate) mod ethernet;
pub(crate) mod icmpv4;
pub(crate) mod ipv4;
pub(crate) mod sealed;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod vnet;
pub(crate) mod vxlan;

use std::net::Ipv4Addr;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn ip_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32_at(bytes, at))
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_ip(bytes: &mut [u8], at: usize, ip: Ipv4Addr) {
    bytes[at..at + 4].copy_from_slice(&ip.octets());
}
