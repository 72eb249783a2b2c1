//! What the ends of a TCP connection tell each other of their segments' size, as far as the path between them allows.

use crate::packet::Packet;
use crate::wire::checksum::Delta;
use crate::wire::{ipv4, put_u16, tcp, u16_at};

/// RFC 9293 §3.2: end of the options, padding, and the maximum segment size with its length.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: usize = 4;

/// Lowers the segment size a SYN offers to what fits IP packets of `limit` bytes. So a connection's segments fit from
/// the first on, also where the word about a packet that was too large gets lost.
pub(crate) fn clamp(packet: &mut Packet<'_>, limit: usize) {
    if packet.ip.protocol != ipv4::TCP || packet.ip.is_fragment() {
        return;
    }
    let Some(segment) = tcp::parse(packet.payload()).filter(|segment| segment.has(tcp::SYN)) else { return };
    // RFC 6691 §2: without the options of either header.
    let fits = limit.saturating_sub(ipv4::MIN_HEADER_LEN + tcp::MIN_HEADER_LEN).max(1);
    let fits = u16::try_from(fits).unwrap_or(u16::MAX);
    let is_partial = packet.offload.is_partial();
    let header = &mut packet.payload_mut()[..segment.header_len];
    let Some(at) = place(header) else { return };
    let offered = u16_at(header, at);
    if offered <= fits {
        return;
    }
    put_u16(header, at, fits);
    // A partial checksum does not cover the header yet.
    if !is_partial {
        let delta = changed(at, offered, fits);
        let full = delta.full(u16_at(header, tcp::CHECKSUM));
        put_u16(header, tcp::CHECKSUM, full);
    }
}

/// Where the option's value is.
fn place(header: &[u8]) -> Option<usize> {
    let mut at = tcp::MIN_HEADER_LEN;
    loop {
        let len = match *header.get(at)? {
            END => return None,
            NO_OPERATION => 1,
            kind => {
                let len = usize::from(*header.get(at + 1)?);
                if kind == MSS && len == MSS_LEN && header.len() >= at + MSS_LEN {
                    return Some(at + 2);
                }
                len
            }
        };
        // An option without length leads nowhere.
        at += if len == 0 { return None } else { len };
    }
}

/// Options may lie at an odd place: there, a value is the halves of two words.
fn changed(at: usize, old: u16, new: u16) -> Delta {
    match at % 2 {
        0 => Delta::default().word(old, new),
        _ => Delta::default().word(old.swap_bytes(), new.swap_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vnet::VnetHdr;
    use crate::wire::{checksum, ethernet};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const AT: usize = 8;
    const TCP_AT: usize = AT + ethernet::HEADER_LEN + ipv4::MIN_HEADER_LEN;
    const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];

    fn syn(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), END);
        let mut buf = vec![0; TCP_AT + tcp::MIN_HEADER_LEN];
        tcp::write(&mut buf[TCP_AT..], 1, 2, 3, 0, flags);
        buf.extend(&options);
        let ip_len = buf.len() - AT - ethernet::HEADER_LEN;
        buf[TCP_AT + 12] = ((tcp::MIN_HEADER_LEN + options.len()) * 4) as u8;
        ipv4::write(&mut buf[AT + ethernet::HEADER_LEN..], ipv4::TCP, ip_len, ENDS[0], ENDS[1]);
        let full = checksum::transport(ENDS[0], ENDS[1], ipv4::TCP, &buf[TCP_AT..]);
        put_u16(&mut buf[TCP_AT..], tcp::CHECKSUM, full);
        buf
    }

    fn clamped(mut buf: Vec<u8>, limit: usize) -> Vec<u8> {
        let mut packet = Packet::of_port(&mut buf, AT, VnetHdr::default(), 1500).unwrap();
        clamp(&mut packet, limit);
        buf
    }

    proptest! {
        #[test]
        fn the_option_is_lowered_and_the_checksum_stays_right(
            mss in any::<u16>(),
            before in 0usize..5,
            after in prop::collection::vec(Just(NO_OPERATION), 0..4),
            limit in 68usize..9000,
        ) {
            let options = [&vec![NO_OPERATION; before][..], &[MSS, 4], &mss.to_be_bytes(), &after].concat();
            let buf = clamped(syn(tcp::SYN, &options), limit);
            prop_assert_eq!(u16_at(&buf, TCP_AT + 20 + before + 2), mss.min((limit - 40) as u16));
            let mut header = buf[TCP_AT..].to_vec();
            let shown = u16_at(&header, tcp::CHECKSUM);
            put_u16(&mut header, tcp::CHECKSUM, 0);
            prop_assert_eq!(shown, checksum::transport(ENDS[0], ENDS[1], ipv4::TCP, &header));
        }

        #[test]
        fn whatever_the_options_are_nothing_breaks(options in prop::collection::vec(any::<u8>(), 0..40)) {
            clamped(syn(tcp::SYN | tcp::ACK, &options), 500);
        }
    }

    #[test]
    fn only_a_syn_is_looked_at() {
        let options = [MSS, 4, 0x05, 0xb4];
        assert_eq!(clamped(syn(tcp::ACK, &options), 500), syn(tcp::ACK, &options));
        assert_ne!(clamped(syn(tcp::SYN | tcp::ACK, &options), 500), syn(tcp::SYN | tcp::ACK, &options));
    }
}
