//! A sealed datagram: a VXLAN header with the mark, and behind it a frame or word of one session, or a step towards one.
//! `docs/wire.md` specifies it all.
//!
//! ```text
//! VXLAN header      8 B   00 00 00 00 | VNI | mark 01          } associated
//! session index     4 B   chosen by the receiver; never zero   } data
//! counter           8 B   the nonce                            }
//! shim              4 B   kind | flags | transport header      } encrypted
//! frame, nonce, …                                              }
//! tag              16 B
//! ```
//! With a session index of zero it is a [`handshake`]. All numbers are big-endian.

use super::{put_u16, put_u32, u16_at, u32_at, vxlan};
use crate::ids::Vni;
use crate::verdict::DropReason;

/// What is authenticated, and readable: VXLAN header, session index, counter.
pub(crate) const HEADER_LEN: usize = vxlan::HEADER_LEN + size_of::<u32>() + size_of::<u64>();
pub(crate) const SHIM_LEN: usize = 4;
pub(crate) const TAG_LEN: usize = 16;
/// Where a frame begins.
pub(crate) const FRAME_AT: usize = HEADER_LEN + SHIM_LEN;
/// Bytes of a datagram besides its frame.
pub(crate) const OVERHEAD: usize = FRAME_AT + TAG_LEN;

const INDEX: usize = vxlan::HEADER_LEN;
const COUNTER: usize = INDEX + size_of::<u32>();

/// The VNI of what is no frame of a network.
const NO_NETWORK: u32 = 0;

const PARTIAL: u8 = 1;
const INGRESS: u8 = 2;

/// What is in the clear of a datagram of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) vni: u32,
    pub(crate) index: u32,
    pub(crate) counter: u64,
}

/// What kind of plaintext follows the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shim {
    Frame(Marks),
    /// Asks on the path; with padding, whether the size arrives.
    Question,
    Answer,
    /// Nothing: a sign of life.
    Keepalive,
}

/// What a frame's bytes do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Where the transport header begins, in bytes from the Ethernet header, if its checksum is partial.
    pub(crate) partial: Option<u16>,
    /// It is of the ingress network.
    pub(crate) ingress: bool,
}

/// The two things a datagram with the mark can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Session(Header),
    Handshake,
}

/// Of a datagram that [has the mark](vxlan::Mark::Sealed).
pub(crate) fn parse(datagram: &[u8]) -> Result<Kind, DropReason> {
    if datagram.len() < COUNTER {
        return Err(DropReason::Truncated);
    }
    let (vni, index) = (u32_at(datagram, 4) >> 8, u32_at(datagram, INDEX));
    if index == 0 {
        return if vni == NO_NETWORK { Ok(Kind::Handshake) } else { Err(DropReason::HandshakeMalformed) };
    }
    if datagram.len() < OVERHEAD {
        return Err(DropReason::Truncated);
    }
    let counter = u64::from(u32_at(datagram, COUNTER)) << 32 | u64::from(u32_at(datagram, COUNTER + 4));
    Ok(Kind::Session(Header { vni, index, counter }))
}

/// `vni` is none for what is no frame of a network.
pub(crate) fn write_header(datagram: &mut [u8], vni: Option<Vni>, index: u32, counter: u64) {
    vxlan::write_sealed(datagram, vni.map_or(NO_NETWORK, Vni::as_u32));
    put_u32(datagram, INDEX, index);
    datagram[COUNTER..HEADER_LEN].copy_from_slice(&counter.to_be_bytes());
}

impl Shim {
    pub(crate) fn to_bytes(self) -> [u8; SHIM_LEN] {
        let (kind, Marks { partial, ingress }) = match self {
            Self::Frame(marks) => (1, marks),
            Self::Question => (2, Marks::default()),
            Self::Answer => (3, Marks::default()),
            Self::Keepalive => (4, Marks::default()),
        };
        let flags = if partial.is_some() { PARTIAL } else { 0 } | if ingress { INGRESS } else { 0 };
        let mut bytes = [kind, flags, 0, 0];
        put_u16(&mut bytes, 2, partial.unwrap_or_default());
        bytes
    }

    /// `None` for what no engine sends: what is authentic may still be wrong.
    pub(crate) fn parse(bytes: [u8; SHIM_LEN]) -> Option<Self> {
        let [kind, flags, ..] = bytes;
        let transport = u16_at(&bytes, 2);
        let partial = (flags & PARTIAL != 0).then_some(transport);
        let is_plausible = flags & !(PARTIAL | INGRESS) == 0 && (partial.is_some() || transport == 0);
        match kind {
            1 if is_plausible => Some(Self::Frame(Marks { partial, ingress: flags & INGRESS != 0 })),
            2 if flags == 0 && transport == 0 => Some(Self::Question),
            3 if flags == 0 && transport == 0 => Some(Self::Answer),
            4 if flags == 0 && transport == 0 => Some(Self::Keepalive),
            _ => None,
        }
    }
}

