//! Ethernet II. Every function needs the 14 bytes of a whole header.

use super::u16_at;
use crate::ids::MacAddr;

pub(crate) const HEADER_LEN: usize = 14;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;

pub(crate) fn dst(frame: &[u8]) -> MacAddr {
    mac_at(frame, 0)
}

pub(crate) fn src(frame: &[u8]) -> MacAddr {
    mac_at(frame, 6)
}

pub(crate) fn ethertype(frame: &[u8]) -> u16 {
    u16_at(frame, 12)
}

pub(crate) fn set_dst(frame: &mut [u8], mac: MacAddr) {
    frame[..6].copy_from_slice(&mac.0);
}

pub(crate) fn set_src(frame: &mut [u8], mac: MacAddr) {
    frame[6..12].copy_from_slice(&mac.0);
}

pub(crate) fn write(frame: &mut [u8], dst: MacAddr, src: MacAddr, ethertype: u16) {
    set_dst(frame, dst);
    set_src(frame, src);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

pub(crate) fn mac_at(bytes: &[u8], at: usize) -> MacAddr {
    let mut mac = [0; 6];
    mac.copy_from_slice(&bytes[at..at + 6]);
    MacAddr(mac)
}
