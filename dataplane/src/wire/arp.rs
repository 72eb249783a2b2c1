//! ARP for IPv4 over Ethernet (RFC 826).

use super::ethernet::mac_at;
use super::{ip_at, put_ip, u16_at};
use crate::ids::MacAddr;
use std::net::Ipv4Addr;

pub(crate) const LEN: usize = 28;

/// Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) is_request: bool,
    pub(crate) sender_mac: MacAddr,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
}

/// `None` for anything but a request or a reply for IPv4 over Ethernet.
pub(crate) fn parse(packet: &[u8]) -> Option<Arp> {
    if packet.len() < LEN || packet[..6] != ETHERNET_IPV4 {
        return None;
    }
    let is_request = match u16_at(packet, 6) {
        REQUEST => true,
        REPLY => false,
        _ => return None,
    };
    Some(Arp {
        is_request,
        sender_mac: mac_at(packet, 8),
        sender: ip_at(packet, 14),
        target: ip_at(packet, 24),
    })
}

/// Turns a parsed request, in place, into the answer "the target is at `mac`".
pub(crate) fn answer(packet: &mut [u8], arp: &Arp, mac: MacAddr) {
    packet[6..8].copy_from_slice(&REPLY.to_be_bytes());
    packet[8..14].copy_from_slice(&mac.0);
    put_ip(packet, 14, arp.target);
    packet[18..24].copy_from_slice(&arp.sender_mac.0);
    put_ip(packet, 24, arp.sender);
}