/// Messages that lead to a session.
///
/// ```text
/// VXLAN header   8 B   08 00 00 00 | 00 00 00 | 01
/// zero           4 B
/// type           4 B   01 initiation, 02 response, 03 cookie; then zeroes
/// initiation   164 B   sender's index 4 | Noise message 128 | MAC1 16 | MAC2 16
/// response     104 B   sender's index 4 | receiver's index 4 | Noise message 64 | MAC1 16 | MAC2 16
/// cookie        60 B   receiver's index 4 | nonce 24 | sealed cookie 32
/// ```
pub(crate) mod handshake {
    use super::{INDEX, put_u32, u32_at, vxlan};
    use crate::verdict::DropReason;

    pub(crate) const MAC_LEN: usize = 16;
    /// A Noise IK initiation (`e, es, s, ss`) with its payload.
    pub(crate) const NOISE_1_LEN: usize = 32 + (32 + 16) + (PAYLOAD_1_LEN + 16);
    /// Its answer (`e, ee, se`) with its payload.
    pub(crate) const NOISE_2_LEN: usize = 32 + (PAYLOAD_2_LEN + 16);
    pub(crate) const PAYLOAD_1_LEN: usize = 32;
    pub(crate) const PAYLOAD_2_LEN: usize = 16;
    pub(crate) const NONCE_LEN: usize = 24;
    pub(crate) const SEALED_COOKIE_LEN: usize = MAC_LEN + 16;

    const TYPE: usize = INDEX + 4;
    const BODY: usize = TYPE + 4;

    pub(crate) const INITIATION_LEN: usize = BODY + 4 + NOISE_1_LEN + 2 * MAC_LEN;
    pub(crate) const RESPONSE_LEN: usize = BODY + 8 + NOISE_2_LEN + 2 * MAC_LEN;
    pub(crate) const COOKIE_LEN: usize = BODY + 4 + NONCE_LEN + SEALED_COOKIE_LEN;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Message<'a> {
        Initiation { sender: u32, noise: &'a [u8; NOISE_1_LEN] },
        Response { sender: u32, receiver: u32, noise: &'a [u8; NOISE_2_LEN] },
        Cookie { receiver: u32, nonce: &'a [u8; NONCE_LEN], cookie: &'a [u8; SEALED_COOKIE_LEN] },
    }

    /// Every message has one length, and an index that is not zero.
    pub(crate) fn parse(datagram: &[u8]) -> Result<Message<'_>, DropReason> {
        read(datagram).ok_or(DropReason::HandshakeMalformed)
    }

    fn read(datagram: &[u8]) -> Option<Message<'_>> {
        let kind = datagram.get(TYPE..BODY)?;
        let index_at = |at| Some(u32_at(datagram, at)).filter(|index| *index != 0);
        match (kind, datagram.len()) {
            ([1, 0, 0, 0], INITIATION_LEN) => Some(Message::Initiation {
                sender: index_at(BODY)?,
                noise: datagram[BODY + 4..][..NOISE_1_LEN].try_into().ok()?,
            }),
            ([2, 0, 0, 0], RESPONSE_LEN) => Some(Message::Response {
                sender: index_at(BODY)?,
                receiver: index_at(BODY + 4)?,
                noise: datagram[BODY + 8..][..NOISE_2_LEN].try_into().ok()?,
            }),
            ([3, 0, 0, 0], COOKIE_LEN) => Some(Message::Cookie {
                receiver: index_at(BODY)?,
                nonce: datagram[BODY + 4..][..NONCE_LEN].try_into().ok()?,
                cookie: datagram[BODY + 4 + NONCE_LEN..].try_into().ok()?,
            }),
            _ => None,
        }
    }

    /// Without its MACs.
    pub(crate) fn initiation(sender: u32, noise: &[u8; NOISE_1_LEN]) -> [u8; INITIATION_LEN] {
        let mut datagram = begun(1);
        put_u32(&mut datagram, BODY, sender);
        datagram[BODY + 4..][..NOISE_1_LEN].copy_from_slice(noise);
        datagram
    }

    /// Without its MACs.
    pub(crate) fn response(sender: u32, receiver: u32, noise: &[u8; NOISE_2_LEN]) -> [u8; RESPONSE_LEN] {
        let mut datagram = begun(2);
        put_u32(&mut datagram, BODY, sender);
        put_u32(&mut datagram, BODY + 4, receiver);
        datagram[BODY + 8..][..NOISE_2_LEN].copy_from_slice(noise);
        datagram
    }

    pub(crate) fn cookie(
        receiver: u32,
        nonce: &[u8; NONCE_LEN],
        cookie: &[u8; SEALED_COOKIE_LEN],
    ) -> [u8; COOKIE_LEN] {
        let mut datagram = begun(3);
        put_u32(&mut datagram, BODY, receiver);
        datagram[BODY + 4..][..NONCE_LEN].copy_from_slice(nonce);
        datagram[BODY + 4 + NONCE_LEN..].copy_from_slice(cookie);
        datagram
    }

    fn begun<const LEN: usize>(kind: u8) -> [u8; LEN] {
        let mut datagram = [0; LEN];
        vxlan::write_sealed(&mut datagram, super::NO_NETWORK);
        datagram[TYPE] = kind;
        datagram
    }

    /// What the MACs of an initiation or a response cover, and the MACs: first the one, then the other.
    pub(crate) fn parts(datagram: &[u8]) -> Option<(&[u8], &[u8; MAC_LEN], &[u8; MAC_LEN])> {
        let (rest, mac2) = datagram.split_last_chunk()?;
        let (covered, mac1) = rest.split_last_chunk()?;
        Some((covered, mac1, mac2))
    }
}

#[cfg(test)]
mod tests {
    use super::handshake::Message;
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_specified() {
        let mut datagram = [0xaa; OVERHEAD];
        write_header(&mut datagram, Vni::new(0x12_3456), 0x0102_0304, 0x1112_1314_1516_1718);
        let wanted =
            [0, 0, 0, 0, 0x12, 0x34, 0x56, 1, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
        assert_eq!(datagram[..HEADER_LEN], wanted);
        let header = Header { vni: 0x12_3456, index: 0x0102_0304, counter: 0x1112_1314_1516_1718 };
        assert_eq!(parse(&datagram), Ok(Kind::Session(header)));
        assert_eq!(parse(&datagram[..OVERHEAD - 1]), Err(DropReason::Truncated));
        assert_eq!(parse(&datagram[..COUNTER - 1]), Err(DropReason::Truncated));
    }

    #[test]
    fn every_shim_is_read_as_it_was_written_and_no_other_bytes_are_one() {
        let frame = |partial, ingress| Shim::Frame(Marks { partial, ingress });
        let all = [
            frame(None, false),
            frame(None, true),
            frame(Some(34), false),
            frame(Some(34), true),
            Shim::Question,
            Shim::Answer,
            Shim::Keepalive,
        ];
        assert_eq!(all.map(|shim| Shim::parse(shim.to_bytes())), all.map(Some));
        assert_eq!(frame(Some(34), true).to_bytes(), [1, 3, 0, 34]);
        for bytes in [[0, 0, 0, 0], [5, 0, 0, 0], [1, 4, 0, 0], [1, 0, 0, 34], [2, 1, 0, 0], [4, 0, 0, 1]] {
            assert_eq!(Shim::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn every_handshake_message_is_read_as_it_was_written_in_its_own_length_only() {
        let initiation = handshake::initiation(7, &[1; handshake::NOISE_1_LEN]);
        let response = handshake::response(8, 7, &[2; handshake::NOISE_2_LEN]);
        let cookie = handshake::cookie(9, &[3; 24], &[4; 32]);
        let noise = &[1; handshake::NOISE_1_LEN];
        assert_eq!(handshake::parse(&initiation), Ok(Message::Initiation { sender: 7, noise }));
        let noise = &[2; handshake::NOISE_2_LEN];
        assert_eq!(handshake::parse(&response), Ok(Message::Response { sender: 8, receiver: 7, noise }));
        let (nonce, sealed) = (&[3; 24], &[4; 32]);
        assert_eq!(handshake::parse(&cookie), Ok(Message::Cookie { receiver: 9, nonce, cookie: sealed }));
        assert_eq!([initiation.len(), response.len(), cookie.len()], [180, 120, 76]);
        for whole in [&initiation[..], &response, &cookie] {
            assert_eq!(parse(whole), Ok(Kind::Handshake));
            for len in 0..whole.len() {
                assert!(handshake::parse(&whole[..len]).is_err(), "{len} bytes");
            }
            assert!(handshake::parse(&[whole, &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_handshake_is_of_no_network_and_has_an_index() {
        let mut message = handshake::cookie(9, &[3; 24], &[4; 32]);
        message[6] = 1;
        assert_eq!(parse(&message), Err(DropReason::HandshakeMalformed));
        let message = handshake::cookie(0, &[3; 24], &[4; 32]);
        assert_eq!(handshake::parse(&message), Err(DropReason::HandshakeMalformed));
    }
}
